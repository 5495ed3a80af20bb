"""What is written in the middle of a turn and at its end, where the stream is a socket."""

from __future__ import annotations

import os
import socket

import pytest
import trio
from kernel_amqp._errors import LinkLostError
from pamqp import commands

from ..scripted import Caught, confirming, publish, sockets

SMALL = b"x" * 200


def arrived(stream: trio.SocketStream) -> int:
    """Return how many bytes wait to be read."""
    with socket.socket(fileno=os.dup(stream.socket.fileno())) as end:
        end.setblocking(False)
        try:
            return len(end.recv(1 << 20, socket.MSG_PEEK))
        except BlockingIOError:
            return 0


async def test_of_many_publishes_in_one_turn_the_first_are_written_before_the_last_are_made() -> None:
    seen: list[int] = []

    async def publish_one() -> None:
        seen.append(arrived(peer.stream))
        await publish(channel, data=SMALL)

    async with confirming(pair=sockets()) as (peer, _, channel), trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(publish_one)
        for _ in range(50):
            await peer.expect_message()
        await peer.send(commands.Basic.Ack(50, True))

    assert len(seen) == 50
    assert seen[0] == 0
    assert 0 < seen[25] < seen[49]


async def test_of_many_acknowledgements_in_one_turn_the_first_32_are_written_before_the_last_are_made() -> None:
    async with confirming(pair=sockets()) as (peer, _, channel):
        seen: list[int] = []
        for tag in range(1, 41):
            channel.ack(tag)
            seen.append(arrived(peer.stream))
        acked = [await peer.expect(commands.Basic.Ack) for _ in range(2)]

    assert seen[30] == 0 < seen[31] == seen[39]
    assert [(ack.delivery_tag, ack.multiple) for ack in acked] == [(32, True), (40, True)]


async def test_what_comes_up_in_a_turn_is_written_at_its_end() -> None:
    async with confirming(pair=sockets()) as (peer, _, channel):
        channel.ack(1)
        channel.ack(2)
        before = arrived(peer.stream)
        await trio.lowlevel.checkpoint()
        after = arrived(peer.stream)
        ack = await peer.expect(commands.Basic.Ack)

    assert before == 0 < after
    assert (ack.delivery_tag, ack.multiple) == (2, True)


async def test_acknowledgements_that_cannot_be_written_at_once_are_written_all_the_same() -> None:
    """A stream in memory can only be awaited."""
    async with confirming() as (peer, _, channel):
        for tag in range(1, 41):
            channel.ack(tag)
        ack = await peer.expect(commands.Basic.Ack)

    assert (ack.delivery_tag, ack.multiple) == (40, True)


async def test_while_publishes_have_to_wait_acknowledgements_are_left_to_who_lets_them_go_on() -> None:
    async with confirming(pair=sockets()) as (peer, link, channel):
        await peer.send(commands.Connection.Blocked("memory"), channel=0)
        while not link.blocked:
            await trio.lowlevel.checkpoint()
        for tag in range(1, 41):
            channel.ack(tag)
        seen = arrived(peer.stream)
        ack = await peer.expect(commands.Basic.Ack)

    assert seen == 0
    assert (ack.delivery_tag, ack.multiple) == (40, True)


async def test_what_a_socket_does_not_take_at_once_goes_before_what_comes_later() -> None:
    """The peer begins to read when much has been left over."""
    published: list[bytes] = []

    async def publish_one(number: int) -> None:
        published.append(b"%03d" % number + SMALL)
        await publish(channel, data=published[-1])

    async with confirming(pair=sockets(send_buffer=4096)) as (peer, _, channel), trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(publish_one, number)
        await trio.testing.wait_all_tasks_blocked()
        arriving = [(await peer.expect_message())[2] for _ in range(200)]
        await peer.send(commands.Basic.Ack(200, True))

    assert arriving == published


@pytest.mark.parametrize("size", [200, 5_000, 100_000])
async def test_what_was_written_at_once_is_known_as_written_when_the_link_is_lost(size: int) -> None:
    """Else it would be sent again, although the broker may have it."""
    async with confirming(pair=sockets()) as (peer, _, channel), trio.open_nursery() as nursery:
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel, "q", b"x" * size)
        await peer.expect_message()
        await peer.stream.aclose()
        await caught.done.wait()

    assert isinstance(caught.error, LinkLostError)
    assert caught.error.written


async def test_a_link_whose_socket_is_gone_says_so_to_who_publishes_at_once() -> None:
    async with confirming(pair=sockets()) as (peer, link, channel), trio.open_nursery() as nursery:
        await peer.stream.aclose()
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel, "q", b"x" * 5_000)
        await caught.done.wait()

        assert isinstance(caught.error, LinkLostError)
        assert link.lost is not None
