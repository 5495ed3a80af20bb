"""What the tests of the log share: what is written when something is logged."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from kernel._core.events import Event, EventHub
from kernel._log.capture import capture
from kernel._log.events import log_events
from kernel._log.levels import Levels
from kernel._log.log import Log, LogSettings
from kernel._log.sinks import Stream


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def log_to(
    stream: io.StringIO, *, level: str = "info", levels: Mapping[str, str] | None = None, **settings: Any
) -> Log:
    return Log(LogSettings(sink=Stream(stream), levels=Levels(level=level, named=levels or {}), **settings))


def written(write: Callable[[Any], object], **settings: Any) -> str:
    stream = io.StringIO()
    write(log_to(stream, **settings).logger())
    return stream.getvalue()


def captured(say: Callable[[], object], **settings: Any) -> str:
    """Return what is written of what is said without the kernel's logger."""
    stream = io.StringIO()
    with capture(log_to(stream, **settings)):
        logging.getLogger().handlers[:] = logging.getLogger().handlers[-1:]  # pytest's own raise what a record raises
        say()
    return stream.getvalue()


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def record(write: Callable[[Any], object], **settings: Any) -> dict[str, Any]:
    text = written(write, as_json=True, **settings)
    assert text.count("\n") == 1
    fields: dict[str, Any] = json.loads(text)
    return fields


def of_events(*events: Event, **settings: Any) -> str:
    stream, hub = io.StringIO(), EventHub()
    log_events(hub, log_to(stream, **settings))
    for event in events:
        hub.emit(event)
    assert hub.dropped == 0
    return stream.getvalue()


def fail() -> None:
    raise ValueError("why")


def raised() -> BaseException:
    try:
        fail()
    except ValueError as error:
        return error
    raise AssertionError
