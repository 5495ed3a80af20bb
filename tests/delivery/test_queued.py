"""How long a delivery waited at its source, as its end tells it."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from typing_extensions import override

from kernel import DeliverySettled, Envelope, Outcome, handles
from kernel._core.events import EventHub
from kernel._core.router import Router
from kernel._delivery.hold import Hold
from kernel._delivery.intake import KernelIntake
from kernel._delivery.judge import Judge
from kernel._delivery.pipeline import Pipeline
from kernel.abc import Delivery, read_sent
from kernel.errors import TransientError
from kernel.testing import open_kernel

COMMON = {"driver": "queue", "protocol": "json"}


class Slow:
    @handles("slow")
    async def slow(self, payload: object) -> None:
        await trio.sleep(2)

    @handles("again")
    async def again(self, payload: object) -> None:
        raise TransientError("not yet", after=1.0)


def manifest(**dispatcher: Any) -> dict[str, Any]:
    return {
        "kernel": {"name": "test"},
        "drivers": {"queue": {"plugin": "memory"}, "events": {"plugin": "publisher", **COMMON}},
        "dispatchers": {"work": {"plugin": "consumer", **COMMON, "queue": "q", "bindings": ["#"], **dispatcher}},
        "workers": {"w": {"use": f"{__name__}:Slow", "dispatcher": "work", "retry": {"attempts": 2}}},
    }


async def test_the_wait_for_a_slot_is_time_in_the_queue(autojump_clock: object) -> None:
    async with open_kernel(manifest(concurrency=1)) as running:
        for _ in range(3):
            await running.publish("events", "slow", None)
        done = await running.wait_settled(3)

    assert [(round(one.queued or 0.0, 3), one.seconds) for one in done] == [(0.0, 2.0), (2.0, 2.0), (4.0, 2.0)]


async def test_only_a_first_attempt_tells_of_the_queue(autojump_clock: object) -> None:
    async with open_kernel(manifest(), expected=Exception) as running:
        told: list[Any] = []
        running.kernel.hub.subscribe(told.append, DeliverySettled)
        await running.publish("events", "again", None)
        await running.wait_settled(2)

    assert [(one.attempt, one.queued is None) for one in told] == [(1, False), (2, True)]


@pytest.mark.parametrize(
    ("told", "sent"),
    [
        (1_000, 90.0),
        (1_000.5, 90.5),
        ("1000", 90.0),
        (1_700_000_000_000, 1_700_000_000 - 910.0),
        (2_000, 1_090.0),
        (0, None),
        (-1, None),
        ("", None),
        ("yesterday", None),
        ("9" * 16, None),
        (True, None),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        (2**64 - 1, None),
        ([1_000], None),
    ],
)
def test_what_a_message_says_of_its_time_is_read_or_left(told: object, sent: float | None) -> None:
    assert read_sent(told, now=100.0, wall=1_010.0) == sent


@attrs.define
class FromTheFuture(Delivery):
    """Of a machine whose clock is ahead."""

    envelope = Envelope(subject="x")
    attempt = 1
    redelivered = False

    @property
    @override
    def sent(self) -> float:
        return trio.current_time() + 60

    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_clock_that_is_ahead_makes_no_negative_time(nursery: trio.Nursery) -> None:
    told: list[Any] = []
    hub = EventHub()
    hub.subscribe(told.append, DeliverySettled)
    pipeline = Pipeline(Router.of([]), Judge(None), {}, Hold(1, lambda: None))
    await KernelIntake("dispatcher/test", 1, [], pipeline, hub, nursery).handle(FromTheFuture())

    assert [one.queued for one in told] == [0.0]
