"""Workers with their code imported, and what each asks for."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, cast, final

import attrs

from .._convert.imports import NotImportableError, import_function, import_object, imports_asyncio
from .._convert.structure import structure
from .._core.executor import Executor
from .._core.spec import Filter
from .._core.words import did_you_mean
from .._manifest.tables import Entry, Report, RetryTable, WorkerTable, under
from ..errors import PluginError, PluginNotFoundError
from .batches import fit, has_batches
from .elsewhere import check_elsewhere, executor_of
from .ground import Ground, Wiring, refer
from .injection import Offer
from .signature import Role, Shape, inspect_worker

if TYPE_CHECKING:
    from ..abc import Dispatcher

_SHAPING: Final = frozenset({"dispatcher", "drivers", "config", "runs_in"})
"""Keys that decide what a worker must look like."""
_FOR_HANDLERS: Final = (
    "options",
    "timeout",
    "retry",
    "concurrency",
    "failure_worker",
    "kill_switch",
    "filter",
    "runs_in",
)
_FOR_DELIVERIES: Final = ("timeout", "retry", "concurrency", "kill_switch", "filter", "runs_in")


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Hired:
    """A worker with what is known of it; what is wrong has been reported."""

    entry: Entry[WorkerTable]
    table: WorkerTable
    use: object
    """What `use` names; None if it could not be imported."""
    shape: Shape | None
    dispatcher: str | None
    """Name of a dispatcher that exists."""
    failure_worker: str | None
    """Name of a worker that exists."""
    runs_in: str | None
    """Name of a driver that exists."""
    options: object
    retry_on: tuple[type[Exception], ...]
    filter: Filter | None


def hire(ground: Ground, wiring: Wiring) -> dict[str, Hired]:
    """Import all workers and check each by itself."""
    entries = ground.tables.workers
    named = [entry.given.get("failure_worker") for entry in entries.values()]
    others = None if any("failure_worker" in entry.wrong for entry in entries.values()) else False
    return {
        name: _hire_one(ground, wiring, entry, entry.table, is_last_resort=name in named or others)
        for name, entry in entries.items()
        if entry.table is not None
    }


def _hire_one(
    ground: Ground, wiring: Wiring, entry: Entry[WorkerTable], table: WorkerTable, *, is_last_resort: bool | None
) -> Hired:
    tables, at = ground.tables, entry.at
    report = under(ground.report, *at)
    dispatcher = refer(tables, "dispatcher", table.dispatcher, (*at, "dispatcher"), ground.report)
    failure_worker = refer(tables, "worker", table.failure_worker, (*at, "failure_worker"), ground.report)
    cls = wiring.dispatcher_class(dispatcher)
    role = _role(entry, table, cls, is_last_resort=is_last_resort)
    offer = _offer(ground, wiring, entry, table)
    use = _import_use(ground, table.use, entry, report)
    waits_there = _calls_async(wiring, table.runs_in)
    is_clear = role is not None and use is not None and not entry.wrong & _SHAPING
    runs_in = refer(tables, "driver", table.runs_in, (*at, "runs_in"), ground.report) if role is Role.HANDLER else None
    is_plain = table.runs_in is not None and role is Role.HANDLER and not waits_there
    shape = None
    if is_clear and role:
        warn = under(ground.warn, *at)
        shape = inspect_worker(use, role=role, offer=offer, report=report, warn=warn, is_plain=is_plain)
    options = _read_options(ground, entry, table, cls, report) if cls and "options" not in entry.wrong else None
    batched = has_batches(tables.dispatchers.get(dispatcher or ""))
    is_for_asyncio = table.runs_in is not None or getattr(options, "asyncio", False)
    if imports_asyncio(use) and not is_for_asyncio and _is_first_of_module(ground, table.use, entry):
        ground.warn((*at, "use"), "its module imports asyncio, and services run on trio: what waits by asyncio fails")
    shape = fit(shape, batched=batched, report=report) if shape else None
    _check_executor(wiring, runs_in, shape, report)
    if cls is not None and use is not None and not (options is None and cls.WorkerOptions):
        for text in cls.check_worker(use, options):
            report(("use",), text)
    if role is Role.LOOP:
        _check_useless(entry, report)
    else:
        _check_unasked(entry, table, role, report)
    return Hired(
        entry=entry,
        table=table,
        use=use,
        shape=shape,
        dispatcher=dispatcher,
        failure_worker=failure_worker,
        runs_in=runs_in,
        options=options,
        retry_on=tuple(_exceptions(ground, table.retry, under(report, "retry", "on"))),
        filter=_import_filter(ground, table, report),
    )


def _calls_async(wiring: Wiring, runs_in: str | None) -> bool:
    driver = wiring.driver_class(runs_in)
    return driver is not None and issubclass(driver.provides, Executor) and driver.provides.calls_async


def _check_executor(wiring: Wiring, runs_in: str | None, shape: Shape | None, report: Report) -> None:
    driver = wiring.driver_class(runs_in) if runs_in else None
    executor = executor_of(runs_in, driver.provides, report) if runs_in and driver else None
    if executor is not None and shape is not None:
        check_elsewhere(shape, executor, report)


def _role(
    entry: Entry[WorkerTable], table: WorkerTable, cls: type[Dispatcher] | None, *, is_last_resort: bool | None
) -> Role | None:
    """Return who calls a worker; None if that is not known, since its dispatcher is not, or who has it as a last resort."""
    if cls is not None:
        return Role.HANDLER if cls.delivers else Role.HOSTED
    if is_last_resort:
        return Role.HANDLER
    has_none = table.dispatcher is None and "dispatcher" not in entry.wrong
    return Role.LOOP if has_none and is_last_resort is False else None


def _offer(ground: Ground, wiring: Wiring, entry: Entry[WorkerTable], table: WorkerTable) -> Offer:
    tables = ground.tables
    classes = {name: wiring.driver_class(name) for name in tables.drivers}
    mapping = {
        parameter: driver
        for parameter, driver in table.drivers.items()
        if refer(tables, "driver", driver, (*entry.at, "drivers", parameter), ground.report)
    }
    return Offer(
        drivers={name: cls.provides if cls else object for name, cls in classes.items()},
        contracts=wiring.contracts,
        disabled=frozenset(id_.removeprefix("driver/") for id_ in tables.disabled if id_.startswith("driver/")),
        mapping=mapping,
        unusable=frozenset(table.drivers) - frozenset(mapping),
        config=_given(entry, "config") if table.config is not None else None,
        directory=ground.manifest.directory,
    )


def _import_use(ground: Ground, use: str, entry: Entry[WorkerTable], report: Report) -> object | None:
    try:
        if ":" in use:
            return import_object(use, directory=ground.manifest.directory)
        return ground.registry.load("worker", use)
    except PluginNotFoundError:
        report(("use",), _not_found(ground, use))
    except PluginError as error:
        report(("use",), str(error))
    except NotImportableError as error:
        if not error.of_module or _is_first_of_module(ground, use, entry):
            report(("use",), str(error))
    return None


def _is_first_of_module(ground: Ground, use: str, entry: Entry[WorkerTable]) -> bool:
    """Return whether no worker before this one is from the same module, whose fault has been told then."""
    module = use.partition(":")[0]
    for other in ground.tables.workers.values():
        if other is entry:
            return True
        if other.table is not None and other.table.use.partition(":")[0] == module:
            return False
    return True


def _not_found(ground: Ground, use: str) -> str:
    module, dot, name = use.rpartition(".")
    installed = [plugin.name for plugin in ground.registry.plugins if plugin.kind == "worker"]
    near = f'; did you mean "{module}:{name}"?' if dot else did_you_mean(use, installed)
    return f'must be "module:Name", or the name of a worker that is installed{near}'


def _given(entry: Entry[WorkerTable], key: str) -> Mapping[str, object]:
    """Return a table as the manifest has it: what strings from outside are meant to be is for its own type to say."""
    return cast("Mapping[str, object]", entry.given.get(key) or {})


def _read_options(
    ground: Ground, entry: Entry[WorkerTable], table: WorkerTable, cls: type[Dispatcher], report: Report
) -> object | None:
    if cls.WorkerOptions is not None:
        given, directory = _given(entry, "options"), ground.manifest.directory
        return structure(given, cls.WorkerOptions, report=under(report, "options"), directory=directory)
    if table.options is not None:
        report(("options",), f"dispatcher/{table.dispatcher} takes no options for its workers")
    return None


def _check_useless(entry: Entry[WorkerTable], report: Report) -> None:
    for key in _FOR_HANDLERS:
        if key in entry.given:
            report((key,), "has no effect: the worker has no dispatcher, so it handles nothing")


def _check_unasked(entry: Entry[WorkerTable], table: WorkerTable, role: Role | None, report: Report) -> None:
    for key in _FOR_DELIVERIES if role is Role.HOSTED else ():
        if key in entry.given:
            report((key,), f"has no effect: dispatcher/{table.dispatcher} delivers no messages")
    if role is Role.HANDLER and table.dispatcher is None and table.filter is not None:
        report(("filter",), "has no effect: the worker has no dispatcher, and failures pass no filter")


def _import_filter(ground: Ground, table: WorkerTable, report: Report) -> Filter | None:
    if table.filter is None:
        return None
    try:
        return import_function(table.filter, directory=ground.manifest.directory, taking="the payload")
    except NotImportableError as error:
        report(("filter",), str(error))
        return None


def _exceptions(ground: Ground, retry: RetryTable, report: Report) -> Iterator[type[Exception]]:
    for index, name in enumerate(retry.on):
        try:
            found = (
                import_object(name, directory=ground.manifest.directory)
                if ":" in name
                else getattr(builtins, name, None)
            )
        except NotImportableError as error:
            report((str(index),), str(error))
            continue
        if isinstance(found, type) and issubclass(found, Exception):
            yield found
        else:
            report((str(index),), _no_exception(name))


def _no_exception(name: str) -> str:
    if ":" in name:
        return f'"{name}" is no exception'
    known = [word for word, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)]
    hint = did_you_mean(name, known) or '; name one of Python, such as "OSError", or "module:Name"'
    return f'"{name}" is no exception{hint}'


def fed_by(workers: Iterable[Hired]) -> dict[str, list[Hired]]:
    """Return the workers of each dispatcher that has some, by its name."""
    fed: dict[str, list[Hired]] = {}
    for worker in workers:
        if worker.dispatcher is not None:
            fed.setdefault(worker.dispatcher, []).append(worker)
    return fed


def shape_of(worker: Hired) -> Shape:
    """Return the shape of a worker with which nothing is wrong."""
    return cast("Shape", worker.shape)
