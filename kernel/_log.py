"""Events -> log records, one line each, for people or as JSON.

structlog is imported when a log is opened, not before: it costs more than the rest of `kernel check`.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TextIO, assert_never, final

import attrs

from ._envelope import Ack, DeadLetter, Retry, Return
from ._events import (
    ComponentFailed,
    DeliverySettled,
    DrainTimedOut,
    Event,
    EventHub,
    KernelReady,
    KernelStopped,
    Listening,
    SettleFailed,
    StateChanged,
    StopRequested,
    StopTimedOut,
)
from ._failure import describe
from ._lifecycle import State

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

LEVELS: Final = ("debug", "info", "warning", "error")
MAX_FIELD: Final = 2_000
"""Characters of one field."""
_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31"}


@final
@attrs.frozen(kw_only=True)
class LogSettings:
    """How the log is written."""

    level: str = "info"
    """One of `LEVELS`."""
    as_json: bool = False
    stream: TextIO | None = None
    """None is standard error."""
    colour: bool = False


def open_log(settings: LogSettings) -> FilteringBoundLogger:
    """Return a logger that writes one line per record to the stream; it never raises if the stream is broken."""
    import structlog  # noqa: PLC0415  see the module docstring

    render = _as_json if settings.as_json else _as_text(colour=settings.colour)
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _Lines(settings.stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            lambda _logger, _name, fields: render(fields),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return logger


def log_events(hub: EventHub, log: FilteringBoundLogger) -> None:
    """Write events to the log. Deliveries that go well are written at debug level, and not even looked at above it."""
    hub.subscribe(lambda event: _write(log, event), *_WRITTEN)
    hub.subscribe(functools.partial(_write_settled, log, log.is_enabled_for(logging.DEBUG)), DeliverySettled)


_WRITTEN: Final = (
    StateChanged,
    ComponentFailed,
    Listening,
    KernelReady,
    StopRequested,
    KernelStopped,
    DrainTimedOut,
    StopTimedOut,
    SettleFailed,
)


def _write(log: FilteringBoundLogger, event: Event) -> None:
    bound = log.bind(component=event.component)
    match event:
        case StateChanged():
            level = _STATE_LEVELS.get(event.new, "debug")
            getattr(bound, level)(event.new.value, **({"reason": event.reason} if event.reason else {}))
        case ComponentFailed(restart_in=None):
            bound.error("failed", error=describe(event.error), traceback=_traceback(event.error))
        case ComponentFailed():
            bound.error(
                "failed, restarts",
                in_s=round(event.restart_in or 0.0, 2),
                error=describe(event.error),
                traceback=_traceback(event.error),
            )
        case Listening():
            bound.info("listening", address=event.address)
        case KernelReady():
            bound.info("ready", seconds=round(event.seconds, 3))
        case StopRequested():
            bound.info("stopping", reason=event.reason)
        case KernelStopped():
            bound.info("stopped", status=int(event.status), seconds=round(event.seconds, 3))
        case DrainTimedOut():
            bound.warning("drain_timeout is over, cancelled", culprits=list(event.culprits))
        case StopTimedOut():
            bound.warning("stop_timeout is over, left behind", where=event.where)
        case SettleFailed():
            bound.warning("not settled", delivery=event.delivery_id, error=describe(event.error))


_STATE_LEVELS: Final = {State.DEGRADED: "warning", State.READY: "info"}


def _write_settled(log: FilteringBoundLogger, debug: bool, event: Event) -> None:  # noqa: FBT001  bound once, above
    if not isinstance(event, DeliverySettled) or (event.error is None and isinstance(event.outcome, Ack) and not debug):
        return
    bound = log.bind(component=event.component, worker=event.worker, delivery=event.delivery_id, attempt=event.attempt)
    match event.outcome:
        case Ack():
            if event.error is not None:
                bound.warning("answered with an error", error=describe(event.error))
            else:
                bound.debug("done", subject=event.subject, seconds=round(event.seconds, 3))
        case Retry(after=after, reason=reason):
            bound.warning("failed, tries again", in_s=round(after, 2), error=reason)
        case Return():
            bound.info("returned to its source")
        case DeadLetter(reason=reason):
            detail = {} if event.error is None else {"traceback": _traceback(event.error)}
            bound.error("dead-lettered", subject=event.subject, reason=reason, **detail)
        case _:
            assert_never(event.outcome)


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001  an exception that cannot be printed must not break the log
        return "<no traceback: the exception cannot be printed>"


def _as_json(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, default=repr, ensure_ascii=True)


def _as_text(*, colour: bool) -> Callable[[Mapping[str, object]], str]:
    def render(fields: Mapping[str, object]) -> str:
        rest = dict(fields)
        level = str(rest.pop("level", "info"))
        start = f"{rest.pop('timestamp', '')} {level:7} {rest.pop('component', 'kernel')}: {rest.pop('event', '')}"
        trace = rest.pop("traceback", None)
        line = " ".join([_safe(start), *(f"{key}={_quoted(value)}" for key, value in rest.items())])
        if colour:
            line = f"\x1b[{_COLOURS.get(level, '0')}m{line}\x1b[0m"
        return line if trace is None else f"{line}\n{_indented(str(trace))}"

    return render


def _quoted(value: object) -> str:
    text = _safe(str(value))
    return f'"{text}"' if " " in text or not text else text


def _safe(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[:MAX_FIELD])


def _indented(text: str) -> str:
    return "\n".join(f"    {_safe(line)}" for line in text.rstrip().splitlines())


@final
class _Lines:
    """Writes lines; a full disk or closed pipe loses them, and nothing else."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            print(line, file=self._stream or sys.stderr, flush=True)
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = log = msg
