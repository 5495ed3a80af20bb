"""A worker is replaced behind its dispatcher, whatever the dispatcher does with what it brings."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from kernel import Failure, handles
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry
from kernel._plan.plan import resolve
from kernel.testing import open_kernel

from ._reloaded import REGISTRY, SHOP, changed, packed


class Batcher:
    def __init__(self, config: dict[str, Any]) -> None:
        self.label = config["label"]

    @handles("parcel.*")
    async def pack(self, payloads: list[Any]) -> None:
        await trio.sleep(1)
        packed.extend((self.label, payload) for payload in payloads)


class Failing:
    @handles("parcel.*")
    async def pack(self, payload: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("torn")


class Last:
    def __init__(self, config: dict[str, Any]) -> None:
        self.label = config["label"]

    @handles("#")
    async def take(self, failure: Failure) -> None:
        await trio.sleep(1)
        packed.append((self.label, failure.payload))


GIVEN = Registry.of({"workers": {"batcher": Batcher, "failing": Failing, "last": Last}})
ALL = Registry((*REGISTRY.plugins, *GIVEN.plugins))


def opened(tables: Any, **more: Any) -> Any:
    packed.clear()
    return open_kernel(tables, registry=ALL, **more)


def planned(tables: Any, **changes: Any) -> Any:
    return resolve(from_mapping(changed(tables, **changes)), ALL)


async def test_what_is_fanned_out_goes_to_the_worker_that_there_is_then(autojump_clock: Any) -> None:
    shop = changed(SHOP, dispatchers__work__fan_out=True, workers__other={"use": "packer", "dispatcher": "work"})
    async with opened(shop) as service:
        await service.publish("orders", "parcel.a", 1)
        await trio.sleep(0.5)
        await service.kernel.reload(planned(shop, workers__packer__use="hasty"))
        await service.publish("orders", "parcel.a", 2)
        await service.wait_settled(2)

        assert sorted(packed) == [("a", 1), ("a", 1), ("a", 2), ("hasty a", 2)]


@pytest.mark.parametrize("waits", [0.0, 0.5])
async def test_a_batch_is_for_the_worker_that_there_is_then(waits: float, autojump_clock: Any) -> None:
    shop = changed(SHOP, workers__other=None, dispatchers__work__batch={"size": 2, "wait": waits})
    shop["workers"]["packer"] = {"use": "batcher", "dispatcher": "work", "config": {"label": "a"}, "concurrency": 1}
    async with opened(shop) as service:
        for number in range(4):
            await service.publish("orders", "parcel.a", number)
        await trio.sleep(0.6)
        await service.kernel.reload(planned(shop, workers__packer__config={"label": "b"}))
        await service.wait_settled(4, matching=lambda one: type(one.outcome).__name__ == "Ack")

        assert sorted(payload for _, payload in packed) == [0, 1, 2, 3]
        assert {label for label, _ in packed} == {"a", "b"}


async def test_a_failure_worker_that_is_replaced_gets_what_fails_meanwhile(autojump_clock: Any) -> None:
    shop = changed(SHOP, workers__other=None)
    shop["workers"]["packer"] = {
        "use": "failing", "dispatcher": "work", "retry": {"attempts": 1}, "failure_worker": "last"
    }  # fmt: skip
    shop["workers"]["last"] = {"use": "last", "config": {"label": "a"}, "concurrency": 1}
    async with opened(shop, expected=ValueError) as service:
        for number in range(3):
            await service.publish("orders", "parcel.a", number)
        await trio.sleep(0.5)
        await service.kernel.reload(planned(shop, workers__last__config={"label": "b"}))
        await service.wait_settled(3)

        assert sorted(payload for _, payload in packed) == [0, 1, 2]
        assert sorted(label for label, _ in packed) == ["a", "b", "b"]


async def test_a_worker_that_was_paused_by_its_kill_switch_is_given_calls_again(autojump_clock: Any) -> None:
    switch = {"failure_rate": 0.1, "minimum": 1, "pause": 3600.0}
    shop = changed(SHOP, workers__other=None)
    shop["workers"]["packer"] = {
        "use": "failing", "dispatcher": "work", "retry": {"attempts": 1}, "kill_switch": switch
    }  # fmt: skip
    async with opened(shop, expected=ValueError) as service:
        for number in range(2):
            await service.publish("orders", "parcel.a", number)
            await service.wait_settled(1)
        await service.kernel.reload(planned(shop, workers__packer__use="packer"))
        await service.wait_settled(2)

        assert [payload for _, payload in packed] == [1]
        assert service.kernel.is_ready
