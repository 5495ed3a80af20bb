"""Events, and records of the standard library's `logging` -> log records, one line each, for people or as JSON.

Writing never raises into the code that logs: what cannot be printed is replaced, what cannot be written is lost.

structlog is imported when a log is opened, not before: it costs more than the rest of `kernel check`.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
import traceback
from collections.abc import Callable, Generator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO, TypeAlias, assert_never, cast, final, get_args

import attrs
from typing_extensions import override

from .._core.envelope import Ack, DeadLetter, Retry, Return
from .._core.events import (
    ComponentFailed,
    DeliveryDone,
    DeliveryRevoked,
    DeliverySettled,
    DrainTimedOut,
    Event,
    EventHub,
    KernelReady,
    KernelStopped,
    KillSwitchChanged,
    Listening,
    LoopBlocked,
    SettleFailed,
    StateChanged,
    StopRequested,
    StopTimedOut,
)
from .._core.lifecycle import State
from .._delivery.failure import describe
from ..errors import StartupError, UnavailableError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

LEVELS: Final = ("debug", "info", "warning", "error")
MAX_FIELD: Final = 2_000
"""Characters of one field."""
MAX_TRACEBACK: Final = 50_000
"""Characters of a traceback."""
_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31"}


@final
@attrs.frozen(kw_only=True)
class LogSettings:
    """How the log is written."""

    level: str = "info"
    """One of `LEVELS`."""
    as_json: bool = False
    stream: TextIO | None = attrs.field(default=None, repr=False)
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
            _with_traceback,
            lambda _logger, _name, fields: render(fields),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return logger


@contextmanager
def capture_logging(log: FilteringBoundLogger) -> Generator[None]:
    """Write what is logged with the standard library's `logging` to a log too, while inside.

    Records of every library arrive, at the level of the log and above. Other handlers go on to get what they got.
    """
    root = logging.getLogger()
    before = root.level
    handler = _Captured(log)
    root.addHandler(handler)
    root.setLevel(min(before, handler.level))
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


@final
class _Captured(logging.Handler):
    """Hands records on to a log, with the logger that they are from."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(log.get_effective_level())
        self._log = log

    @override
    def emit(self, record: logging.LogRecord) -> None:
        level = max(known for known in (*_STANDARD_LEVELS, 0) if known <= record.levelno)
        write = getattr(self._log, _STANDARD_LEVELS.get(level, "debug"))
        write("%s", _message(record), logger=record.name, exc_info=record.exc_info)


_STANDARD_LEVELS: Final = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  arguments that do not fit, or cannot be printed, must not break who logs them
        return f"{_printed(record.msg)} (its arguments cannot be printed)"


def log_events(hub: EventHub, log: FilteringBoundLogger) -> None:
    """Write events to the log. Deliveries that go well are written at debug level, and not even made above it."""
    hub.subscribe(lambda event: _write(log, cast("_Written", event)), *get_args(_Written))
    hub.subscribe(functools.partial(_write_revoked, log), DeliveryRevoked)
    usual = () if log.is_enabled_for(logging.DEBUG) else (DeliveryDone,)
    hub.subscribe(functools.partial(_write_settled, log), DeliverySettled, but=usual)


_Written: TypeAlias = (
    StateChanged
    | ComponentFailed
    | Listening
    | KernelReady
    | StopRequested
    | KernelStopped
    | KillSwitchChanged
    | DrainTimedOut
    | StopTimedOut
    | LoopBlocked
    | SettleFailed
)


def _write(log: FilteringBoundLogger, event: _Written) -> None:
    bound = log.bind(component=event.component)
    match event:
        case StateChanged():
            level = _STATE_LEVELS.get(event.new, "debug")
            getattr(bound, level)(event.new.value, **({"reason": event.reason} if event.reason else {}))
        case ComponentFailed():
            _write_failure(bound, event)
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
        case DrainTimedOut():
            bound.warning("drain_timeout is over, cancelled", culprits=event.culprits)
        case StopTimedOut():
            bound.warning("stop_timeout is over, left behind", where=event.where)
        case LoopBlocked():
            bound.warning("the event loop goes on", blocked_s=round(event.seconds, 1), where=event.where)
        case SettleFailed():
            bound.warning("not settled", delivery=event.delivery_id, error=describe(event.error))
        case _:
            assert_never(event)


