"""A listener that fails, over each transport: its event comes again after a wait, and is put aside when it is hopeless."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from kernel_events import event, listens

from kernel import Ack, DeadLetter, Delivery, Retry, new_id
from kernel._manifest.registry import Registry, discover
from kernel.abc import Subscription
from kernel.errors import PermanentError, TransientError
from kernel.testing import open_kernel

from .conftest import Table

pytestmark = pytest.mark.slow

WIRED = {"driver": "queue", "protocol": "json"}
PATIENCE = 30.0


@event()
@attrs.frozen
class Placed:
    sku: str


class Packer:
    @listens(Placed)
    async def pack(self, event: Placed, delivery: Delivery) -> None:
        if event.sku == "poison":
            raise PermanentError("nobody packs that")
        if delivery.attempt == 1:
            raise TransientError("no boxes")


def manifest(queue: Table, service: str, exchange: str) -> dict[str, Any]:
    return {
        "kernel": {"name": service},
        "drivers": {"queue": queue, "events": {"plugin": "event_sender", "exchange": exchange, **WIRED}},
        "dispatchers": {"heard": {"plugin": "event_listener", "exchange": exchange, **WIRED}},
        "workers": {
            "packer": {
                "use": "packer",
                "dispatcher": "heard",
                "retry": {"attempts": 2, "backoff_initial": 0.05},
            }
        },
    }


async def test_a_failed_event_comes_again_or_is_put_aside_with_the_reason(queue: Table) -> None:
    service = f"shop-{new_id()}"
    registry = Registry((*discover().plugins, *Registry.of({"workers": {"packer": Packer}}).plugins))
    opened = open_kernel(
        manifest(queue, service, new_id()), registry=registry, expected=(PermanentError, TransientError)
    )
    async with opened as kernel:
        events = kernel.resource("driver/events")
        await events.send(Placed("tea"))
        again = [one.outcome for one in await kernel.wait_settled(2)]
        await events.send(Placed("poison"))
        aside = (await kernel.wait_settled(3))[-1].outcome
        grave = Subscription(queue=f"Placed::{service}.Packer.pack.dead", prefetch=1)
        with trio.fail_after(PATIENCE):
            async with kernel.resource("driver/queue").subscribe(grave) as deliveries:
                letter = await anext(deliveries)
                await letter.settle(Ack())

    assert [type(one) for one in again] == [Retry, Ack]
    assert isinstance(aside, DeadLetter)
    assert "nobody packs that" in letter.envelope.headers["kernel-death-reason"]
    assert letter.envelope.body == b'{"sku":"poison"}'
