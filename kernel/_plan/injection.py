"""What a worker's class or function asks for by the names of its parameters, and what it gets.

A parameter that is mapped to a driver in the manifest receives its resource; so does one that is named like one, unless
its annotation asks for something of the kernel's. `config` receives the worker's own configuration; any other needs a
default.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from pathlib import Path
from typing import Any, Final, cast, final

import attrs

from .._convert.strict import FromOutside, is_array, is_table
from .._convert.structure import structure
from .._core.caller import Caller, Sender
from .._core.contract import Contract
from .._core.event import Event
from .._core.marks import patterns_of, words_of
from .._core.spec import Asked
from .._core.words import did_you_mean, listed
from .._manifest.tables import Report, under
from .asked import asked_by

VARIADIC: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_PRETENDS: Final = frozenset({"__wrapped__", "__signature__", "_partialmethod", "__partialmethod__"})
"""Attributes of functions whose signature is said to be another one."""
_AS_IT_IS: Final = (Parameter.empty, object, Any, dict, Mapping)


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Offer:
    """What one worker can be given."""

    drivers: Mapping[str, type[object]]
    """Name of a driver -> what it provides; `object` if that is not known."""
    disabled: frozenset[str] = frozenset()
    """Names of drivers that are."""
    contracts: Mapping[str, Contract] = attrs.field(factory=dict[str, Contract])
    """Name of a driver -> its contract."""
    mapping: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Parameter -> name of a driver, as the manifest maps them."""
    unusable: frozenset[str] = frozenset()
    """Parameters that are mapped to a driver that does not exist, which is reported elsewhere."""
    config: Mapping[str, object] | None = None
    """The worker's `config` table, if it has one."""
    directory: Path | None = None
    """Searched first for modules that the table names."""
    calls: str = ""
    """What has to be said in the manifest if a parameter was meant for what the worker is called with."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Injection:
    """What one worker is given."""

    drivers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Parameter -> driver id."""
    clients: Mapping[str, Contract] = attrs.field(factory=dict[str, Contract])
    """Those that are given an object of the driver's contract."""
    asked: Mapping[str, Asked | tuple[type[Event], ...]] = attrs.field(factory=dict[str, Any])
    """Parameter -> what it is given for its annotation."""
    config_parameter: str | None = None
    config: object = None


@final
@attrs.frozen(eq=False, repr=False)
class Argument:
    """A parameter and where the names in its annotation are to be looked up."""

    name: str
    parameter: Parameter
    namespace: dict[str, object]

    @property
    def is_required(self) -> bool:
        """Whether a call without it fails."""
        return self.parameter.default is Parameter.empty and self.parameter.kind not in VARIADIC

    @property
    def is_annotated(self) -> bool:
        """Whether it has an annotation."""
        return self.parameter.annotation is not Parameter.empty

    def asks(self) -> Asked | tuple[type[Event], ...] | None:
        """Return what it is given for its annotation, if that is something of the kernel's."""
        try:
            return asked_by(self.annotation()) if self.is_annotated else None
        except Exception:  # noqa: BLE001  annotations are code; whoever needs this one reports it
            return None

    def resolved(self) -> Parameter:
        """Return the parameter with its annotation as an object; without one if that cannot be had."""
        try:
            return self.parameter.replace(annotation=self.annotation()) if self.is_annotated else self.parameter
        except Exception:  # noqa: BLE001  annotations are code; whoever needs this one reports it
            return self.parameter.replace(annotation=Parameter.empty)

    def annotation(self) -> object:
        """Return the annotation as an object.

        Raises:
            Exception: whatever evaluating it raises.
        """
        annotation = self.parameter.annotation
        if isinstance(annotation, type) and not typing.get_args(annotation):  # most are, and nothing is to be looked up
            return annotation
        holder = types.SimpleNamespace(__annotations__={self.name: self.parameter.annotation})
        return typing.get_type_hints(holder, globalns=self.namespace, include_extras=True)[self.name]


def arguments_of(use: Callable[..., object], label: str, report: Report) -> list[Argument]:
    """Return the parameters of a function, or of a class's constructor, reporting a signature that cannot be read."""
    if isinstance(use, type) and _is_made_of_nothing(use):
        return []
    try:
        parameters = inspect.signature(use).parameters.values()
    except (ValueError, TypeError, NameError) as error:
        report(("use",), f"the signature of {label} cannot be read: {error}")
        return []
    return [Argument(parameter.name, parameter, _namespace(use, parameter.name)) for parameter in parameters]


def _is_made_of_nothing(cls: type[object]) -> bool:
    """Return whether a class has no constructor, which takes `inspect` longer to find out than to read most of them."""
    is_plain = cls.__init__ is object.__init__ and cls.__new__ is object.__new__ and type(cls).__call__ is type.__call__
    says = hasattr(cls, "__signature__") or any(base.__text_signature__ for base in cls.__mro__[:-1])
    return is_plain and not says


