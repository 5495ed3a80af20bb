"""Events -> log records."""

from __future__ import annotations

import functools
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never, cast, final, get_args

import attrs

from .._core.envelope import Ack, DeadLetter, Retry, Return
from .._core.events import (
    ComponentFailed,
    DeliveryDone,
    DeliveryRevoked,
    DeliverySettled,
    DrainTimedOut,
    Event,
    EventHub,
    GracePeriodOver,
    HookFailed,
    KernelReady,
    KernelReloaded,
    KernelStopped,
    KillSwitchChanged,
    Listening,
    LoopBlocked,
    ReloadFailed,
    SettleFailed,
    StateChanged,
    StopRequested,
    StopTimedOut,
)
from .._core.lifecycle import State
from .._core.stacks import where_raised
from .._delivery.failure import Mask, describe
from ..errors import ConflictError, InvalidError, RestartLimitError, StartupError, UnavailableError
from .log import Log
from .render import traceback_of

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


_AS_BEFORE: Final = 600.0
"""Seconds in which the traceback of a failure that comes again is not written again."""
_PLACES: Final = re.compile(r'File "(.+)", line (\d+)')


def log_events(hub: EventHub, to: Log) -> None:
    """Write events to a log. Deliveries that go well are written at debug level, and not even made above it."""
    log, failures, mask = to.logger(), _Failures(), to.settings.masks.applied
    hub.subscribe(lambda event: _write(log, mask, cast("_Written", event), failures), *get_args(_Written))
    hub.subscribe(functools.partial(_write_revoked, log, mask), DeliveryRevoked)
    hub.subscribe(functools.partial(_write_hook, log, mask), HookFailed)
    hub.subscribe(functools.partial(_write_reload, log, mask), KernelReloaded, ReloadFailed)
    subscribed: list[Callable[[], None]] = []

    def subscribe() -> None:
        usual = () if log.is_enabled_for(logging.DEBUG) else (DeliveryDone,)
        for unsubscribe in subscribed:
            unsubscribe()
        subscribed[:] = [hub.subscribe(functools.partial(_write_settled, log, mask), DeliverySettled, but=usual)]

    to.settings.levels.hear(subscribe)


_Written: TypeAlias = (
    StateChanged
    | ComponentFailed
    | Listening
    | GracePeriodOver
    | KernelReady
    | StopRequested
    | KernelStopped
    | KillSwitchChanged
    | DrainTimedOut
    | StopTimedOut
    | LoopBlocked
    | SettleFailed
)


@final
@attrs.define(eq=False, repr=False)
class _Failures:
    """The tracebacks that have been written: a component that is started again and again fails of one reason."""

    _written: dict[str, tuple[object, float]] = attrs.field(factory=dict[str, tuple[object, float]], init=False)
    """Component -> type and places of its last failure, and when its traceback was written."""

    def traceback(self, component: str, error: BaseException) -> str:
        """Return the traceback of a failure; `as before` if it comes from where the last one did."""
        if isinstance(error, RestartLimitError) and error.__cause__ is not None:
            error = error.__cause__  # the last of the failures
        text = traceback_of(error)
        known = type(error), tuple(_PLACES.findall(text))
        last, written = self._written.get(component, (None, 0.0))
        if last == known and time.monotonic() - written < _AS_BEFORE:
            return "as before"
        self._written[component] = known, time.monotonic()
        return text


def _write(log: FilteringBoundLogger, mask: Mask, event: _Written, failures: _Failures) -> None:
    bound = log.bind(component=event.component)
    match event:
        case StateChanged():
            level = _STATE_LEVELS.get(event.new, "debug")
            getattr(bound, level)(event.new.value, **({"reason": event.reason} if event.reason else {}))
        case ComponentFailed():
            _write_failure(bound, mask, event, failures)
        case Listening():
            bound.info("listening", address=event.address)
        case KernelReady():
            bound.info("ready", seconds=round(event.seconds, 3))
        case StopRequested():
            bound.info("stopping", reason=event.reason)
        case KernelStopped():
            bound.info("stopped", status=int(event.status), seconds=round(event.seconds, 3))
        case KillSwitchChanged():  # a worker that is paused says so too, as a warning
            bound.info(f"kill switch {event.state.value}", reason=event.reason)
        case DrainTimedOut() | GracePeriodOver():
            bound.warning(_OVER[type(event)], culprits=event.culprits)
        case StopTimedOut():
            bound.warning("stop_timeout is over, left behind", where=event.where)
        case LoopBlocked():
            bound.warning("the event loop goes on", blocked_s=round(event.seconds, 1), where=event.where)
        case SettleFailed():
            raised = {} if event.raised is None else {"raised": describe(event.raised, mask)}
            bound.warning("not settled", delivery=event.delivery_id, error=describe(event.error, mask), **raised)
        case _:
            assert_never(event)


