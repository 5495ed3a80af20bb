"""A call of a handler, with what is told of it before and after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from .._core.broker import Delivery
from .._core.events import Event, EventHub
from .._core.spans import HandlerCalled, HandlerDone


def tell_of(
    hub: EventHub,
    worker: str,
    method: str,
    deliveries: Sequence[Delivery],
    call: Callable[..., Awaitable[object]],
    *arguments: object,
) -> Awaitable[object]:
    """Call a handler with its arguments, and tell of it in the task in which that is; what the handler raises goes on.

    Most who hear of the beginning do not care for the end: then nothing stands between the caller and the handler.
    """
    end = None
    if hub.hears(HandlerCalled):
        end = hub.begin(HandlerCalled(component=worker, method=method, deliveries=deliveries))
    if end is None and not hub.hears(HandlerDone):
        return call(*arguments)
    return _told(hub, worker, method, deliveries, end, call, *arguments)


async def _told(
    hub: EventHub,
    worker: str,
    method: str,
    deliveries: Sequence[Delivery],
    end: Callable[[Event], None] | None,
    call: Callable[..., Awaitable[object]],
    *arguments: object,
) -> object:
    began, error = trio.current_time(), None
    try:
        return await call(*arguments)
    except BaseException as raised:
        error = raised
        raise
    finally:
        seconds = trio.current_time() - began
        done = HandlerDone(component=worker, method=method, deliveries=deliveries, error=error, seconds=seconds)
        if end is not None:
            end(done)
        hub.emit(done)
