"""The socket alone: nothing is lost, nobody is forgotten, and idle costs nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing
import zmq

from .raw import LOCAL, address_of, open_raw

COUNT = 400


async def test_cancelled_receives_lose_nothing_in_either_direction() -> None:
    chance, got = random.Random(1), list[bytes]()
    async with open_raw(zmq.ROUTER, bind=LOCAL) as router, open_raw(zmq.DEALER, connect=address_of(router)) as dealer:

        async def echo() -> None:
            while True:
                await router.send(await router.recv())

        async def receive() -> None:
            while len(got) < COUNT:
                with trio.move_on_after(chance.random() * 0.002):
                    got.append((await dealer.recv())[-1])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            async with trio.open_nursery() as both:
                both.start_soon(receive)
                for number in range(COUNT):
                    await dealer.send([b"%d" % number])
            nursery.cancel_scope.cancel()

    assert got == [b"%d" % number for number in range(COUNT)]


async def test_a_message_after_a_cancelled_receive_comes() -> None:
    async with open_raw(zmq.PUSH, bind=LOCAL) as push, open_raw(zmq.PULL, connect=address_of(push)) as pull:
        for number in range(50):
            with trio.CancelScope() as scope:
                scope.cancel()
                await pull.recv()
            await push.send([b"%d" % number])
            with trio.fail_after(5):
                assert await pull.recv() == [b"%d" % number]


async def test_two_who_receive_and_one_who_sends_wait_at_once() -> None:
    got: list[bytes] = []
    async with open_raw(zmq.DEALER, bind=LOCAL) as ours, trio.open_nursery() as nursery:

        async def receive() -> None:
            got.extend(await ours.recv())

        nursery.start_soon(receive)
        nursery.start_soon(receive)
        nursery.start_soon(ours.send, [b"there"])  # nobody is connected
        await trio.testing.wait_all_tasks_blocked()
        async with open_raw(zmq.DEALER, connect=address_of(ours)) as theirs:
            with trio.fail_after(5):
                assert await theirs.recv() == [b"there"]
                await theirs.send([b"a"])
                await theirs.send([b"b"])
                while len(got) < 2:
                    await trio.lowlevel.checkpoint()

    assert sorted(got) == [b"a", b"b"]


async def test_a_send_that_finds_no_room_can_be_cancelled() -> None:
    async with open_raw(zmq.PUSH, bind=LOCAL) as push:
        with trio.move_on_after(0.01) as scope:
            await push.send([b"x"])

    assert scope.cancelled_caught


async def test_a_message_with_a_part_that_is_none_leaves_no_half_of_it() -> None:
    async with open_raw(zmq.PULL, bind=LOCAL) as pull, open_raw(zmq.PUSH, connect=address_of(pull)) as push:
        parts: Any = [b"half", "not bytes"]
        with pytest.raises(TypeError):
            await push.send(parts)
        await push.send([b"whole"])

        with trio.fail_after(5):
            assert await pull.recv() == [b"whole"]


class Steps(trio.abc.Instrument):
    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: Any) -> None:
        self.count += 1


async def test_who_waits_takes_no_step_while_nothing_comes() -> None:
    steps = Steps()
    async with (
        open_raw(zmq.PULL, bind=LOCAL) as pull,
        open_raw(zmq.PUSH, connect=address_of(pull)),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pull.recv)
        await trio.sleep(0.05)  # what connecting brings
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(0.1)
        trio.lowlevel.remove_instrument(steps)
        nursery.cancel_scope.cancel()

    assert steps.count <= 3
