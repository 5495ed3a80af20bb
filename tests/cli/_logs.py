"""What the tests of the log share: what is written when something is logged."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

from kernel._cli.log import LogSettings, log_events, open_log
from kernel._core.events import Event, EventHub


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def written(write: Callable[[Any], object], **settings: Any) -> str:
    stream = io.StringIO()
    write(open_log(LogSettings(stream=stream, **settings)))
    return stream.getvalue()


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
