"""A call of a handler, with what is told of it before and after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from .._core.broker import Delivery
from .._core.events import EventHub
from .._core.spans import HandlerCalled, HandlerDone


def is_heard(hub: EventHub) -> bool:
    """Whether anybody wants to know of calls."""
    return bool(hub.hears(HandlerDone) or hub.hears(HandlerCalled))


async def told(
    hub: EventHub,
    worker: str,
    method: str,
    deliveries: Sequence[Delivery],
    call: Callable[[], Awaitable[object]],
) -> object:
    """Call a handler, and tell of it in the task in which that is; what the handler raises goes on."""
    if hub.hears(HandlerCalled):
        hub.emit(HandlerCalled(component=worker, method=method, deliveries=deliveries))
    began, error = trio.current_time(), None
    try:
        return await call()
    except BaseException as raised:
        error = raised
        raise
    finally:
        seconds = trio.current_time() - began
        hub.emit(HandlerDone(component=worker, method=method, deliveries=deliveries, error=error, seconds=seconds))
