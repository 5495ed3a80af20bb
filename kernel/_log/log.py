"""The log of a service: one call through which every record leaves, on one line, for people or as JSON.

Writing never raises into the code that logs: what cannot be printed is replaced, what cannot be written is lost and
counted.

structlog is imported when a log is made, not before: it costs more than the rest of `kernel check`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, final

import attrs

from .._core.broker import CURRENT
from .._core.masks import Masks
from .._core.spans import carried
from .levels import NUMBERS, Levels
from .library import lean
from .render import Record, Render, as_json, as_text, printed, with_traceback
from .sinks import Sink, Stream

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_TOLD: Final = "records of the log were lost"
_ELSEWHERE: Final = "the log cannot be written to its file, and goes to standard error"


@final
@attrs.frozen(kw_only=True)
class LogSettings:
    """How the log is written."""

    service: str = ""
    """Its name, which stands in every record; in none if it is empty."""
    process: int | None = None
    """Number of this process among those of the service, which stands in every record; None if there is one."""
    levels: Levels = attrs.field(factory=Levels)
    as_json: bool = False
    sink: Sink = attrs.field(factory=Stream, repr=False)
    """Where lines go; what it does not take goes to standard error."""
    colour: bool = False
    masks: Masks = attrs.field(factory=Masks)
    """What is never written."""


@final
@attrs.define(eq=False, repr=False)
class Log:
    """Writes records. May be called from any thread, and from a signal handler."""

    settings: LogSettings
    lost: int = attrs.field(default=0, init=False)
    """Records that its sink did not take."""
    _told: int = attrs.field(default=0, init=False)
    """Of those, how many the log itself tells of."""
    _is_elsewhere: bool = attrs.field(default=False, init=False)
    """Whether its sink did not take the last record, which has been told."""
    _render: Render = attrs.field(init=False)
    _one_by_one: threading.RLock = attrs.field(factory=threading.RLock, init=False)
    """An `RLock`, since a signal handler may log while its thread does."""

    def __attrs_post_init__(self) -> None:
        given = self.settings
        self._render = as_json(given.masks) if given.as_json else as_text(given.masks, colour=given.colour)

    def write(self, fields: Record) -> None:
        """Write a record, whoever made it: `event`, `level`, `component` or `logger`, and what else there is."""
        line = self._line(fields)
        with self._one_by_one:
            try:
                if self.lost > self._told:
                    self._tell_lost()
                self.settings.sink.write(line)
                self._is_elsewhere = False
            except Exception as error:  # noqa: BLE001  whatever is wrong with the sink, the code that logs goes on
                self.lost += 1
                self._tell_why(error)
                self._write_elsewhere(line)

    def last_words(self, text: str, culprits: Sequence[str]) -> None:
        """Write why the process ends now. Takes no lock: whoever hangs may hold it."""
        fields: Record = {"event": text, "level": "error", "component": "kernel", "culprits": tuple(culprits)}
        self.settings.sink.last_words(self._line(fields))

    def logger(self) -> FilteringBoundLogger:
        """Return a logger of structlog that writes here."""
        with lean():
            import structlog  # noqa: PLC0415  see the module docstring

        logger: FilteringBoundLogger = structlog.wrap_logger(
            _Writes(self),
            processors=[structlog.processors.add_log_level, structlog.processors.StackInfoRenderer(), _as_they_are],
            wrapper_class=self.settings.levels.logger_class(),
            context_class=dict,
            cache_logger_on_first_use=True,
        )
        return logger

    def _line(self, fields: Record) -> str:
        """Return a record as it is written, with what every record has."""
        record = {**fields, **_of_delivery(fields), "timestamp": _now()}
        if self.settings.service:
            record["service"] = self.settings.service
        if self.settings.process is not None:
            record["process"] = self.settings.process
        return f"{self._render(with_traceback(record))}\n"

    def _tell_lost(self) -> None:
        lost = self.lost - self._told
        fields: Record = {"event": _TOLD, "level": "error", "component": "kernel", "records": lost}
        self.settings.sink.write(self._line(fields))
        self._told = self.lost

    def _tell_why(self, error: Exception) -> None:
        """Tell, where the first record goes that the sink does not take, what is wrong with the sink."""
        if self._is_elsewhere:
            return
        self._is_elsewhere = True
        fields: Record = {"event": _ELSEWHERE, "level": "error", "component": "kernel", "error": printed(error)}
        with suppress(Exception):
            self._write_elsewhere(self._line(fields))

    def _write_elsewhere(self, line: str) -> None:
        if not isinstance(self.settings.sink, Stream):
            with suppress(Exception):
                Stream().write(line)


@final
@attrs.frozen(eq=False, repr=False)
class _Writes:
    """What structlog gives the records of the kernel's logger to."""

    log: Log

    def msg(self, fields: Record) -> None:
        number = NUMBERS.get(str(fields["level"]), NUMBERS["error"])
        if number >= self.log.settings.levels.of_component(str(fields.get("component", ""))):
            self.log.write(fields)

    debug = info = warning = error = critical = msg


def _as_they_are(_logger: object, _name: str, fields: Record) -> tuple[tuple[Record], Mapping[str, Any]]:
    return (fields,), {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _of_delivery(fields: Record) -> Record:
    """Return what is to be said of what is logged in a handler: who handles which delivery, and in which trace."""
    handled = CURRENT.get()
    if handled is None:
        return _trace(carried())
    delivery = handled.delivery
    envelope = delivery.envelope
    trace = _trace(carried()) or _trace(envelope.headers)
    if "delivery" in fields:  # which may be another one
        return trace if fields["delivery"] == envelope.id else {}
    return {"worker": handled.worker, "delivery": envelope.id, "attempt": delivery.attempt, **trace}


def _trace(headers: Mapping[str, object]) -> Record:
    """Return the trace id of a `traceparent`, if there is one. Source: W3C Trace Context."""
    parent = headers.get("traceparent")
    parts = parent.split("-") if isinstance(parent, str) else []
    return {"trace": parts[1]} if len(parts) >= 4 and len(parts[1]) == 32 else {}
