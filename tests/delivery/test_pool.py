"""Taking turns on the instances of a worker."""

from __future__ import annotations

from typing import Any, cast

import attrs
import pytest
import trio

from kernel._core.broker import Delivery
from kernel._delivery.pool import Instance, Pool
from kernel.errors import UnavailableError


@attrs.frozen
class Spec:
    name: str = "w"
    id: str = "worker/w"
    options: object = "options"


def pool() -> Pool:
    return Pool(cast("Any", Spec()), concurrency=1)


def instance(name: str = "one", free: int = 1) -> Instance:
    return Instance(name, f"hosted {name}", free)


def call(one: Instance) -> trio.CancelScope:
    """Note a call that runs in an instance whose place was taken."""
    scope = trio.CancelScope()
    one.calls[scope] = cast("Delivery", None)
    return scope


async def test_a_pool_is_a_target_with_name_options_and_the_instances_in_turn() -> None:
    workers = pool()

    async with workers.offering(instance("one")), workers.offering(instance("two")):
        turns = [workers.hosted() for _ in range(4)]

    assert (workers.name, workers.options) == ("w", "options")
    assert sorted(turns[:2]) == ["hosted one", "hosted two"]
    assert turns[:2] == turns[2:]


async def test_the_instance_with_most_room_is_taken() -> None:
    workers, small, large = pool(), instance("small", 1), instance("large", 3)

    async with workers.offering(small), workers.offering(large):
        taken = [workers.take_nowait() for _ in range(5)]

    assert taken[:2] == [large, large]
    assert sorted(map(str, (one and one.worker for one in taken))) == ["None", "large", "large", "large", "small"]


async def test_there_is_nothing_to_take_where_there_is_no_instance() -> None:
    assert pool().take_nowait() is None


async def test_who_waits_gets_the_place_that_is_given_back(autojump_clock: Any) -> None:
    workers, one = pool(), instance()
    got: list[Instance] = []

    async def wait() -> None:
        got.append(await workers.take())

    async with workers.offering(one), trio.open_nursery() as nursery:
        assert await workers.take() is one
        scope = call(one)
        nursery.start_soon(wait)
        await trio.sleep(1)
        assert not got
        workers.give_back(one, scope)

    assert got == [one]


async def test_who_waits_gets_an_instance_that_comes(autojump_clock: Any) -> None:
    workers, one = pool(), instance()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.take)
            await trio.sleep(1)
            async with workers.offering(one):
                await trio.sleep(1)

    assert one.free == 0


async def test_who_waits_is_told_that_no_instance_will_come(autojump_clock: Any) -> None:
    workers = pool()

    async def close() -> None:
        await trio.sleep(1)
        workers.close("failed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        assert await workers.take() is None
    with pytest.raises(UnavailableError, match="worker/w is not ready: failed"):
        workers.hosted()


async def test_without_an_instance_nothing_is_hosted() -> None:
    with pytest.raises(UnavailableError, match=r"worker/w is not ready$"):
        pool().hosted()


async def test_an_instance_that_leaves_cancels_its_calls_and_waits_for_them(autojump_clock: Any) -> None:
    workers, one = pool(), instance()
    ended: list[float] = []

    async def work(scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep_forever()
        with trio.CancelScope(shield=True):
            await trio.sleep(3)  # its cleanup
        ended.append(trio.current_time())
        workers.give_back(one, scope)

    async with trio.open_nursery() as nursery:
        async with workers.offering(one):
            await workers.take()
            nursery.start_soon(work, call(one))
            await trio.sleep(1)
        left = trio.current_time()

    assert ended == [left]
    assert one.leaving
