"""What a caller or a publisher has promised to send and expects to get, and an object with a method for each of it."""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast, final

import attrs

from ..errors import ContractError, ConversionError
from .envelope import Arguments
from .words import did_you_mean, listed

Convert: TypeAlias = Callable[[object], object]


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Clause:
    """One method of a contract: what is sent under one subject."""

    method: str
    subject: str
    takes_arguments: bool
    """Whether what is sent are the arguments of a call; else it is one payload."""
    check: Convert
    """Raises `ConversionError` for what may not be sent."""
    convert: Convert
    """What comes back -> the annotated type; raises `ConversionError`."""
    signature: inspect.Signature
    """Parameters and result, annotations resolved."""
    names: tuple[str, ...] = attrs.field(init=False)
    """Of the parameters that may be given by position as well as by name; none if others stand before them."""

    def __attrs_post_init__(self) -> None:
        parameters = list(self.signature.parameters.values())
        only = [one for one in parameters if one.kind is inspect.Parameter.POSITIONAL_ONLY]
        both = [one.name for one in parameters if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        object.__setattr__(self, "names", () if only else tuple(both))

    def payload(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        """Return what is sent for a call of the method.

        Raises:
            ContractError: if that takes one payload, and was given something else.
        """
        if self.takes_arguments:
            return Arguments.of_contract(args, kwargs, self.names)
        given = [*args, *kwargs.values()] or self._default
        if len(given) != 1 or not kwargs.keys() <= self.signature.parameters.keys():
            raise ContractError(self.subject, [f"takes one payload: {self.method}{self.signature}"])
        return given[0]

    @property
    def _default(self) -> list[object]:
        defaults = (parameter.default for parameter in self.signature.parameters.values())
        return [default for default in defaults if default is not inspect.Parameter.empty]


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Contract:
    """A class as one side of a conversation. Held against whatever a driver sends by that driver itself."""

    name: str
    """Its import path."""
    cls: type[object]
    clauses: Mapping[str, Clause]
    """By subject."""
    is_published: bool
    """Whether what is sent is published, so that nothing comes back."""
    client_class: type[Any]
    """Made by `client_class`."""

    def __repr__(self) -> str:
        return f"<Contract {self.name}>"

    def sending(self, subject: str, payload: object) -> Convert:
        """Hold what is to be sent against the contract; return what converts the answer.

        Raises:
            ContractError: with everything that is wrong; nothing may be sent.
        """
        clause = self.clauses.get(subject)
        if clause is None:
            near = did_you_mean(subject, self.clauses) or f"; there are: {listed(self.clauses)}"
            raise ContractError(subject, [f"is not in {self.name}{near}"])
        try:
            clause.check(payload)
        except ConversionError as error:
            problems = error.problems
        else:
            return clause.convert
        raise ContractError(subject, problems)

    def client(self, resource: object) -> object:
        """Return an instance of the class whose methods send through a resource: a `Caller` or a `Sender`."""
        made = object.__new__(self.client_class)
        object.__setattr__(made, _RESOURCE, resource)
        return made


_RESOURCE = "_kernel_resource"


def client_class(cls: type[object], clauses: Sequence[Clause], *, is_published: bool) -> type[object]:
    """Return a class derived from one, whose methods send.

    Raises:
        Exception: whatever deriving from it raises.
    """
    make = _publishing if is_published else _calling
    methods = {clause.method: _named(make(clause), cls, clause.method) for clause in clauses}
    return types.new_class(cls.__name__, (cls,), {}, lambda body: body.update(methods, __module__=cls.__module__))


def _calling(clause: Clause) -> Callable[..., Awaitable[object]]:
    async def call(self: Any, /, *args: object, **kwargs: object) -> object:  # noqa: ANN401  made of any class
        return await getattr(self, _RESOURCE).call(clause.subject, clause.payload(args, kwargs))

    return call


def _publishing(clause: Clause) -> Callable[..., Awaitable[object]]:
    has_result = clause.signature.return_annotation is str

    async def publish(self: Any, /, *args: object, **kwargs: object) -> object:  # noqa: ANN401  as above
        id_: object = await getattr(self, _RESOURCE).publish(clause.subject, clause.payload(args, kwargs))
        return id_ if has_result else None

    return publish


def _named(method: Callable[..., object], cls: type[object], name: str) -> object:
    made, promised = cast("types.FunctionType", method), inspect.getattr_static(cls, name)
    made.__name__, made.__qualname__, made.__doc__ = name, f"{cls.__qualname__}.{name}", promised.__doc__
    made.__module__ = cls.__module__
    return made
