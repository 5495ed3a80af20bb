"""A function of the service's own that is run once, read off its signature: what it is given, and what its caller says.

A parameter that is named like a driver is given its resource, and one whose annotation asks for something of the
kernel's is given that; all others are arguments of the command line.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter
from typing import Final, cast, final

import attrs

from .._convert.imports import NotImportableError, import_object
from .._convert.payload import payload_converter
from .._convert.strict import FromOutside
from .._core.contract import Contract
from .._core.event import Event
from .._core.spec import Asked, DriverSpec, Plan
from .._manifest.overrides import value_of
from ..errors import ConversionError, PlanError, Problem
from .injection import VARIADIC, Argument, Offer, arguments_of, inject, resolve

_SECTION: Final = re.compile(r"^(Args|Arguments|Returns|Raises|Yields|Cancellation|Ownership|Ordering|Delivery):\s*$")
_ENTRY: Final = re.compile(r"^\s+\*{0,2}(\w+)(?: \([^)]*\))?:\s*(.*)$")


@final
@attrs.frozen(kw_only=True, repr=False)
class ScriptArgument:
    """One argument that the caller gives."""

    name: str
    kind: object
    """One of the kinds of `inspect.Parameter`."""
    type: str
    """Of the annotation, for people; empty if there is none."""
    default: object
    """`Parameter.empty` if it has to be given."""
    help: str
    is_flag: bool
    """Whether it is a boolean with a default, so that naming it is enough."""
    convert: Callable[[object], object]
    """Raises `ConversionError`."""


@final
@attrs.frozen(kw_only=True, repr=False)
class Script:
    """A function, and what it is called with."""

    path: str
    function: Callable[..., object]
    parameters: Sequence[Parameter]
    drivers: Mapping[str, str]
    """Parameter -> driver id."""
    clients: Mapping[str, Contract]
    """Those of these that are given an object of the driver's contract instead."""
    asked: Mapping[str, Asked | tuple[type[Event], ...]]
    """Parameter -> what it is given for its annotation."""
    arguments: Sequence[ScriptArgument]
    help: str

    @property
    def name(self) -> str:
        """What it is called as a component."""
        return re.sub(r"\W", "_", self.path.rpartition(":")[2]).lower()

    def bound(self, values: Mapping[str, object]) -> tuple[list[object], dict[str, object]]:
        """Return what the function is called with: by position as far as that is possible, else by name."""
        args: list[object] = []
        kwargs: dict[str, object] = {}
        for parameter in self.parameters:
            if parameter.kind is Parameter.VAR_POSITIONAL:
                args += cast("Sequence[object]", values.get(parameter.name, ()))
            elif parameter.kind is Parameter.KEYWORD_ONLY:
                kwargs[parameter.name] = values[parameter.name]
            elif parameter.kind is not Parameter.VAR_KEYWORD:
                args.append(values[parameter.name])
        return args, kwargs


def read_script(plan: Plan, path: str) -> Script:
    """Import a function and find out what it is called with.

    Raises:
        PlanError: if there is no such function, or what it asks for is not there; with all that is wrong.
    """
    problems: list[Problem] = []

    def report(_at: tuple[str, ...], text: str) -> None:
        problems.append(Problem(path, 0, "", text))

    script = _read(plan, path, report)
    if script is None or problems:
        raise PlanError(problems)
    return script


def _read(plan: Plan, path: str, report: Callable[[tuple[str, ...], str], None]) -> Script | None:
    try:
        found = import_object(path, directory=plan.directory)
    except NotImportableError as error:
        report((), str(error))
        return None
    if not inspect.isroutine(found) or inspect.isasyncgenfunction(found) or inspect.isgeneratorfunction(found):
        kind = "a generator function" if inspect.isroutine(found) else f"an instance of {type(found).__qualname__}"
        report((), f"must name a function, plain or async; this is {kind}")
        return None
    function = cast("Callable[..., object]", found)
    parameters = arguments_of(function, path, report)
    drivers = [spec for spec in plan.components.values() if isinstance(spec, DriverSpec)]
    provided = {spec.name: spec.cls.provides for spec in drivers}
    contracts = {spec.name: spec.contract for spec in drivers if spec.contract is not None}
    given = [one for one in parameters if one.asks() is not None or _is_driver(one, provided)]
    injection = inject(given, Offer(drivers=provided, contracts=contracts), path, report)
    help_, helps = _read_docstring(inspect.getdoc(function) or "")
    own = [one for one in parameters if one not in given and one.parameter.kind is not Parameter.VAR_KEYWORD]
    return Script(
        path=path,
        function=function,
        parameters=[one.parameter for one in parameters],
        drivers=injection.drivers,
        clients=injection.clients,
        asked=injection.asked,
        arguments=[_argument(one, helps.get(one.name, ""), path, report) for one in own],
        help=help_,
    )


def _is_driver(argument: Argument, drivers: Mapping[str, object]) -> bool:
    return argument.name in drivers and argument.parameter.kind not in VARIADIC


def _argument(
    argument: Argument, help_: str, path: str, report: Callable[[tuple[str, ...], str], None]
) -> ScriptArgument:
    annotation = resolve(argument, path, report)
    if annotation is Parameter.empty:
        annotation = str
    try:
        convert = payload_converter(annotation)
    except TypeError as error:
        report((), f'"{argument.name}": {error}')
        convert = payload_converter(str)
    has_default = argument.parameter.default is not Parameter.empty
    return ScriptArgument(
        name=argument.name,
        kind=argument.parameter.kind,
        type=annotation.__name__ if isinstance(annotation, type) else str(annotation),
        default=argument.parameter.default,
        help=help_,
        is_flag=annotation is bool and has_default,
        convert=lambda text: _converted(convert, text),
    )


def _converted(convert: Callable[[object], object], text: object) -> object:
    """Return a text of the command line as a type: as it stands, or as what TOML would read."""
    readings = [text, *_readings(text)]
    for reading in readings[:-1]:
        try:
            return convert(reading)
        except ConversionError:
            continue
    return convert(readings[-1])


def _readings(text: object) -> Iterator[object]:
    if not isinstance(text, str):
        return
    yield from list(FromOutside(text).readings())[1:]
    if text.startswith(("[", "{")):
        yield value_of(text)


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Return what stands before the sections of a docstring, and what its section `Args` says of each name."""
    before: list[str] = []
    helps: dict[str, str] = {}
    section, name = "", ""
    for line in text.splitlines():
        if heading := _SECTION.match(line):
            section = heading[1]
        elif not section:
            before.append(line)
        elif section in {"Args", "Arguments"}:
            if entry := _ENTRY.match(line):
                name, helps[entry[1]] = entry[1], entry[2]
            elif name and line.strip():
                helps[name] += f" {line.strip()}"
    return "\n".join(before).strip(), helps
