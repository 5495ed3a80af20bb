"""What a handler gives back for another time: it comes again, but not at once and for ever."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kernel import DeliverySettled, Return, handles
from kernel._delivery.not_now import MOST
from kernel.testing import open_kernel


def manifest(use: str, **more: Any) -> dict[str, Any]:
    return {
        "drivers": {
            "queue": {"plugin": "memory"},
            "events": {"plugin": "publisher", "driver": "queue", "protocol": "json"},
        },
        "dispatchers": {
            "work": {
                "plugin": "consumer",
                "driver": "queue",
                "protocol": "json",
                "queue": "q",
                "bindings": ["#"],
                **more,
            }
        },
        "workers": {"w": {"use": f"{__name__}:{use}", "dispatcher": "work"}},
    }


BEGAN: list[float] = []
"""When handlers began, in the test that runs."""


@pytest.fixture(autouse=True)
def forget() -> None:
    BEGAN.clear()


class Never:
    """Has no time for anything."""

    def __init__(self) -> None:
        self.began = BEGAN

    @handles("#")
    async def take(self, payload: Any) -> Return:
        self.began.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        return Return()


class Batches(Never):
    @handles("#")
    async def take(self, payload: list[Any]) -> Return:  # type: ignore[override]
        return await Never.take(self, payload)


class Seldom(Never):
    """Has time for all but one."""

    @handles("#")
    async def take(self, payload: Any) -> Return | None:  # type: ignore[override]
        self.began.append(trio.current_time()) if payload == "not now" else None
        await trio.lowlevel.checkpoint()
        return Return() if payload == "not now" else None


@pytest.mark.parametrize(
    ("use", "more"),
    [("Never", {}), ("Never", {"fan_out": True}), ("Batches", {"batch": {"size": 1, "wait": 0.01}})],
    ids=["alone", "fan-out", "batch"],
)
async def test_one_that_is_given_back_again_and_again_comes_ever_later(
    autojump_clock: MockClock, use: str, more: dict[str, Any]
) -> None:
    async with open_kernel(manifest(use, **more)) as service:
        await service.publish("events", "a.b", 1)
        await trio.sleep(60)
        [cause] = [cause for cause in service.kernel.why() if cause.component == "worker/w"]

    waits = [later - sooner for sooner, later in itertools.pairwise(BEGAN)]
    assert 15 <= len(BEGAN) <= 20
    assert waits[:6] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2], abs=0.05)
    assert waits[-1] == pytest.approx(MOST, abs=0.05)
    assert "its handler returns Return()" in cause.what


@pytest.mark.parametrize("seconds", [1.0, 4.0, 4.5])
async def test_the_timeout_of_its_handler_does_not_end_what_is_kept(autojump_clock: MockClock, seconds: float) -> None:
    """Handlers share a scope whose deadline may pass while the last delivery of one is kept."""
    table = manifest("Never")
    table["workers"]["w"]["timeout"] = seconds
    async with open_kernel(table) as service:
        await service.publish("events", "a.b", 1)
        await trio.sleep(60)
        outcomes = [event.outcome for event in service.events if isinstance(event, DeliverySettled)]

    assert outcomes == [Return()] * len(BEGAN[:-1])
    assert BEGAN[-1] - BEGAN[-2] == pytest.approx(MOST, abs=0.05)


async def test_what_is_handled_between_has_the_next_kept_no_longer_than_the_first(autojump_clock: MockClock) -> None:
    async with open_kernel(manifest("Seldom")) as service:
        await service.publish("events", "a.b", "not now")
        for _ in range(100):
            await service.publish("events", "a.b", "now")
            await trio.sleep(0.05)

    assert 40 <= len(BEGAN) <= 60


async def test_a_stop_does_not_wait_for_it(autojump_clock: MockClock) -> None:
    async with open_kernel(manifest("Never")) as service:
        await service.publish("events", "a.b", 1)
        await trio.sleep(20)
        began = trio.current_time()
        await service.stop()

    assert trio.current_time() - began < 1.0
