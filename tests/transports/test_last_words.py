"""A driver that closes right after the last outcome: what was settled stays settled, on each transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

import pytest
import trio

from kernel import Ack, DeadLetter, Delivery, Envelope, Outcome, Retry, Return, new_id
from kernel._core.spec import DriverSpec
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import discover
from kernel._plan.plan import resolve
from kernel.abc import Broker, Driver, Queue, Subscription, Topology
from kernel.testing import fake_context

from .conftest import TRANSPORTS, Table

pytestmark = pytest.mark.slow

MANY: Final = 20
PATIENCE: Final = 30.0
EACH: Final[Sequence[Outcome]] = (Ack(), Return(), Retry(), DeadLetter("not good"))


def driver_of(table: Table) -> Driver[Broker]:
    """Return the driver alone: a whole service would take some turns more to stop."""
    plan = resolve(from_mapping({"drivers": {"queue": table}}), discover())
    [spec] = [one for one in plan.components.values() if isinstance(one, DriverSpec)]
    return cast("Driver[Broker]", spec.cls(config=spec.config, context=fake_context("driver/queue")))


async def settle_all(deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
    for delivery in deliveries:
        await delivery.settle(outcomes[int(delivery.envelope.body) % len(outcomes)])


async def take(broker: Broker, queue: str, many: int) -> list[str]:
    """Take so many and acknowledge each; return them, and what else comes soon after."""
    texts: list[str] = []
    with trio.move_on_after(PATIENCE if many else 0.5) as scope:
        async with broker.subscribe(Subscription(queue=queue, prefetch=MANY)) as deliveries:
            async for delivery in deliveries:
                texts.append(delivery.envelope.body.decode())
                with trio.CancelScope(shield=True):
                    await delivery.settle(Ack())
                if len(texts) >= many:
                    scope.deadline = min(scope.deadline, trio.current_time() + 0.5)
    return sorted(texts)


@pytest.mark.parametrize("queue", sorted(set(TRANSPORTS) - {"memory"}), indirect=True)
@pytest.mark.parametrize("is_cancelled", [False, True], ids=["closed", "cancelled"])
@pytest.mark.parametrize("outcomes", [EACH[:1], EACH[1:2], EACH], ids=["acknowledged", "given back", "each"])
async def test_what_is_settled_last_is_taken(queue: Table, outcomes: Sequence[Outcome], *, is_cancelled: bool) -> None:
    name, grave = f"work-{new_id()}", f"grave-{new_id()}"
    places = Topology(queues=[Queue(name=grave), Queue(name=name, dead_letters=grave)])
    sent = [f"{number:02}" for number in range(MANY)]
    became = {outcome: sent[at :: len(outcomes)] for at, outcome in enumerate(outcomes)}
    back = sorted(became.get(Return(), []) + became.get(Retry(), []))
    aside = became.get(EACH[-1], [])

    with trio.CancelScope() as scope:
        async with driver_of(queue).open() as broker:
            await broker.declare(places)
            for text in sent:
                await broker.send(Envelope(subject=name, body=text.encode()), exchange="", mandatory=True)
            async with broker.subscribe(Subscription(queue=name, prefetch=MANY)) as deliveries:
                taken = [await anext(deliveries) for _ in range(MANY)]
            await settle_all(taken, outcomes)
            if is_cancelled:
                scope.cancel()
    async with driver_of(queue).open() as broker:
        await broker.declare(places)
        again, letters = await take(broker, name, len(back)), await take(broker, grave, len(aside))

    assert again == back
    assert letters == aside