def returned_by(use: Callable[..., object]) -> Argument | None:
    """Return what a function returns, as if it were an argument; None if that is not annotated."""
    try:
        annotation = _return_annotation(use)
    except (ValueError, TypeError, NameError):  # `arguments_of` reports it
        return None
    if annotation is inspect.Signature.empty:
        return None
    return Argument("result", Parameter("result", Parameter.KEYWORD_ONLY, annotation=annotation), _namespace(use, ""))


def _return_annotation(use: Callable[..., object]) -> object:
    if isinstance(use, types.FunctionType) and _PRETENDS.isdisjoint(vars(use)):
        return use.__annotations__.get("return", inspect.Signature.empty)  # its parameters have been read before
    return inspect.signature(use).return_annotation


def _namespace(use: Callable[..., object], name: str) -> dict[str, object]:
    if isinstance(use, type):
        declaring = _declaring_class(use, name)
        if declaring is not None:
            return vars(sys.modules[declaring.__module__])
        use = cast("Callable[..., object]", getattr(use, "__init__"))  # noqa: B009  # mypy dislikes the plain way
    while isinstance(use, functools.partial):
        use = use.func
    return getattr(inspect.unwrap(use), "__globals__", {})


def _declaring_class(cls: type[object], name: str) -> type[object] | None:
    # The __init__ that attrs and dataclasses write has annotations, but not always the globals to look them up in.
    if not (attrs.has(cls) or hasattr(cls, "__dataclass_fields__")):
        return None
    fields = {name, f"_{name}"}
    return next((base for base in cls.__mro__ if fields & set(vars(base).get("__annotations__", ()))), None)


def resolve(argument: Argument, label: str, report: Report) -> object:
    """Return an argument's annotation, or `Parameter.empty` if there is none or it cannot be resolved (reported)."""
    if not argument.is_annotated:
        return Parameter.empty
    try:
        return argument.annotation()
    except Exception as error:  # noqa: BLE001  # annotations are code: they may raise anything
        text = f'the annotation of "{argument.name}" of {label} cannot be resolved: {error}'
        hint = "; import it outside TYPE_CHECKING" if isinstance(error, NameError) else ""
        report(("use",), text + hint)
        return Parameter.empty


def inject(
    arguments: Sequence[Argument], offer: Offer, label: str, report: Report, *, strict: bool = True
) -> Injection:
    """Find out what a worker is given.

    Args:
        arguments: Its parameters, those that are not injected left out.
        offer: What there is.
        label: What to call it in problems.
        report: Takes the problems, with paths relative to the worker's table.
        strict: Whether a parameter that nothing is offered for is a problem.
    """
    _check_mapping(arguments, offer, label, report)
    drivers: dict[str, str] = {}
    clients: dict[str, Contract] = {}
    asked: dict[str, Asked | tuple[type[Event], ...]] = {}
    config_parameter, config = None, None
    for argument in arguments:
        driver = offer.mapping.get(argument.name, argument.name)
        if argument.name in offer.unusable:
            continue
        if argument.name not in offer.mapping and (what := argument.asks()) is not None:
            asked[argument.name] = what
            continue
        if argument.name == "config" and "config" not in offer.mapping:
            config_parameter, config = _inject_config(argument, offer, label, report)
        elif argument.parameter.kind not in VARIADIC and driver in offer.drivers:
            drivers[argument.name] = f"driver/{driver}"
            if _wants(argument, offer.contracts.get(driver), label, report):
                clients[argument.name] = offer.contracts[driver]
            else:
                _check_driver(argument, driver, offer, label, report)
        elif argument.is_required and strict:
            report(("use",), _not_offered(argument.name, offer, label))
    drivers |= _into_keywords(arguments, offer)
    if offer.config is not None and not any(argument.name == "config" for argument in arguments):
        report(("config",), f'{label} has no parameter "config" that could take it')
    return Injection(drivers=drivers, clients=clients, asked=asked, config_parameter=config_parameter, config=config)


def _wants(argument: Argument, contract: Contract | None, label: str, report: Report) -> bool:
    """Return whether a parameter asks for a contract, or for a class that it is derived from."""
    if contract is None or argument.parameter.kind is Parameter.POSITIONAL_ONLY:
        return False
    wanted = _options(resolve(argument, label, report))
    return any(option is cls for option in wanted for cls in contract.cls.__mro__[:-1])


