"""The log: records on one stream, one line each, for people or as JSON.

Writing never raises into the code that logs: what cannot be printed is replaced, what cannot be written is lost.

structlog is imported when a log is opened, not before: it costs more than the rest of `kernel check`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias, cast, final

import attrs

from .._core.broker import CURRENT
from .._core.masks import Masks
from .levels import NUMBERS, Levels
from .render import as_json, as_text, with_traceback

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor


@final
@attrs.frozen(kw_only=True)
class LogSettings:
    """How the log is written."""

    levels: Levels = attrs.field(factory=Levels)
    as_json: bool = False
    stream: TextIO | None = attrs.field(default=None, repr=False)
    """None is standard error."""
    colour: bool = False
    masks: Masks = attrs.field(factory=Masks)
    """What is never written."""


def open_log(settings: LogSettings) -> FilteringBoundLogger:
    """Return a logger that writes one line per record to the stream; it never raises if the stream is broken."""
    import structlog  # noqa: PLC0415  see the module docstring

    logger: FilteringBoundLogger = structlog.wrap_logger(
        Lines(settings.stream),
        processors=[
            structlog.processors.add_log_level,
            _by_component(settings.levels),
            structlog.processors.StackInfoRenderer(),
            *_ending(settings),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(settings.levels.lowest),
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return logger


def _by_component(levels: Levels) -> Processor:
    from structlog import DropEvent  # noqa: PLC0415  as above

    def drop(_logger: object, _name: str, fields: MutableMapping[str, object]) -> MutableMapping[str, object]:
        if NUMBERS.get(str(fields["level"]), logging.ERROR) < levels.of_component(str(fields.get("component", ""))):
            raise DropEvent
        return fields

    return drop


def _ending(settings: LogSettings) -> list[Processor]:
    """Return what every record passes through at last, whoever made it."""
    import structlog  # noqa: PLC0415  as above

    render = as_json(settings.masks) if settings.as_json else as_text(settings.masks, colour=settings.colour)
    return [
        _with_delivery,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        with_traceback,
        lambda _logger, _name, fields: render(fields),
    ]


def _with_delivery(_logger: object, _name: str, fields: MutableMapping[str, object]) -> MutableMapping[str, object]:
    """Say of what is logged in a handler who handles which delivery."""
    handled = CURRENT.get()
    if handled is not None and "delivery" not in fields:
        delivery = handled.delivery
        fields.update(worker=handled.worker, delivery=delivery.envelope.id, attempt=delivery.attempt)
    return fields


Write: TypeAlias = Callable[[MutableMapping[str, object]], None]


def writer(settings: LogSettings) -> Write:
    """Return what writes a record that has no logger of the kernel's."""
    ending, lines = _ending(settings), Lines(settings.stream)

    def write(fields: MutableMapping[str, object]) -> None:
        made: Any = fields
        for processor in ending:
            made = processor(None, "", made)
        lines.msg(str(made))

    return write


@final
class Lines:
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
