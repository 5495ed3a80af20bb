"""What a worker is, read off its class or function: handlers, loop, and what it asks for.

The one place that looks at signatures. What it finds is frozen into the plan, so that nothing is inspected at run time.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, cast, final

import attrs

from .._core.marks import ANSWERS, mark_of, patterns_of
from .._core.router import check_pattern
from .._core.spec import HandlerSpec
from .._core.words import listed
from .._manifest.tables import Report
from .handlers import offered, read_answer, read_handler
from .injection import Argument, Injection, Offer, arguments_of, inject

ANY_SUBJECT: Final = "#"
_UNCALLED: Final = (
    "; to be called with messages, it needs a dispatcher in its table, or to be the failure_worker of another"
)
_OR_ELSEWHERE: Final = "; or name with runs_in a driver that calls it in a thread or a process"


class Role(enum.Enum):
    """Who calls a worker."""

    HANDLER = "handler"
    """The pipeline, for a dispatcher that delivers or for another worker that failed."""
    HOSTED = "hosted"
    """A dispatcher that does not deliver and decides itself what its workers need."""
    LOOP = "loop"
    """Nobody: it can only `run`."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Shape:
    """What the plan needs to know of a worker; the fields are those of `WorkerSpec`."""

    use: Callable[..., object]
    is_function: bool
    injection: Injection
    handlers: tuple[HandlerSpec, ...] = ()
    is_context: bool = False
    runs: bool = False

    @property
    def label(self) -> str:
        """What it is called in problems."""
        return _label(self.use)


def silent(_at: Sequence[str], _text: str) -> None:
    """Report nothing."""


def inspect_worker(
    use: object, *, role: Role, offer: Offer, report: Report, warn: Report = silent, is_plain: bool = False
) -> Shape | None:
    """Look at a worker.

    A class has an object for each instance. An async function is a handler or, with nobody to call it, the loop
    itself. A dispatcher that does not deliver may be given other things: a plain function is called for each
    instance, as a class is; any other object (an ASGI application) is the only instance.

    Args:
        use: What the manifest names.
        role: Who calls it.
        offer: What its parameters can be given.
        report: Takes the problems, with paths relative to the worker's table.
        warn: Takes what is allowed and may not be meant, in the same way.
        is_plain: Whether its handlers are called outside of the event loop, and so are plain functions.
    """
    if isinstance(use, type):
        return _inspect_class(use, role, offer, report, warn, is_plain=is_plain)
    if callable(use) and (inspect.iscoroutinefunction(use) or (is_plain and inspect.isroutine(use))):
        if is_plain:
            _check_kind(use, _label(use), is_plain=True, report=report)
        return _inspect_function(cast("Callable[..., object]", use), role, offer, report, warn)
    if role is Role.HOSTED:
        return _inspect_hosted(use, offer, report)
    report(("use",), f"must name a class or an async function; this is {_kind_of(use)}")
    return None


def _kind_of(use: object) -> str:
    if inspect.isasyncgenfunction(use):
        return "an async generator, which nobody would iterate over"
    if inspect.isroutine(use):
        return f'a plain function; write "async def"{_OR_ELSEWHERE}'
    return f"an instance of {type(use).__qualname__}"


def _label(use: object) -> str:
    return getattr(use, "__qualname__", type(use).__qualname__)


# --- functions ----------------------------------------------------------------------------------------------------


def _inspect_function(function: Callable[..., object], role: Role, offer: Offer, report: Report, warn: Report) -> Shape:
    label = _label(function)
    arguments = arguments_of(function, label, report)
    handlers: tuple[HandlerSpec, ...] = ()
    if role is Role.HANDLER:
        patterns = patterns_of(function) or (ANY_SUBJECT,)
        if mark_of(function) == ANSWERS:
            given = offered(arguments, offer)
            handler, arguments = read_answer(function, "", patterns, arguments, given, label, report, warn), given
        else:
            handler, arguments = read_handler(function, "", patterns, arguments, label, report, warn)
        handlers = (handler,)
        _check_patterns(handlers, label, report)
    elif patterns_of(function):
        report(("use",), _never_called(label, role, mark_of(function)))
    if role is Role.LOOP:
        offer = attrs.evolve(offer, calls=_UNCALLED)
    injection = inject(arguments, offer, label, report, strict=role is not Role.HOSTED)
    return Shape(use=function, is_function=True, injection=injection, handlers=handlers, runs=role is Role.LOOP)


def _inspect_hosted(use: object, offer: Offer, report: Report) -> Shape:
    if inspect.isroutine(use):
        function = cast("Callable[..., object]", use)
        injection = inject(arguments_of(function, _label(use), report), offer, _label(use), report)
        return Shape(use=function, is_function=False, injection=injection)
    return Shape(use=lambda: use, is_function=False, injection=inject((), offer, _label(use), report))


# --- classes ------------------------------------------------------------------------------------------------------


def _inspect_class(
    cls: type[object], role: Role, offer: Offer, report: Report, warn: Report, *, is_plain: bool
) -> Shape:
    label = _label(cls)
    if inspect.isabstract(cls):
        missing = cast("frozenset[str]", getattr(cls, "__abstractmethods__"))  # noqa: B009  # object has no such
        report(("use",), f"{label} is abstract: it lacks {listed(sorted(missing))}")
    injection = inject(arguments_of(cls, label, report), offer, label, report)
    marked = {name: patterns for name in _members(cls) if (patterns := patterns_of(_marked(cls, name)))}
    handlers: tuple[HandlerSpec, ...] = ()
    if role is Role.HANDLER:
        handlers = tuple(_read_methods(cls, marked, report, warn, is_plain=is_plain))
        _check_patterns(handlers, label, report)
    elif marked:
        report(("use",), _never_called(label, role, mark_of(_marked(cls, next(iter(marked))))))
    runs = "run" not in marked and _inspect_run(cls, role, report)
    if role is Role.LOOP and not runs and not marked:
        report(("use",), f'nobody would call {label}: name a dispatcher, or write "async def run(self)"')
    return Shape(
        use=cls,
        is_function=False,
        injection=injection,
        handlers=handlers,
        is_context=_is_context(cls, report),
        runs=runs,
    )


