"""What micro-framework's README calls tasks.py: functions and a class that handle events, and tell of others."""

from __future__ import annotations

import logging
from typing import Any

import trio
from kernel_messaging import Publisher

from kernel import Failure, handles
from kernel.abc import Delivery

log = logging.getLogger(__name__)


def has_some_value(payload: dict[str, Any]) -> bool:
    """Whether `test2` wants an event."""
    return payload.get("some_key") == "some_value"


@handles("my_routing_key")
async def test(payload: dict[str, Any], producer: Publisher, delivery: Delivery) -> None:
    """Do the work, and tell of it; called again if it raises, as `retry` says."""
    if payload.get("is_broken"):
        raise ValueError(f"cannot be done, tried {delivery.attempt} times")
    await producer.publish("event_name", payload)


async def test_failure(failure: Failure, producer: Publisher) -> None:
    """Called after the last attempt, with what the others were called with, and why they failed."""
    await producer.publish("given_up", {"payload": failure.payload, "reason": failure.reason})


@handles("event_name")
async def test2(payload: dict[str, Any]) -> None:
    """Called after `test`, if the filter lets the event through."""
    await trio.lowlevel.checkpoint()
    log.info("test2 got %s", payload)


class Class:
    """Has what it needs from its constructor."""

    def __init__(self, producer: Publisher) -> None:
        self.producer = producer

    @handles("event_name")
    async def class_method(self, payload: dict[str, Any]) -> None:
        """Tell of what `test` has told of."""
        await self.producer.publish("other_name", payload)