def _options(annotation: object) -> list[object]:
    """Return what an annotation lets be given: `Annotated` and unions are looked into, and None is no driver."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return [option for part in typing.get_args(annotation) for option in _options(part)]
    return [] if annotation is types.NoneType else [annotation]


def _into_keywords(arguments: Sequence[Argument], offer: Offer) -> dict[str, str]:
    if not _takes_any_keyword(arguments):
        return {}
    named = {argument.name for argument in arguments}
    return {
        parameter: f"driver/{driver}"
        for parameter, driver in offer.mapping.items()
        if parameter not in named and driver in offer.drivers
    }


def _takes_any_keyword(arguments: Sequence[Argument]) -> bool:
    return any(argument.parameter.kind is Parameter.VAR_KEYWORD for argument in arguments)


def _check_mapping(arguments: Sequence[Argument], offer: Offer, label: str, report: Report) -> None:
    names = [argument.name for argument in arguments if argument.parameter.kind not in VARIADIC]
    for parameter in sorted({*offer.mapping, *offer.unusable}):
        if parameter not in names and not _takes_any_keyword(arguments):
            has = f"; it has: {listed(names)}" if names else "; it has none"
            report(("drivers", parameter), f"{label} has no such parameter{did_you_mean(parameter, names) or has}")


def _check_driver(argument: Argument, driver: str, offer: Offer, label: str, report: Report) -> None:
    provided, wanted = offer.drivers[driver], resolve(argument, label, report)
    if argument.parameter.kind is Parameter.POSITIONAL_ONLY:
        report(
            ("use",),
            f'parameter "{argument.name}" of {label} is positional-only, but what is injected is given by name',
        )
    elif not any(_fits(provided, option) for option in _options(wanted)):
        at = ("drivers", argument.name) if argument.name in offer.mapping else ("use",)
        text = f'parameter "{argument.name}" of {label} wants {_type_name(wanted)}'
        contract = offer.contracts.get(driver)
        also = f", and {_type_name(contract.cls)} by its contract" if contract else ""
        report(at, f"{text}, but driver/{driver} provides {_type_name(provided)}{also}{_to_name(provided, wanted)}")


def _fits(provided: type[object], wanted: object) -> bool:
    # `Any` is a class from Python 3.11 on.
    if provided is object or wanted is Parameter.empty or wanted is Any or not isinstance(wanted, type):
        return True
    try:
        return issubclass(provided, wanted)
    except TypeError:  # parameterised, or a typing.Protocol: of most nothing can be said
        return not (issubclass(provided, Caller | Sender) and _is_contract_for(provided, wanted))


def _is_contract_for(provided: type[object], wanted: type[object]) -> bool:
    """Return whether a class can only be had of a driver that names it: it has methods that send under a subject."""
    methods = {
        name: value for base in wanted.__mro__ for name, value in vars(base).items() if inspect.isfunction(value)
    }
    sent = {name: (*words_of(wanted), *patterns_of(method)) for name, method in methods.items() if name[0] != "_"}
    is_open = hasattr(provided, "__getattr__")  # an attribute is a subject
    return any(not hasattr(provided, name) and (words or not is_open) for name, words in sent.items())


def _to_name(provided: type[object], wanted: object) -> str:
    for one in _options(wanted):
        if isinstance(one, type) and issubclass(provided, Caller | Sender) and getattr(one, "_is_protocol", False):
            return f'; if that is a contract, name it in the driver\'s table: contract = "{one.__module__}:{one.__qualname__}"'
    return ""


def _type_name(cls: object) -> str:
    return cls.__qualname__ if isinstance(cls, type) else str(cls)


def _not_offered(name: str, offer: Offer, label: str) -> str:
    if name in offer.disabled:
        return f'parameter "{name}" of {label} has no default, and driver/{name} is disabled'
    near = did_you_mean(name, [*offer.drivers, "config"])
    text = f'parameter "{name}" of {label} has no default and is neither "config" nor a driver'
    return text + (
        near
        or offer.calls
        or (f"; there are: {listed(offer.drivers)}" if offer.drivers else "; the manifest has no drivers")
    )


def _inject_config(
    argument: Argument, offer: Offer, label: str, report: Report
) -> tuple[str, object] | tuple[None, None]:
    if offer.config is None and not argument.is_required:
        return None, None
    table = dict(offer.config or {})
    annotation = resolve(argument, label, report)
    return argument.name, _read_config(annotation, table, offer.directory, under(report, "config"))


def _read_config(annotation: object, table: dict[str, object], directory: Path | None, report: Report) -> object:
    if any(annotation is plain for plain in _AS_IT_IS):
        return _plain(table)
    return structure(table, annotation, report=report, directory=directory, owner="the worker")


def _plain(value: object) -> object:
    """Return a value in which strings are nothing but strings."""
    if is_table(value):
        return {key: _plain(item) for key, item in value.items()}
    if is_array(value):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, FromOutside) else value
