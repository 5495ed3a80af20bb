"""Payloads that are the arguments of a call -> what the parameters of its handler take, as Python would bind them.

Apart from `payload`, which knows one value and one type. What is wrong names the parameter.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter
from itertools import islice
from types import GenericAlias
from typing import Final, TypeAlias, TypeGuard, cast, final

import attrs

from .._convert.payload import MAX_PROBLEMS, converter_at
from .._convert.strict import expected, is_array, is_table
from .._convert.walk import At
from .._core.envelope import Arguments
from .._core.fields import ByFields
from .._core.words import listed, toml_path
from .._manifest.tables import Report
from ..errors import ArgumentsError, ConversionError
from .injection import VARIADIC, Argument, resolve

_SHAPE: Final = frozenset({"args", "kwargs"})
"""The keys of arguments, as protocols write them that have no shape of their own for calls."""
Make: TypeAlias = Callable[[At, object], Callable[[object], object]]
"""Place and annotation -> what converts to it; raises TypeError."""
_BY_POSITION: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME: Final = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


@final
@attrs.frozen(eq=False, repr=False)
class _Slot(ByFields):
    """One parameter that an argument of the call goes to."""

    __repr__ = object.__repr__  # it holds a callable

    name: str
    convert: Callable[[object], object]
    """Raises `ConversionError` with paths that begin with the name."""
    is_required: bool


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Binder(ByFields):
    """Binds arguments to the parameters of one handler."""

    slots: Sequence[_Slot]
    """Those for one argument each, in the order in which they are given by position."""
    by_position: int
    """How many of them can be given by position."""
    only_by_position: int
    """How many of these cannot be given by name."""
    by_name: Mapping[str, _Slot]
    rest: _Slot | None
    """`*args`, which takes all that is left over as one tuple."""
    others: _Slot | None
    """`**kwargs`, which takes all that is left over as one dict."""
    reserved: frozenset[str]
    """Names that the kernel gives itself: no call may set them."""
    names: frozenset[str] | None = attrs.field(
        init=False,
        default=attrs.Factory(lambda self: _names_of(self), takes_self=True),  # noqa: PLW0108  defined below
    )
    """Those of all arguments, if each may be given by name; None if a payload needs a closer look all the same."""

    def __call__(self, payload: object) -> Arguments:
        """Return the arguments converted, and so divided that the handler can be called with them.

        Parameters that may be given either way are given by name: those that the kernel gives may stand before them.

        Raises:
            ArgumentsError: with everything that does not fit.
        """
        if self._is_usual(payload):
            return self._bind_each([payload[slot.name] for slot in self.slots])
        given = read_arguments(payload)
        if not given.kwargs and len(given.args) == len(self.slots) == self.by_position and not self.only_by_position:
            return self._bind_each(given.args)
        values = {slot.name: value for slot, value in zip(self.slots[: self.by_position], given.args, strict=False)}
        problems: list[str] = []
        rest = self._take_rest(given.args[self.by_position :], problems)
        others = self._take_others(given.kwargs, values, problems)
        for slot in self.slots:
            if slot.name in values:
                values[slot.name] = _convert(slot, values[slot.name], problems)
            elif slot.is_required:
                problems.append(f"{slot.name}: is missing")
        if problems:
            raise ArgumentsError(_first(problems))
        leading = self.slots[: self.by_position if rest else self.only_by_position]
        args = [values.pop(slot.name) for slot in leading if slot.name in values]
        return Arguments((*args, *rest), {**values, **others})

    def _is_usual(self, payload: object) -> TypeGuard[Mapping[str, object]]:
        """Whether a payload is an object that names each of the parameters, and nothing else."""
        return type(payload) is dict and payload.keys() == self.names

    def _bind_each(self, given: Sequence[object]) -> Arguments:
        """Bind one value to each parameter; none is left out, and none is left over."""
        problems: list[str] = []
        values = {slot.name: _convert(slot, value, problems) for slot, value in zip(self.slots, given, strict=True)}
        if problems:
            raise ArgumentsError(_first(problems))
        return Arguments((), values)

    def _take_rest(self, surplus: tuple[object, ...], problems: list[str]) -> tuple[object, ...]:
        if not surplus:
            return ()
        if self.rest is None:
            got = self.by_position + len(surplus)
            problems.append(f"at most {self.by_position} can be given by position, got {got}")
            return ()
        return cast("tuple[object, ...]", _convert(self.rest, surplus, problems) or ())

    def _take_others(
        self, given: Mapping[str, object], values: dict[str, object], problems: list[str]
    ) -> Mapping[str, object]:
        """Put what is given by name into `values`, and return what only `**kwargs` takes."""
        others: dict[str, object] = {}
        for name, value in given.items():
            if name in self.by_name:
                if name in values:
                    problems.append(f"{name}: is given twice, by position and by name")
                else:
                    values[name] = value
            elif self.others is None or name in self.reserved:
                problems.append(self._unexpected(str(name)))
            else:
                others[str(name)] = value
        if not others or self.others is None:
            return {}
        return cast("dict[str, object]", _convert(self.others, others, problems) or {})

    def _unexpected(self, name: str) -> str:
        if any(slot.name == name for slot in self.slots[: self.only_by_position]):
            return f"{name}: must be given by position"
        return f"{toml_path((), (name,))}: is unexpected; there are: {listed(slot.name for slot in self.slots)}"


def _names_of(binder: Binder) -> frozenset[str] | None:
    names = frozenset(binder.by_name)
    return None if binder.only_by_position or names == _SHAPE else names


def read_arguments(payload: object) -> Arguments:
    """Return the arguments that a payload is.

    Raises:
        ArgumentsError: if it is none.
    """
    if isinstance(payload, Arguments):
        return payload
    if is_array(payload):
        return Arguments(payload)
    if not is_table(payload):
        error = expected("arguments: an object by name, or an array by position", payload, table="an object")
        raise ArgumentsError([str(error)])
    if len(payload) == len(_SHAPE) and payload.keys() >= _SHAPE:
        args, kwargs = payload["args"], payload["kwargs"]
        if is_array(args) and is_table(kwargs):
            return Arguments(args, kwargs)
    return Arguments(kwargs=payload)


def _convert(slot: _Slot, value: object, problems: list[str]) -> object:
    try:
        return slot.convert(value)
    except ConversionError as error:
        problems += error.problems
        return None


def _first(problems: Sequence[str]) -> Sequence[str]:
    return problems if len(problems) <= MAX_PROBLEMS else [*islice(problems, MAX_PROBLEMS), "and more"]


# --- reading the signature ----------------------------------------------------------------------------------------


def binder_of(
    arguments: Sequence[Argument],
    reserved: Iterable[str],
    label: str,
    report: Report,
    *,
    make: Make = converter_at,
) -> Binder:
    """Return what binds calls to parameters, reporting those that no argument can be converted for.

    Args:
        arguments: The parameters that the arguments of the call go to.
        reserved: Names of the others.
        label: What to call the handler in problems.
        report: Takes the problems.
        make: What makes a converter of a place and an annotation.
    """
    kinds = [argument.parameter.kind for argument in arguments]
    slots = [_slot(argument, label, report, make) for argument in arguments]
    variadic = {kind: slot for kind, slot in zip(kinds, slots, strict=True) if kind in VARIADIC}
    return Binder(
        slots=[slot for kind, slot in zip(kinds, slots, strict=True) if kind not in VARIADIC],
        by_position=sum(kind in _BY_POSITION for kind in kinds),
        only_by_position=kinds.count(Parameter.POSITIONAL_ONLY),
        by_name={slot.name: slot for kind, slot in zip(kinds, slots, strict=True) if kind in _BY_NAME},
        rest=variadic.get(Parameter.VAR_POSITIONAL),
        others=variadic.get(Parameter.VAR_KEYWORD),
        reserved=frozenset(reserved),
    )


def _slot(argument: Argument, label: str, report: Report, make: Make) -> _Slot:
    annotation, at = resolve(argument, label, report), [argument.name]
    item = object if annotation is Parameter.empty else annotation
    match argument.parameter.kind:
        case Parameter.VAR_POSITIONAL:
            annotation = GenericAlias(tuple, (item, ...))
        case Parameter.VAR_KEYWORD:
            annotation, at = GenericAlias(dict, (str, item)), []
        case _:
            pass
    convert = converter(annotation, f'"{argument.name}" of {label}', report, at=at, make=make)
    return _Slot(argument.name, convert, argument.is_required)


def converter(
    annotation: object, label: str, report: Report, *, at: Iterable[str] = (), make: Make = converter_at
) -> Callable[[object], object]:
    """Return what converts to an annotation, reporting one that nothing can be converted to; then it takes all."""
    try:
        return make(tuple(at), annotation)
    except TypeError as error:
        report(("use",), f"{label}: {error}")
        return converter_at((), object)


@final
@attrs.frozen(eq=False, repr=False)
class _Text(ByFields):
    """Stands in a signature for what is to be written there."""

    _text: str

    def __repr__(self) -> str:
        return self._text


def written(arguments: Iterable[Argument]) -> str:
    """Return parameters as Python writes them, in parentheses, with `...` for every default."""
    return str(inspect.Signature([_for_print(argument.parameter) for argument in arguments]))


def _for_print(parameter: Parameter) -> Parameter:
    annotation, default = parameter.annotation, parameter.default
    return parameter.replace(
        annotation=_Text(annotation) if isinstance(annotation, str) else annotation,
        default=default if default is Parameter.empty else _Text("..."),
    )
