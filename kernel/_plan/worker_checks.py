"""Whether each worker fits its dispatcher, its driver, its failure worker and the workers beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .._core.broker import Capability
from .._core.components import Candidate
from .._core.policies import Restart
from .._core.router import Router
from .._core.spec import HandlerSpec
from .._core.words import listed
from .._manifest.reading import section
from .._manifest.tables import DispatcherTable, DriverTable, Entry
from .batches import has_batches
from .ground import Ground, Wired, Wiring, is_broker, lacks
from .signature import ANY_SUBJECT
from .staff import Hired, fed_by

if TYPE_CHECKING:
    from ..abc import Dispatcher


def check_workers(ground: Ground, wiring: Wiring, workers: Mapping[str, Hired]) -> None:
    """Report what is wrong between workers and what they are tied to."""
    for worker in workers.values():
        for path, text in (
            *_retry_faults(worker, wiring),
            *_last_resort_faults(ground, worker, workers),
            *_oneshot_faults(worker),
            *_main_faults(worker, workers),
        ):
            ground.report((*worker.entry.at, *path), text)
    _check_dispatchers(ground, wiring, workers)


def _retry_faults(worker: Hired, wiring: Wiring) -> Iterator[tuple[tuple[str, ...], str]]:
    dispatcher = wiring.dispatchers.get(worker.dispatcher) if worker.dispatcher else None
    driver = wiring.driver_class(dispatcher.driver) if dispatcher else None
    retry = worker.table.retry
    if (
        dispatcher is None
        or driver is None
        or not is_broker(driver)
        or not retry.waits
        or "retry" in worker.entry.wrong
    ):
        return
    if Capability.DELAY not in wiring.capabilities(dispatcher.driver):
        text = f'retries after {retry.backoff_initial!r} s need "delay", which {lacks(wiring, dispatcher.driver)}'
        yield ("retry", "backoff_initial"), f"{text}; set backoff_initial = 0.0 or attempts = 1"


def _oneshot_faults(worker: Hired) -> Iterator[tuple[tuple[str, ...], str]]:
    if not worker.table.oneshot or worker.entry.wrong & {"oneshot", "restart"}:
        return
    if worker.shape is not None and (worker.shape.handlers or not worker.shape.runs):
        yield ("oneshot",), "needs a worker that has `run` and no handlers: it is never ready for calls"
    if worker.table.restart.policy is Restart.ALWAYS:
        text = "starts again what is to be done once, so that those who depend on it wait for ever"
        yield ("restart", "policy"), f'"always" {text}; "on_failure" is the default here'


def _main_faults(worker: Hired, workers: Mapping[str, Hired]) -> Iterator[tuple[tuple[str, ...], str]]:
    if not worker.table.main or worker.entry.wrong & {"main", "restart"}:
        return
    if worker.shape is not None and not worker.shape.runs:
        yield ("main",), "needs a worker that has `run`: the service ends when that returns"
    if worker.table.oneshot or worker.table.instances > 1:
        yield ("main",), f"does not go with {'oneshot' if worker.table.oneshot else 'instances'}: it returns once"
    if worker.table.restart.policy is Restart.ALWAYS:
        yield ("restart", "policy"), '"always" starts again what ends the service; "never" is the default here'
    others = [one.entry.id for one in workers.values() if one.table.main and one is not worker]
    if others:
        yield ("main",), f"is said of {listed(others, last='and')} too, and a service has one exit status"


def _last_resort_faults(
    ground: Ground, worker: Hired, workers: Mapping[str, Hired]
) -> Iterator[tuple[tuple[str, ...], str]]:
    last = workers.get(worker.failure_worker) if worker.failure_worker else None
    if last is None or last.shape is None:
        return
    if has_batches(ground.tables.dispatchers.get(last.dispatcher or "")):
        text = f"worker/{worker.failure_worker} is given batches by dispatcher/{last.dispatcher}"
        yield ("failure_worker",), f"{text}, so it cannot be given failures, which come one by one"
    if any(handler.parameters is not None for handler in last.shape.handlers):
        text = f"worker/{worker.failure_worker} is marked with @answers, but a failure is a payload"
        yield ("failure_worker",), f'{text}; mark it with @handles("{ANY_SUBJECT}")'
    patterns = [pattern for handler in last.shape.handlers for pattern in handler.patterns]
    if patterns != [ANY_SUBJECT]:
        has = f"it has: {listed(patterns)}" if patterns else "it has none"
        text = f'worker/{worker.failure_worker} must have exactly one handler, for "{ANY_SUBJECT}"'
        yield ("failure_worker",), f"{text}; {has}"


def _check_dispatchers(ground: Ground, wiring: Wiring, workers: Mapping[str, Hired]) -> None:
    entries = ground.tables.workers.values()
    named = [entry.given.get("dispatcher") for entry in entries]
    are_all_named = not any("dispatcher" in entry.wrong for entry in entries)
    fed = fed_by(workers.values())
    for name, wired in wiring.dispatchers.items():
        cls = wiring.dispatcher_class(name)
        if cls is not None and cls.delivers and are_all_named and name not in named:
            ground.report(wired.entry.at, _idle(ground, name))
        if not _fans_out(wired.entry):
            _check_patterns(ground, fed.get(name, []))
        _check_together(ground, wired, cls, fed.get(name, []))
        if cls is not None and wired.config is not None and (subject := cls.only_subject(wired.config, name)):
            _check_called(ground, wired, subject, fed.get(name, []), workers)


def _check_called(
    ground: Ground, wired: Wired, subject: str, fed: Sequence[Hired], workers: Mapping[str, Hired]
) -> None:
    """Report the handlers that nothing is for, where all that a dispatcher brings has one subject."""
    last_resorts = {worker.failure_worker for worker in workers.values()}
    hired = [worker for worker in fed if worker.shape is not None and worker.entry.name not in last_resorts]
    for together in ([worker] for worker in hired) if _fans_out(wired.entry) else [hired]:
        handlers = [(worker, handler) for worker in together if worker.shape for handler in worker.shape.handlers]
        routes = {pattern: handler for _, handler in reversed(handlers) for pattern in handler.patterns}
        called = Router[HandlerSpec].of(routes.items()).match(subject)
        for worker, handler in handlers:
            if handler is not called:
                _report_uncalled(ground, wired, subject, worker, handler)


def _report_uncalled(ground: Ground, wired: Wired, subject: str, worker: Hired, handler: HandlerSpec) -> None:
    what = f"{handler.method}, for {listed(handler.patterns)}," if handler.method else f"for {listed(handler.patterns)}"
    text = f'{what} would never be called: all that {wired.entry.id} brings has the subject "{subject}"'
    ground.report((*worker.entry.at, "use"), f"{text}, and one handler is called with it")


def _fans_out(entry: Entry[DriverTable]) -> bool:
    """Return whether a dispatcher gives a subject to several workers, or may be meant to."""
    return "fan_out" in entry.wrong or (isinstance(entry.table, DispatcherTable) and entry.table.fan_out)


def _check_together(ground: Ground, wired: Wired, cls: type[Dispatcher] | None, workers: Sequence[Hired]) -> None:
    are_read = not any("options" in worker.entry.wrong for worker in workers)
    if cls is not None and wired.config is not None and are_read:
        candidates = {each.entry.name: Candidate(worker=each.use, options=each.options) for each in workers}
        for text in cls.check_workers(wired.config, candidates):
            ground.report(wired.entry.at, text)


def _idle(ground: Ground, name: str) -> str:
    given = section(ground.manifest, "workers")
    disabled = [f"worker/{worker}" for worker, table in given.items() if table.get("dispatcher") == name]
    if disabled:
        return f"has no worker: {listed(disabled)} is disabled (enabled = false)"
    return f'has no worker: write dispatcher = "{name}" in the table of one'


def _check_patterns(ground: Ground, workers: list[Hired]) -> None:
    owners: dict[str, str] = {}
    for worker in workers:
        handlers = worker.shape.handlers if worker.shape else ()
        for pattern in dict.fromkeys(pattern for handler in handlers for pattern in handler.patterns):
            if pattern in owners:
                text = f'"{pattern}" goes to {owners[pattern]} already; a dispatcher gives a subject to one worker, or with fan_out = true to all'
                ground.report((*worker.entry.at, "use"), text)
            owners.setdefault(pattern, worker.entry.id)
