"""What the tests of the log share: what is written when something is logged."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from kernel._cli.capture import capture
from kernel._cli.event_log import log_events
from kernel._cli.levels import Levels
from kernel._cli.log import LogSettings, open_log
from kernel._core.events import Event, EventHub


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def settings_of(
    stream: io.StringIO, *, level: str = "info", levels: Mapping[str, str] | None = None, **settings: Any
) -> LogSettings:
    return LogSettings(stream=stream, levels=Levels(level=level, named=levels or {}), **settings)


def written(write: Callable[[Any], object], **settings: Any) -> str:
    stream = io.StringIO()
    write(open_log(settings_of(stream, **settings)))
    return stream.getvalue()


def captured(say: Callable[[], object], **settings: Any) -> str:
    """Return what is written of what is said without the kernel's logger."""
    stream = io.StringIO()
    with capture(settings_of(stream, **settings)):
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
    def write(log: Any) -> None:
        hub = EventHub()
        log_events(hub, log)
        for event in events:
            hub.emit(event)
        assert hub.dropped == 0

    return written(write, **settings)


def fail() -> None:
    raise ValueError("why")


def raised() -> BaseException:
    try:
        fail()
    except ValueError as error:
        return error
    raise AssertionError
