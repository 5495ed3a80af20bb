"""Channels, calls and consumers of a connection whose broker is scripted, and its end. In virtual time."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from kernel_amqp._errors import ChannelClosedError, LinkLostError
from kernel_amqp.link.channel import LinkChannel
from kernel_amqp.link.link import link_on
from pamqp import commands
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from kernel.testing import cancel_at_each_checkpoint

from ..peer import Peer, delivery
from ..scripted import (
    SETTINGS,
    Caught,
    confirming,
    joined,
    linked,
    publish,
    served,
)


async def test_channel_error_closes_only_its_channel_and_names_code_text_and_method(autojump_clock: MockClock) -> None:
    told: list[Exception] = []
    async with confirming() as (peer, link, channel), trio.open_nursery() as nursery:
        nursery.start_soon(peer.open_channel, 2)
        async with link.open_channel(on_closed=told.append) as other:
            caught = Caught()
            nursery.start_soon(caught.run, other.call, commands.Queue.Declare(queue="q"))
            await peer.expect(commands.Queue.Declare)
            text = (
                "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q': received 'true' but current is 'false'"
            )
            await peer.send(commands.Channel.Close(406, text, 50, 10), channel=2)
            await caught.done.wait()
            assert isinstance(caught.error, ChannelClosedError)
            assert (caught.error.code, caught.error.text, caught.error.method) == (406, text, "queue.declare")
            assert (await peer.expect(commands.Channel.CloseOk)) is not None
            assert [type(error) for error in told] == [ChannelClosedError]
            assert isinstance(await other.wait_closed(), ChannelClosedError)
            for operation in (lambda: other.ack(1), lambda: other.nack(1, requeue=True)):
                with pytest.raises(ChannelClosedError, match="406"):
                    operation()
        nursery.start_soon(publish, channel)
        await peer.expect_message()  # and no ack before it
        await peer.send(commands.Basic.Ack(1))


async def test_ack_after_the_link_is_lost_raises(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, link, channel):
        await trio.aclose_forcefully(peer.stream)
        await link.wait_lost()
        with pytest.raises(LinkLostError):
            channel.ack(1)
        with pytest.raises(LinkLostError):
            async with link.open_channel():
                pass


async def test_ack_after_leaving_raises_and_is_not_sent_on_the_channel_that_has_the_number_next(
    autojump_clock: MockClock,
) -> None:
    async with linked() as (peer, link):
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.open_channel)
                manager = link.open_channel()
                channel = await manager.__aenter__()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(manager.__aexit__, None, None, None)
                await peer.expect(commands.Channel.Close)
                await peer.send(commands.Channel.CloseOk())
            with pytest.raises(ChannelClosedError, match="left"):
                channel.ack(1)


async def test_channel_that_both_close_at_once_harms_no_other(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, link, channel), trio.open_nursery() as nursery:
        nursery.start_soon(peer.open_channel, 2)
        manager = link.open_channel()
        await manager.__aenter__()
        nursery.start_soon(manager.__aexit__, None, None, None)
        await peer.expect(commands.Channel.Close)
        await peer.send(commands.Channel.Close(404, "NOT_FOUND", 60, 40), channel=2)
        await peer.expect(commands.Channel.CloseOk)
        await peer.send(commands.Channel.CloseOk(), channel=2)
        nursery.start_soon(publish, channel)
        await peer.expect_message()
        await peer.send(commands.Basic.Ack(1))
        await wait_all_tasks_blocked()
        assert list(link._channels.values()) == [channel]
        assert link.lost is None


async def test_call_that_was_cancelled_does_not_take_the_answer_of_the_next(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            await channel.call(commands.Queue.Declare(queue="first"))
        answers: list[Any] = []

        async def declare() -> None:
            answers.append(await channel.call(commands.Queue.Declare(queue="second")))

        nursery.start_soon(declare)
        assert (await peer.expect(commands.Queue.Declare)).queue == "first"
        await wait_all_tasks_blocked()
        await peer.send(commands.Queue.DeclareOk("first", 1, 1))
        assert (await peer.expect(commands.Queue.Declare)).queue == "second"
        await peer.send(commands.Queue.DeclareOk("second", 2, 2))
        await wait_all_tasks_blocked()
        assert [answer.queue for answer in answers] == ["second"]


async def test_calls_of_many_tasks_get_their_own_answers(autojump_clock: MockClock) -> None:
    async with served() as link, link.open_channel() as channel, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(_declare, channel, f"q{number}")


async def _declare(channel: LinkChannel, name: str) -> None:
    answer = await channel.call(commands.Queue.Declare(queue=name))
    assert isinstance(answer, commands.Queue.DeclareOk)
    assert answer.queue == name


async def test_calls_cancelled_at_any_checkpoint_leave_a_link_that_works(autojump_clock: MockClock) -> None:
    async def operation() -> None:
        async with served() as link:
            async with link.open_channel() as channel:
                try:
                    await _declare(channel, "first")
                    await channel.consume("q", consumer_tag="c", on_delivery=print, on_cancel=print)
                    await channel.cancel_consumer("c")
                    await channel.flush()
                finally:
                    with trio.fail_after(5, shield=True):
                        await _declare(channel, "second")
            try:
                async with link.open_channel() as another:
                    await _declare(another, "third")
            finally:
                with trio.fail_after(5, shield=True):
                    async with link.open_channel() as last:
                        await _declare(last, "last")

    assert await cancel_at_each_checkpoint(operation) > 10


async def test_deliveries_are_handed_over_in_order_and_acknowledged(autojump_clock: MockClock) -> None:
    taken: list[Any] = []
    cancelled: list[str] = []
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        nursery.start_soon(consume, channel, taken, cancelled)
        await peer.expect(commands.Basic.Consume)
        await peer.send(commands.Basic.ConsumeOk("c"))
        for tag in (1, 2, 3):
            await peer.deliver(tag, b"z" * tag)
        await wait_all_tasks_blocked()
        assert [(event.delivery_tag, event.body) for event in taken] == [(1, b"z"), (2, b"zz"), (3, b"zzz")]
        for event in taken[:2]:
            channel.ack(event.delivery_tag)
        channel.nack(3, requeue=False)
        acked: set[int] = set()
        rejected: list[tuple[int, bool]] = []
        while acked != {1, 2} or not rejected:  # acknowledgements may be joined, and come after others
            value = (await peer.next())[1]
            if isinstance(value, commands.Basic.Ack):
                acked |= set(range(1 if value.multiple else value.delivery_tag, value.delivery_tag + 1))
            else:
                rejected.append((value.delivery_tag, value.requeue))
        assert rejected == [(3, False)]
        await peer.send(commands.Basic.Cancel("c", True))
        await wait_all_tasks_blocked()
        assert cancelled == ["c"]


async def test_delivery_that_nobody_expects_goes_back_unless_its_channel_has_ended(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, link, channel):
        await peer.deliver(1, consumer="unknown")
        returned = (await peer.next())[1]
        assert (returned.delivery_tag, returned.requeue) == (1, True)
        await peer.send(*delivery(2, b"", "unknown"), commands.Channel.Close(404, "NOT_FOUND", 0, 0))
        assert isinstance(await channel.wait_closed(), ChannelClosedError)
        assert link.lost is None
        await peer.expect(commands.Channel.CloseOk)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 100])
async def test_slices_of_any_size_are_understood(size: int, autojump_clock: MockClock) -> None:
    def pair() -> tuple[Any, Any]:
        ours, theirs = memory_stream_pair()
        receive = ours.receive_stream.receive_some

        async def slices(_: int | None = None) -> bytes:
            return bytes(await receive(size))

        ours.receive_stream.receive_some = slices
        return ours, theirs

    taken: list[Any] = []
    async with confirming(pair=pair) as (peer, _, channel), trio.open_nursery() as nursery:
        nursery.start_soon(consume, channel, taken, [])
        await peer.expect(commands.Basic.Consume)
        await peer.send(commands.Basic.ConsumeOk("c"))
        await peer.deliver(1, b"z" * 300)
        nursery.start_soon(publish, channel)
        await peer.expect_message()
        await peer.send(commands.Basic.Ack(1))
        await wait_all_tasks_blocked()
        assert [event.body for event in taken] == [b"z" * 300]


async def consume(channel: LinkChannel, taken: list[Any], cancelled: list[str]) -> None:
    await channel.consume("q", consumer_tag="c", on_delivery=taken.append, on_cancel=cancelled.append)


async def test_acks_are_written_even_if_everything_is_cancelled_around(autojump_clock: MockClock) -> None:
    acked: list[int] = []
    ours, theirs = memory_stream_pair()
    peer = Peer(theirs)

    async def broker() -> None:
        await peer.open_channel()
        acked.append((await peer.expect(commands.Basic.Ack)).delivery_tag)
        await peer.serve()

    async with joined(lambda _: peer, pair=lambda: (ours, theirs)) as (_, done), trio.open_nursery() as nursery:
        nursery.start_soon(broker)
        with trio.CancelScope() as scope:
            async with link_on(done) as link, link.open_channel() as channel:
                channel.ack(9)
                scope.cancel()
    assert acked == [9]


async def test_error_in_a_callback_is_raised_and_not_only_its_consequence(autojump_clock: MockClock) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    async def consume_badly() -> None:
        async with joined() as (peer, done), link_on(done) as link, trio.open_nursery() as nursery:
            nursery.start_soon(peer.open_channel)
            async with link.open_channel() as channel:
                nursery.start_soon(_start_consumer, peer)
                await channel.consume("q", consumer_tag="c", on_delivery=fail, on_cancel=fail)
                await channel.flush()

    with pytest.raises(BaseExceptionGroup) as caught:
        await consume_badly()
    assert caught.value.subgroup(ZeroDivisionError) is not None


async def _start_consumer(peer: Peer) -> None:
    await peer.expect(commands.Basic.Consume)
    await peer.send(commands.Basic.ConsumeOk("c"))
    await peer.deliver(1)


async def test_leaving_never_waits_for_a_silent_broker(autojump_clock: MockClock) -> None:
    async with joined() as (peer, done), trio.open_nursery() as nursery:
        nursery.start_soon(peer.open_channel)
        began = trio.current_time()
        async with link_on(done) as link, link.open_channel():
            pass
        assert trio.current_time() - began <= 4


async def test_goodbye_is_said_both_ways(autojump_clock: MockClock) -> None:
    async with linked() as (peer, link):
        await peer.send(commands.Connection.Close(320, "CONNECTION_FORCED - shutdown", 0, 0), channel=0)
        await peer.expect(commands.Connection.CloseOk)
        assert "320 CONNECTION_FORCED - shutdown" in (await link.wait_lost()).reason


async def test_leaving_does_not_wait_for_a_write_that_is_stuck(autojump_clock: MockClock) -> None:
    async with joined(pair=lockstep_stream_pair) as (peer, done), trio.open_nursery() as nursery:
        nursery.start_soon(peer.open_channel)
        began = trio.current_time()
        async with link_on(done) as link, link.open_channel() as channel:
            channel.ack(1)
            await wait_all_tasks_blocked()
        assert trio.current_time() - began <= 4


async def test_no_channel_is_opened_beyond_the_last_number(autojump_clock: MockClock) -> None:
    async with linked(settings=attrs.evolve(SETTINGS, channel_max=1)) as (peer, link), trio.open_nursery() as nursery:
        nursery.start_soon(peer.open_channel)
        async with link.open_channel():
            with trio.move_on_after(60) as waited:
                async with link.open_channel():
                    pass
            nursery.start_soon(peer.serve)
        nursery.cancel_scope.cancel()

    assert waited.cancelled_caught


async def test_leaving_says_goodbye(autojump_clock: MockClock) -> None:
    async with joined() as (peer, done), trio.open_nursery() as nursery, link_on(done):
        nursery.start_soon(_expect_goodbye, peer)


async def _expect_goodbye(peer: Peer) -> None:
    await peer.expect(commands.Connection.Close)
    await peer.send(commands.Connection.CloseOk(), channel=0)


async def test_error_of_the_body_is_raised_as_it_is(autojump_clock: MockClock) -> None:
    with pytest.raises(ZeroDivisionError):
        async with joined() as (_, done), link_on(done):
            raise ZeroDivisionError


async def test_violation_by_the_peer_ends_the_link_with_a_reason(autojump_clock: MockClock) -> None:
    async with linked() as (peer, link):
        await peer.stream.send_all(b"\x01\x00\x00\x00\x00\x00\x04nonsense")
        assert "peer:5672" in str(await link.wait_lost())