def _has_detail(log: FilteringBoundLogger, error: BaseException) -> bool:
    """Return whether the traceback is to be written; not above debug level where the text says it all.

    That is what is wrong with the configuration, or with the queues and exchanges that it means, and what cannot be
    reached at the moment: a broker that is away for a minute would fill pages.
    """
    if isinstance(error, RestartLimitError) and isinstance(error.__cause__, ConflictError):
        error = error.__cause__
    return not isinstance(error, StartupError | UnavailableError | ConflictError) or log.is_enabled_for(logging.DEBUG)


def _write_failure(bound: FilteringBoundLogger, mask: Mask, event: ComponentFailed, failures: _Failures) -> None:
    wait = {} if event.restart_in is None else {"in_s": round(event.restart_in, 2)}
    text = "failed, restarts" if wait else "failed"
    shown = _has_detail(bound, event.error)
    detail = {"traceback": failures.traceback(event.component, event.error)} if shown else {}
    bound.error(text, **wait, error=describe(event.error, mask), **detail)


_OVER: Final[Mapping[type[Event], str]] = {
    DrainTimedOut: "the drain is over, cancelled",
    GracePeriodOver: "grace_period is over, still running",
}
_STATE_LEVELS: Final = {State.DEGRADED: "warning", State.READY: "info"}


def _write_settled(log: FilteringBoundLogger, mask: Mask, event: Event) -> None:
    assert isinstance(event, DeliverySettled)  # which is what it subscribes to
    worker = {"worker": event.worker} if event.worker else {}
    bound = log.bind(component=event.component, **worker, delivery=event.delivery_id, attempt=event.attempt)
    match event.outcome:
        case Ack():
            if event.failure_worker:
                raised = {} if event.error is None else _told_of(event.error, mask)
                bound.error("failed, taken by its failure worker", taken_by=event.failure_worker, **raised)
            elif event.error is not None:
                bound.warning("answered with an error", **_told_of(event.error, mask))
            else:
                bound.debug("done", subject=event.subject, seconds=round(event.seconds, 3))
        case Retry(after=after, reason=reason):
            place = "" if event.error is None else where_raised(event.error)
            told = {"where": place} if place else {}
            if event.error is None:
                bound.warning(
                    "asks for another attempt", in_s=round(after, 2), **({"reason": reason} if reason else {})
                )
            else:
                bound.warning("failed, tries again", in_s=round(after, 2), error=reason, **told)
        case Return():
            bound.info("returned to its source")
        case DeadLetter(reason=reason):
            detail = {} if event.error is None else {"traceback": traceback_of(event.error)}
            bound.error("dead-lettered", subject=event.subject, reason=reason, **detail)
        case _:
            assert_never(event.outcome)


def _told_of(error: BaseException, mask: Mask) -> dict[str, str]:
    place = where_raised(error)
    return {"error": describe(error, mask), **({"where": place} if place else {})}


def _write_hook(log: FilteringBoundLogger, mask: Mask, event: Event) -> None:
    if isinstance(event, HookFailed):
        told = {"hook": event.hook, "times": event.times, "error": describe(event.error, mask)}
        log.warning("a hook failed", component=event.component, **told)


def _write_revoked(log: FilteringBoundLogger, mask: Mask, event: Event) -> None:
    if isinstance(event, DeliveryRevoked):
        raised = {} if event.error is None else _told_of(event.error, mask)
        log.info("revoked", component=event.component, delivery=event.delivery_id, subject=event.subject, **raised)


def _write_reload(log: FilteringBoundLogger, mask: Mask, event: Event) -> None:
    bound = log.bind(component=event.component)
    if isinstance(event, ReloadFailed):
        is_list = isinstance(event.error, InvalidError)
        text = "; ".join(str(event.error).splitlines()) if is_list else describe(event.error, mask)
        bound.error("not reloaded, goes on as before", error=text)
    elif isinstance(event, KernelReloaded):
        names = ("restarted", "added", "removed", "failed", "refused")
        told = {name: getattr(event, name) for name in names if getattr(event, name)}
        for name in ("failed", "refused"):
            if name in told:
                told[name] = [f"{id_}: {mask(reason)}" for id_, reason in getattr(event, name)]
        if event.undone:
            bound.error("not reloaded, all is taken back", **told)
        else:
            is_well = not (event.failed or event.refused)
            (bound.info if is_well else bound.warning)("reloaded", seconds=round(event.seconds, 3), **told)
        for text in event.left:
            bound.warning("the manifest asks for it no more", left=text)