def _read_methods(
    cls: type[object], marked: Mapping[str, tuple[str, ...]], report: Report, warn: Report, *, is_plain: bool
) -> Iterator[HandlerSpec]:
    if not marked and "__call__" in _members(cls):
        marked = {"__call__": (ANY_SUBJECT,)}
    elif not marked:
        report(("use",), f'{_label(cls)} handles nothing: mark a method with @handles("..."), or write async __call__')
    for name, patterns in marked.items():
        if fault := _misplaced(cls, name):
            report(("use",), fault)
        else:
            _check_kind(getattr(cls, name), f"{cls.__qualname__}.{name}", is_plain=is_plain, report=report)
            yield _read_method(cls, name, patterns, report, warn)


def _check_kind(call: object, label: str, *, is_plain: bool, report: Report) -> None:
    """Report a handler that waits where nobody could await it, or that would hold up the event loop."""
    is_async = inspect.iscoroutinefunction(call)
    if is_async and is_plain:
        report(("use",), f'{label} is called outside of the event loop, since runs_in is given; write "def"')
    elif not is_async and not is_plain:
        report(("use",), f'{label} handles messages, so it must be written "async def"{_OR_ELSEWHERE}')


def _members(cls: type[object]) -> dict[str, None]:
    return {name: None for base in reversed(cls.__mro__[:-1]) for name in vars(base)}


def _marked(cls: type[object], name: str) -> object:
    """Return the member of a class, or the function inside of it, whichever a mark would stand on."""
    member = inspect.getattr_static(cls, name, None)
    return member if mark_of(member) else getattr(member, "__func__", getattr(member, "fget", None))


def _misplaced(cls: type[object], name: str) -> str | None:
    if name == "run":
        return f"{cls.__qualname__}.run is the loop of the worker, so {mark_of(_marked(cls, name))} cannot stand on it"
    if name.startswith("_") and name != "__call__":
        return f"{cls.__qualname__}.{name} is private, so it cannot handle messages; take its underscore away"
    if not callable(getattr(cls, name)):
        return f"{cls.__qualname__}.{name} is not a method, so it cannot handle messages"
    return None


def _method_arguments(cls: type[object], name: str, report: Report) -> tuple[list[Argument], list[Argument]]:
    """Return the parameters of a method: the one that is bound when it is called, if any, and the others."""
    static = inspect.getattr_static(cls, name)
    bound = 0 if isinstance(static, staticmethod | classmethod) else 1
    arguments = arguments_of(getattr(cls, name), f"{cls.__qualname__}.{name}", report)
    return arguments[:bound], arguments[bound:]


def _read_method(cls: type[object], name: str, patterns: tuple[str, ...], report: Report, warn: Report) -> HandlerSpec:
    label = f"{cls.__qualname__}.{name}"
    bound, arguments = _method_arguments(cls, name, report)
    call = cast("Callable[..., object]", getattr(cls, name))
    if mark_of(_marked(cls, name)) == ANSWERS:
        return read_answer(call, name, patterns, arguments, bound, label, report, warn)
    handler, others = read_handler(call, name, patterns, arguments, label, report, warn)
    for argument in others:
        if argument.is_required:
            report(("use",), _unknown_parameter(argument.name, label))
    return handler


def _unknown_parameter(name: str, label: str) -> str:
    text = f'parameter "{name}" of {label} has no default; a handler is given its payload'
    return f'{text} and, if it asks, "envelope: Envelope" and "delivery: Delivery"; the rest goes into __init__'


def _inspect_run(cls: type[object], role: Role, report: Report) -> bool:
    run = getattr(cls, "run", None)
    if run is None or (role is Role.HOSTED and not inspect.iscoroutinefunction(run)):
        return False  # the class of somebody else's application may have a `run` of another meaning
    label = f"{cls.__qualname__}.run"
    if not inspect.iscoroutinefunction(run):
        report(("use",), f'{label} is the loop of the worker, so it must be written "async def"')
    required = [argument.name for argument in _method_arguments(cls, "run", report)[1] if argument.is_required]
    if required:
        report(("use",), f"{label} is called without arguments, but needs {listed(required)}; ask in __init__")
    return True


def _is_context(cls: type[object], report: Report) -> bool:
    enters, exits = hasattr(cls, "__aenter__"), hasattr(cls, "__aexit__")
    if enters is not exits:
        has, lacks = ("__aenter__", "__aexit__") if enters else ("__aexit__", "__aenter__")
        report(("use",), f"{cls.__qualname__} has {has} but no {lacks}")
    return enters and exits


def _never_called(label: str, role: Role, mark: str) -> str:
    why = "has no dispatcher" if role is Role.LOOP else "has a dispatcher that delivers no messages"
    return f"{label} is marked with {mark}, but the worker {why}, so it would never be called"


# --- subjects -------------------------------------------------------------------------------------------------------


def _check_patterns(handlers: Sequence[HandlerSpec], label: str, report: Report) -> None:
    owners: dict[str, str] = {}
    for handler in handlers:
        name = f"{label}.{handler.method}" if handler.method else label
        for pattern in handler.patterns:
            if fault := check_pattern(pattern):
                report(("use",), f"{name}: {fault}")
            if pattern in owners:
                report(("use",), f'"{pattern}" is handled twice: by {owners[pattern]} and {name}')
            owners[pattern] = name