def _detail(log: FilteringBoundLogger, error: BaseException) -> dict[str, str]:
    """Return the traceback; none above debug level where the text says it all.

    That is what is wrong with the configuration, and what cannot be reached at the moment: a broker that is away for a
    minute would fill pages.
    """
    if isinstance(error, StartupError | UnavailableError) and not log.is_enabled_for(logging.DEBUG):
        return {}
    return {"traceback": _traceback(error)}


def _write_failure(bound: FilteringBoundLogger, event: ComponentFailed) -> None:
    wait = {} if event.restart_in is None else {"in_s": round(event.restart_in, 2)}
    text = "failed, restarts" if wait else "failed"
    bound.error(text, **wait, error=describe(event.error), **_detail(bound, event.error))


_STATE_LEVELS: Final = {State.DEGRADED: "warning", State.READY: "info"}


def _write_settled(log: FilteringBoundLogger, event: Event) -> None:
    assert isinstance(event, DeliverySettled)  # which is what it subscribes to
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


def _write_revoked(log: FilteringBoundLogger, event: Event) -> None:
    if isinstance(event, DeliveryRevoked):
        raised = {} if event.error is None else {"error": describe(event.error)}
        log.info("revoked", component=event.component, delivery=event.delivery_id, subject=event.subject, **raised)


# --- rendering ----------------------------------------------------------------------------------------------------


def _with_traceback(_logger: object, _name: str, fields: MutableMapping[str, object]) -> MutableMapping[str, object]:
    """Replace what a caller gave as `exc_info` by the traceback."""
    given = fields.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    error = cast("tuple[object, object, object]", given)[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        fields["traceback"] = _traceback(error)
    return fields


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001  an exception that cannot be printed must not break the log
        return "<no traceback: the exception cannot be printed>"


def _as_json(fields: Mapping[str, object]) -> str:
    cut = {str(key): _cut(key, value) if isinstance(value, str) else value for key, value in fields.items()}
    try:
        return json.dumps(cut, default=_printed, allow_nan=False)
    except Exception:  # noqa: BLE001  NaN, a cycle, keys that are no strings, anything that JSON has no word for
        return json.dumps({key: _cut(key, _printed(value)) for key, value in cut.items()})


def _cut(key: str, text: str) -> str:
    limit = MAX_TRACEBACK if key == "traceback" else MAX_FIELD
    return text if len(text) <= limit else f"{text[:limit]}..."


def _as_text(*, colour: bool) -> Callable[[Mapping[str, object]], str]:
    def render(fields: Mapping[str, object]) -> str:
        rest = {str(key): _printed(value) for key, value in fields.items()}
        level = rest.pop("level", "info")
        source = rest.pop("component", None) or rest.pop("logger", "kernel")
        start = f"{rest.pop('timestamp', '')} {level:7} {source}: {_cut('event', rest.pop('event', ''))}"
        trace = rest.pop("traceback", None)
        line = " ".join([_safe(start), *(f"{_safe(key)}={_quoted(value)}" for key, value in rest.items())])
        if colour:
            line = f"\x1b[{_COLOURS.get(level, '0')}m{line}\x1b[0m"
        return line if trace is None else f"{line}\n{_indented(trace)}"

    return render


def _printed(value: object) -> str:
    """Return a value as text, whatever its class thinks of that."""
    try:
        return _joined(value)
    except Exception:  # noqa: BLE001  a broken __str__ must not break who logs it
        return f"<unprintable {type(value).__name__}>"


def _joined(value: object) -> str:
    if isinstance(value, list | tuple):
        return "; ".join(map(str, cast("list[object]", value)))
    return str(value)


def _quoted(value: str) -> str:
    text = _cut("", value)
    if text and not any(char in text for char in ' "='):
        return _safe(text)
    return '"' + _safe(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _safe(text: str) -> str:
    """Escape what is no printable character, so that a record stays on its line and a terminal obeys nobody."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _indented(text: str) -> str:
    return "\n".join(f"    {_safe(line)}" for line in _cut("traceback", text).rstrip().splitlines())


@final
class _Lines:
    """Writes lines; a full disk or closed pipe loses them, and nothing else."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        stream = self._stream or cast("TextIO | None", sys.stderr)  # which is None if it was closed before the start
        try:
            if stream is not None:
                stream.write(f"{line}\n")  # in one piece: threads log too
                stream.flush()
        except Exception:  # noqa: BLE001  whatever is wrong with the stream, the code that logs goes on
            pass

    debug = info = warning = error = critical = log = msg
