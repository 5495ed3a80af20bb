"""`kernel run`: a plan as this process, with a log, a tree on the screen and a line for each failure."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import cast, final

import attrs

from .._core.crew import ALONE, Crew
from .._core.events import (
    ComponentFailed,
    Event,
    EventHub,
    KernelReady,
    KernelStopped,
    Listening,
    StateChanged,
    StopRequested,
)
from .._core.masks import Masks
from .._core.spec import Plan
from .._delivery.failure import describe
from .._log.capture import capture
from .._log.events import log_events
from .._log.levels import Levels, own_packages
from .._log.log import Log, LogSettings
from .._log.render import traceback_of
from .._log.sinks import RotatingFile, Stream
from .._supervise.kernel import Kernel, Result
from .._supervise.leash import Leash
from .._supervise.process import run
from .._supervise.reload import Again
from .console import OutputError, complain, look_of, say
from .screen import Tree


@final
@attrs.frozen(kw_only=True)
class ServiceOptions:
    """How a service runs that the manifest does not say, or says otherwise."""

    log_level: str | None = None
    """None leaves it to the manifest."""
    log_levels: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """In addition to those of the manifest."""
    as_json: bool | None = None
    """None leaves it to the manifest."""


def run_service(
    plan: Plan,
    options: ServiceOptions,
    *,
    hub: EventHub | None = None,
    shows: bool = True,
    leash: Leash | None = None,
    again: Callable[[], Plan] | None = None,
    taken: Callable[[Plan], object] = lambda _plan: None,
    crew: Crew = ALONE,
) -> Result:
    """Run a service until it ends; returns how it did. The process has to end then: see `ends_process` of `run`.

    The log goes to standard error, or to a file. Standard output gets the tree: on a terminal while the service comes
    up, else once it is up; not if the log is JSON, which says all of it.

    Args:
        plan: What to run.
        options: How.
        hub: Where events go; a new one if None.
        shows: Whether standard output gets the tree.
        leash: Of what is run once; see `run`.
        again: Reads the manifest again, for a reload; None if it cannot be.
        taken: Called with each plan that a reload puts in force.
        crew: The processes of the service, of which this is one; its number stands in every record of the log.
    """
    hub, log = EventHub() if hub is None else hub, Log(_log_settings(plan, options, crew))
    log_events(hub, log)
    now = _Now(plan, options, log, taken)
    origin_of = _keep_origins(now, hub)
    is_bare = log.settings.as_json or not shows
    with capture(log), nullcontext() if is_bare else _showing(Tree(plan), hub):
        logger = log.logger()
        for warning in plan.warnings:
            logger.warning(str(warning))
        with _listening(log, plan, crew) if plan.control else nullcontext() as beside:
            result = run(
                plan,
                log=logger,
                hub=hub,
                ends_process=True,
                last_words=log.last_words,
                beside=beside,
                leash=leash,
                again=None if again is None else Again(read=again, taken=now.become),
                crew=crew,
            )
        for error in result.errors:
            _tell_error(error, origin_of(error), log)
    return result


@final
@attrs.define(eq=False, repr=False)
class _Now:
    """What is in force, after each reload, and the log with it."""

    plan: Plan
    options: ServiceOptions
    log: Log
    taken: Callable[[Plan], object]
    """Is told as well."""

    def become(self, plan: Plan) -> None:
        """Take note of a plan that is in force. Levels that somebody has set by hand stay, unless it has others."""
        settings = self.log.settings
        settings.masks.learn(plan.secrets)
        if (plan.log.level, plan.log.levels) != (self.plan.log.level, self.plan.log.levels):
            levels = _levels(plan, self.options)
            settings.levels.become(levels.level, levels.named, own=levels.own)
        self.plan = plan
        self.taken(plan)


@contextmanager
def _listening(log: Log, plan: Plan, crew: Crew) -> Generator[Callable[[Kernel], Awaitable[None]] | None]:
    """Yield what answers `kernel tree` and its like. Listens, and imports, before the event loop runs."""
    from .._control.orders import Desk  # noqa: PLC0415  a service without it does not pay for it
    from .._control.places import Place  # noqa: PLC0415  as above
    from .._control.server import answer_at, open_socket  # noqa: PLC0415  as above

    place, logger = Place.of(plan.name if crew.size == 1 else f"{plan.name}.{crew.number}", os.environ), log.logger()
    listener = open_socket(place, logger)
    if listener is None:
        yield None
        return
    try:
        yield lambda kernel: answer_at(listener, place, partial(Desk, kernel, log), logger)
    finally:  # what answers may never have begun
        listener.close()
        place.path.unlink(missing_ok=True)


def _log_settings(plan: Plan, options: ServiceOptions, crew: Crew) -> LogSettings:
    as_json = plan.log.format == "json" if options.as_json is None else options.as_json
    file = plan.log.file
    return LogSettings(
        service=plan.name,
        process=None if crew.size == 1 else crew.number,
        levels=_levels(plan, options),
        as_json=as_json,
        sink=Stream() if file is None else RotatingFile(_own(plan.directory / file.path, crew), file),
        colour=look_of(sys.stderr).colour and not as_json and file is None,
        masks=Masks.of(plan.secrets),
    )


def _own(path: Path, crew: Crew) -> Path:
    """Return the file of one process: several would put it aside under each other."""
    return path if crew.size == 1 else path.with_name(f"{path.stem}.{crew.number}{path.suffix}")


def _levels(plan: Plan, options: ServiceOptions) -> Levels:
    return Levels(
        level=options.log_level or plan.log.level,
        named={**plan.log.levels, **options.log_levels},
        own=own_packages(plan),
    )


def _keep_origins(now: _Now, hub: EventHub) -> Callable[[BaseException], str]:
    """Return what says where an error comes from: its component, and the line of the manifest with its table.

    The last error of each component is kept: what ends a service is one of those.
    """
    last: dict[str, BaseException] = {}

    def keep(event: Event) -> None:
        if isinstance(event, ComponentFailed):
            last[event.component] = event.error

    def origin_of(error: BaseException) -> str:
        component = next((name for name, latest in last.items() if latest is error), "")
        spec = now.plan.components.get(component)
        return f"{component}, {spec.where}" if spec else component

    hub.subscribe(keep, ComponentFailed)
    return origin_of


def _showing(tree: Tree, hub: EventHub) -> AbstractContextManager[object]:
    """Return what shows the tree while the service comes up."""
    hub.subscribe(tree.hear, StateChanged, Listening, KernelReady)
    look = look_of(sys.stdout)
    if not look.live:
        hub.subscribe(lambda _event: _say_if_possible(tree.text(colour=look.colour)), KernelReady)
        return nullcontext()
    from .live import LiveTree  # noqa: PLC0415  rich is for terminals only

    live = LiveTree(tree, colour=look.colour)
    hub.subscribe(live.refresh, StateChanged, Listening)
    hub.subscribe(live.close, KernelReady, StopRequested, KernelStopped)
    return live


def _say_if_possible(text: str) -> None:
    with suppress(OutputError):  # a service does not end because nobody can read its output
        say(text)


def _tell_error(error: BaseException, origin: str, log: Log) -> None:
    """Say what ended the service; what many tasks failed of is said once."""
    settings = log.settings
    told: dict[str, list[BaseException]] = {}
    for leaf in _leaves(error):
        notes = "; ".join(filter(None, (origin, *map(str, getattr(leaf, "__notes__", ())))))
        told.setdefault(f"{describe(leaf, settings.masks.applied)}{f' ({notes})' * bool(notes)}", []).append(leaf)
    for line, same in told.items():
        text = f"failed: {line}{f' ({len(same)} times)' * (len(same) > 1)}"
        if settings.as_json:  # of which every line is a record
            log.logger().error(text)
            continue
        if settings.levels.level == "debug":
            complain(settings.masks.applied(traceback_of(same[0]).rstrip()))
        complain(settings.masks.applied(f"kernel: {text}"))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error
