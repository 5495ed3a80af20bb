"""`interceptors = [...]` of drivers and dispatchers: imported, looked at, and what each asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter
from typing import Final

from .._convert.imports import NotImportableError, import_object
from .._core.components import Dispatcher, Driver
from .._core.interceptors import Incoming, Outgoing, function_of
from .._core.spec import InterceptorSpec
from .._core.words import did_you_mean, listed
from .._manifest.tables import Report
from .ground import Ground, Wired, Wiring, plugin_of
from .injection import Argument, Offer, arguments_of, inject, resolve

SENDING: Final = "sending"
HANDLING: Final = "handling"
_GIVEN: Final[Mapping[str, type[object]]] = {SENDING: Outgoing, HANDLING: Incoming}
"""Method -> what it is given."""
_WHAT: Final = {SENDING: "stands around each send of a driver", HANDLING: "stands around each call of a handler"}
_CURE: Final = "write a `yield` where that happens, and @asynccontextmanager above"


def read_interceptors(ground: Ground, wiring: Wiring) -> dict[str, tuple[InterceptorSpec, ...]]:
    """Return the interceptors of each component that has some, by its id, reporting what is wrong with them."""
    offer = _offer(ground, wiring)
    found = {
        wired.entry.id: tuple(_read(ground, wired, offer))
        for wired in (*wiring.drivers.values(), *wiring.dispatchers.values())
    }
    return {id_: specs for id_, specs in found.items() if specs}


def _offer(ground: Ground, wiring: Wiring) -> Offer:
    classes = {name: wiring.driver_class(name) for name in ground.tables.drivers}
    disabled = (id_ for id_ in ground.tables.disabled if id_.startswith("driver/"))
    return Offer(
        drivers={name: cls.provides if cls else object for name, cls in classes.items()},
        disabled=frozenset(id_.removeprefix("driver/") for id_ in disabled),
    )


def _read(ground: Ground, wired: Wired, offer: Offer) -> Iterator[InterceptorSpec]:
    paths = wired.entry.table.interceptors if wired.entry.table else ()
    at = (*wired.entry.at, "interceptors")
    if not paths or wired.cls is None:
        return
    method = _method_for(wired.cls)
    if method is None:
        what = "sends no messages of its own" if issubclass(wired.cls, Driver) else "delivers no messages"
        ground.report(at, f'have no effect: plugin "{plugin_of(wired.entry)}" {what}')
        return
    for index, path in enumerate(paths):
        report = _at(ground.report, (*at, str(index)))
        if path in paths[:index]:
            report((), f'"{path}" stands in the list already')
            continue
        try:
            use = import_object(path, directory=ground.manifest.directory)
        except NotImportableError as error:
            report((), str(error))
            continue
        if spec := _inspect(path, use, method, offer, report):
            yield spec


def _method_for(cls: type[object]) -> str | None:
    """Return what a component calls its interceptors by; None if it has no use for any."""
    if issubclass(cls, Dispatcher):
        return HANDLING if cls.delivers else None
    return SENDING if issubclass(cls, Driver) and cls.intercepts else None


def _at(report: Report, at: tuple[str, ...]) -> Report:
    """Return a report in which everything is at one place, wherever in a worker's table it would be."""
    return lambda _path, text: report(at, text)


def _inspect(path: str, use: object, method: str, offer: Offer, report: Report) -> InterceptorSpec | None:
    if not isinstance(use, type):
        what = "a function" if inspect.isroutine(use) else f"an instance of {type(use).__qualname__}"
        report((), f'"{path}" must be a class with an async context manager `{method}`: it is {what}')
        return None
    label = use.__qualname__
    for fault in _faults(use, method, report):
        report((), fault)
    arguments = arguments_of(use, label, report)
    if any(one.name == "config" and one.is_required for one in arguments):
        report((), f'parameter "config" of {label} has no default, and an interceptor is given no config')
        arguments = [one for one in arguments if one.name != "config"]
    injection = inject(arguments, offer, label, report)
    return InterceptorSpec(
        name=path,
        use=use,
        drivers=injection.drivers,
        asked=injection.asked,
        is_context=hasattr(use, "__aenter__") and hasattr(use, "__aexit__"),
    )


def _faults(cls: type[object], method: str, report: Report) -> Iterator[str]:
    """Yield what keeps the method of a class from standing around anything."""
    function, label = getattr(cls, method, None), f"{cls.__qualname__}.{method}"
    if function is None:
        yield f"{cls.__qualname__} has no `{method}`, which {_WHAT[method]}{_instead(cls, method)}"
    elif not callable(function):
        yield f"{label} is no method"
    elif fault := _fault_of_kind(function):
        yield f"{label} {fault}"
    elif fault := _fault_of_parameters(cls, method, label, report):
        yield fault


def _instead(cls: type[object], method: str) -> str:
    """Say what there is in place of a method that is missing."""
    other = SENDING if method == HANDLING else HANDLING
    known = [name for name in vars(cls) if not name.startswith("_")]
    if other in known:
        return f"; its `{other}` {_WHAT[other]}"
    return did_you_mean(method, known) or (f"; it has: {listed(known)}" if known else "")


def _fault_of_kind(function: Callable[..., object]) -> str | None:
    """Return why what a method returns is no async context manager, if that can be seen without calling it."""
    if function_of(function) is not None:
        return None
    plain = inspect.unwrap(function)
    if inspect.iscoroutinefunction(plain):
        return f"is a coroutine, which nothing can happen in the midst of; {_CURE}"
    returned = getattr(plain, "__annotations__", {}).get("return", Parameter.empty)
    if returned in {None, "None"}:
        return f"returns nothing, and must return an async context manager; {_CURE}"
    return None


def _fault_of_parameters(cls: type[object], method: str, label: str, report: Report) -> str | None:
    given = _GIVEN[method].__name__
    is_bound = not isinstance(inspect.getattr_static(cls, method), staticmethod | classmethod)
    try:
        signature = inspect.signature(getattr(cls, method))
    except (ValueError, TypeError, NameError):
        return None
    try:
        signature.bind(*([None] * (1 + is_bound)))
    except TypeError as error:
        return f"{label} is called with one argument, the {given}: {error}"
    return _fault_of_annotation(cls, method, label, report, is_bound=is_bound)


def _fault_of_annotation(cls: type[object], method: str, label: str, report: Report, *, is_bound: bool) -> str | None:
    arguments = arguments_of(getattr(cls, method), label, report)[is_bound:]
    shown: Argument | None = next(iter(arguments), None)
    annotation = Parameter.empty if shown is None else resolve(shown, label, report)
    if shown is None or annotation in {Parameter.empty, object} or not isinstance(annotation, type):
        return None
    if issubclass(_GIVEN[method], annotation):
        return None
    given = _GIVEN[method].__name__
    return f'"{shown.name}" of {label} is given the {given}, and cannot be {annotation.__qualname__}'
