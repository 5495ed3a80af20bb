"""`kernel run`: a plan as this process, with a log, a tree on the screen and a line for each failure."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import cast, final

import attrs

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
from .._core.spec import Plan
from .._delivery.failure import describe
from .._supervise.process import run
from .console import OutputError, complain, look_of, say
from .log import LogSettings, capture_logging, log_events, open_log
from .screen import Tree


@final
@attrs.frozen(kw_only=True)
class ServiceOptions:
    """How a service runs that the manifest does not say."""

    log_level: str = "info"
    as_json: bool = False


def run_service(plan: Plan, options: ServiceOptions) -> int:
    """Run a service until it ends; returns the exit status. The process has to end then: see `ends_process` of `run`.

    The log goes to standard error. Standard output gets the tree: on a terminal while the service comes up, else
    once it is up; not if the log is JSON, which says all of it.
    """
    hub = EventHub()
    colour = look_of(sys.stderr).colour and not options.as_json
    log = open_log(LogSettings(level=options.log_level, as_json=options.as_json, colour=colour))
    log_events(hub, log)
    for warning in plan.warnings:
        log.warning(str(warning))
    origins = _keep_origins(plan, hub)
    with capture_logging(log), nullcontext() if options.as_json else _showing(Tree(plan), hub):
        result = run(plan, log=log, hub=hub, ends_process=True)
    for error in result.errors:
        _show_error(error, origins.get(id(error), ""), with_traceback=options.log_level == "debug")
    return int(result.status)


def _keep_origins(plan: Plan, hub: EventHub) -> Mapping[int, str]:
    """Return what will say where each error comes from: its component, and the line of the manifest with its table."""
    origins: dict[int, str] = {}

    def keep(event: Event) -> None:
        if isinstance(event, ComponentFailed):
            spec = plan.components.get(event.component)
            origins[id(event.error)] = f"{event.component}, {spec.where}" if spec else event.component

    hub.subscribe(keep, ComponentFailed)
    return origins


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


def _show_error(error: BaseException, origin: str, *, with_traceback: bool) -> None:
    """Say what ended the service; what many tasks failed of is said once."""
    told: dict[str, list[BaseException]] = {}
    for leaf in _leaves(error):
        notes = "; ".join(filter(None, (origin, *map(str, getattr(leaf, "__notes__", ())))))
        told.setdefault(f"{describe(leaf)}{f' ({notes})' * bool(notes)}", []).append(leaf)
    for line, same in told.items():
        if with_traceback:
            complain("".join(traceback.format_exception(same[0])).rstrip())
        complain(f"kernel: failed: {line}{f' ({len(same)} times)' * (len(same) > 1)}")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error
