"""Waits for receipts that end in time, by one clock for all. In virtual time, with a broker that is scripted."""

from __future__ import annotations

import pytest
import trio
from kernel_amqp._errors import UnansweredError
from kernel_amqp.broker.settlement import PATIENCE, AmqpSettlement, Patience
from kernel_amqp.core import Properties
from kernel_amqp.link.channel import LinkChannel
from kernel_amqp.link.receipts import Receipt
from pamqp import commands
from trio.testing import MockClock

from ..scripted import confirming

BEGINNINGS = (0.0, 1.5, PATIENCE - 0.5, PATIENCE, 2 * PATIENCE + 0.25)
"""When messages are written: before the first look, at it, and when nobody looks any more."""


async def _settle(channel: LinkChannel, settlement: AmqpSettlement) -> None:
    await channel.publish(
        exchange="", routing_key="q", properties=Properties(), body=b"x", on_written=settlement.written
    )


async def _given_up(channel: LinkChannel, patience: Patience, after: float, ends: list[float]) -> None:
    await trio.sleep(after)
    began = trio.current_time()
    with pytest.raises(UnansweredError):
        await _settle(channel, AmqpSettlement(patience=patience))
    ends.append(trio.current_time() - began)


async def test_each_wait_ends_when_its_own_time_is_over(autojump_clock: MockClock) -> None:
    ends: list[float] = []
    async with confirming() as (_, _, channel), trio.open_nursery() as nursery:
        patience = Patience(nursery.start_soon)
        for after in BEGINNINGS:
            nursery.start_soon(_given_up, channel, patience, after, ends)

    assert ends == pytest.approx([PATIENCE] * len(BEGINNINGS))


async def test_an_answer_in_time_ends_a_wait(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        nursery.start_soon(_settle, channel, settlement := AmqpSettlement(patience=Patience(nursery.start_soon)))
        await trio.sleep(PATIENCE / 2)
        await peer.send(commands.Basic.Ack(1))

    assert settlement.receipt is not None
    assert settlement.receipt.is_answered


@pytest.mark.parametrize("seconds", [PATIENCE / 2, 2 * PATIENCE], ids=["cancelled", "given up"])
async def test_what_was_not_answered_can_be_waited_for_however_long_it_takes(
    seconds: float, autojump_clock: MockClock
) -> None:
    taken: list[bool] = []

    async def wait(settlement: AmqpSettlement) -> None:
        taken.append(await settlement.is_taken())

    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        settlement = AmqpSettlement(patience=Patience(nursery.start_soon))
        with trio.move_on_after(seconds) as scope:
            with pytest.raises(UnansweredError if seconds > PATIENCE else trio.Cancelled):
                await _settle(channel, settlement)
            await trio.lowlevel.checkpoint()
        nursery.start_soon(wait, settlement)
        await trio.sleep(10 * PATIENCE)
        was_waiting = not taken
        await peer.send(commands.Basic.Ack(1))

    assert scope.cancelled_caught == (seconds < PATIENCE)
    assert was_waiting
    assert taken == [True]


async def test_what_was_answered_is_not_kept(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        patience = Patience(nursery.start_soon)
        for _ in range(100):
            patience.bound(receipt := Receipt())
            receipt.answer(None)

        assert len(patience._waits) == 1
