"""The connection against a scripted broker, in virtual time."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
from kernel_amqp._errors import ChannelClosedError, LinkLostError, RefusedError, ReturnedError
from kernel_amqp._link import Link, link_on
from kernel_amqp._link_channel import LinkChannel
from kernel_amqp._writer import MAX_UNSENT
from kernel_amqp.core import Properties
from pamqp import body, commands, header
from pamqp.heartbeat import Heartbeat
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from kernel.testing import cancel_at_each_checkpoint

from .peer import SETTINGS, Peer, joined, linked, served

Connected = tuple[Peer, Link, LinkChannel]


def beating(stream: Any) -> Peer:
    return Peer(stream, heartbeat=10)


BEATING = attrs.evolve(SETTINGS, heartbeat=10.0)


async def publish(channel: LinkChannel, key: str = "q", data: bytes = b"x", **others: Any) -> None:
    given = {"exchange": "", "routing_key": key, "properties": Properties(), "body": data, **others}
    await channel.publish(**given)


class Caught:
    """What a publish raised, or nothing."""

    def __init__(self) -> None:
        self.error: Any = None
        self.done = trio.Event()

    async def run(self, operation: Callable[..., Awaitable[object]], *args: Any) -> None:
        try:
            await operation(*args)
        except Exception as error:  # noqa: BLE001
            self.error = error
        self.done.set()


@asynccontextmanager
async def confirming(**others: Any) -> AsyncGenerator[Connected]:
    """A link with one channel in confirm mode."""
    async with linked(**others) as (peer, link):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.select_confirms)
            channel_manager = link.open_channel()
            channel = await channel_manager.__aenter__()
            await channel.confirm_select()
        try:
            yield peer, link, channel
        finally:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.serve)
                await channel_manager.__aexit__(None, None, None)
                nursery.cancel_scope.cancel()


# Confirms


async def test_publish_returns_when_it_is_confirmed(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel)
        method, _, data = await peer.expect_message()
        assert (method.routing_key, data) == ("q", b"x")
        await wait_all_tasks_blocked()
        assert not caught.done.is_set()
        await peer.send(commands.Basic.Ack(1))
        await caught.done.wait()
        assert caught.error is None


async def test_one_ack_confirms_many_and_a_nack_refuses_one(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        all_caught = [Caught() for _ in range(4)]
        for caught in all_caught:
            nursery.start_soon(caught.run, publish, channel)
            await peer.expect_message()  # so that they are in order
        await peer.send(commands.Basic.Ack(2, True), commands.Basic.Nack(4), commands.Basic.Ack(3))
        for caught in all_caught:
            await caught.done.wait()
        assert [type(caught.error) for caught in all_caught] == [type(None)] * 3 + [RefusedError]


async def test_returned_message_is_told_to_its_own_publisher(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        all_caught = {name: Caught() for name in ("a", "b", "c")}
        for name, caught in all_caught.items():
            nursery.start_soon(caught.run, _mandatory, channel, name)
            await peer.expect_message()
        returned = (
            commands.Basic.Return(312, "NO_ROUTE", "", "q"),
            header.ContentHeader(body_size=1, properties=commands.Basic.Properties(message_id="b")),
            body.ContentBody(b"x"),
        )
        await peer.send(*returned, commands.Basic.Ack(3, True))
        for caught in all_caught.values():
            await caught.done.wait()
        assert all_caught["a"].error is all_caught["c"].error is None
        error = all_caught["b"].error
        assert isinstance(error, ReturnedError)
        assert (error.code, error.routing_key) == (312, "q")


async def _mandatory(channel: LinkChannel, message_id: str | None) -> None:
    await publish(channel, mandatory=True, properties=Properties(message_id=message_id))


async def test_return_of_a_cancelled_publish_is_not_blamed_on_the_next_like_it(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            await _mandatory(channel, None)
        caught = Caught()
        nursery.start_soon(caught.run, _mandatory, channel, None)
        for _ in range(2):
            await peer.expect_message()
        head = header.ContentHeader(body_size=0, properties=commands.Basic.Properties())
        await peer.send(commands.Basic.Return(312, "NO_ROUTE", "", "q"), head, commands.Basic.Ack(2, True))
        await caught.done.wait()
        assert caught.error is None


async def test_cancelled_publish_leaves_the_stream_whole_and_the_next_one_its_own_confirm(
    autojump_clock: MockClock,
) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            await publish(channel, "not-sent")
        with trio.move_on_after(1):
            await publish(channel, "cancelled", b"y" * 300_000)
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel, "next")
        assert (await peer.expect_message())[0].routing_key == "cancelled"
        assert (await peer.expect_message())[0].routing_key == "next"
        await peer.send(commands.Basic.Ack(1))
        await wait_all_tasks_blocked()
        assert not caught.done.is_set()
        await peer.send(commands.Basic.Ack(2))
        await caught.done.wait()
        assert caught.error is None


async def test_publish_cancelled_at_any_checkpoint_leaves_a_link_that_works(autojump_clock: MockClock) -> None:
    async def operation() -> None:
        async with served() as link, link.open_channel() as channel:
            await channel.confirm_select()
            try:
                await publish(channel, "first", b"y" * 200_000)
            finally:
                with trio.fail_after(5, shield=True):
                    await publish(channel, "second")

    assert await cancel_at_each_checkpoint(operation) > 5


@pytest.mark.parametrize("seed", range(5))
async def test_of_publishers_that_are_cancelled_at_random_every_other_is_confirmed(
    seed: int, autojump_clock: MockClock
) -> None:
    chance = random.Random(seed)
    confirmed: set[int] = set()
    cancelled: set[int] = set()

    async def publisher(channel: LinkChannel, number: int) -> None:
        for attempt in range(10):
            with trio.move_on_after(chance.choice([0.0, 0.001, 0.002, 9.0])) as scope:
                await publish(channel, f"{number}", bytes(chance.randrange(3000)))
                confirmed.add(number * 10 + attempt)
            if scope.cancelled_caught:
                cancelled.add(number * 10 + attempt)
            await trio.sleep(chance.random() / 1000)

    async with served() as link:
        async with link.open_channel() as channel:
            await channel.confirm_select()
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(publisher, channel, number)
        assert link.lost is None
    assert len(confirmed) + len(cancelled) == 500
    assert not confirmed & cancelled
    assert len(confirmed) > 100 < len(cancelled)


# What is lost with the link


async def test_publish_that_was_sent_and_not_confirmed_is_written_when_the_link_is_lost(
    autojump_clock: MockClock,
) -> None:
    async with confirming() as (peer, link, channel), trio.open_nursery() as nursery:
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel)
        await peer.expect_message()
        await trio.aclose_forcefully(peer.stream)
        await caught.done.wait()
        assert isinstance(caught.error, LinkLostError)
        assert caught.error.written
        assert "peer:5672" in str(caught.error)
        assert isinstance(link.lost, LinkLostError)
        with pytest.raises(LinkLostError) as late:
            await publish(channel)
        assert not late.value.written


async def test_publish_that_waited_behind_a_stuck_write_is_not_written(autojump_clock: MockClock) -> None:
    async with confirming(pair=lockstep_stream_pair, peer_of=beating, settings=BEATING) as connected:
        peer, link, channel = connected
        began = trio.current_time()
        sent, waiting = Caught(), Caught()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_heartbeats_of, peer)
            nursery.start_soon(sent.run, publish, channel)
            await wait_all_tasks_blocked()
            nursery.start_soon(waiting.run, publish, channel)
            lost = await link.wait_lost()
            await waiting.done.wait()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began <= 20
        assert "taken nothing" in lost.reason
        assert sent.error.written
        assert not waiting.error.written


async def _heartbeats_of(peer: Peer) -> None:
    while True:
        await trio.sleep(5)
        await peer.send(Heartbeat(), channel=0)


async def test_large_publish_is_written_as_soon_as_a_part_of_it_is(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel, "q", b"y" * 500_000)
        await peer.next()
        await trio.aclose_forcefully(peer.stream)
        await caught.done.wait()
        assert caught.error.written


# Back-pressure


async def test_publishes_wait_while_the_broker_is_blocked_and_nothing_of_them_is_written(
    autojump_clock: MockClock,
) -> None:
    async with confirming() as (peer, link, channel), trio.open_nursery() as nursery:
        await peer.send(commands.Connection.Blocked("low on memory"), channel=0)
        await wait_all_tasks_blocked()
        assert link.blocked == "low on memory"
        with trio.move_on_after(3) as scope:
            await publish(channel, "cancelled")
        assert scope.cancelled_caught
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel, "next")
        channel.ack(7)
        assert (await peer.expect(commands.Basic.Ack)).delivery_tag == 7
        await peer.send(commands.Connection.Unblocked(), channel=0)
        assert (await peer.expect_message())[0].routing_key == "next"
        await peer.send(commands.Basic.Ack(1))
        await caught.done.wait()
        assert caught.error is None
        assert link.blocked == ""


async def test_publish_that_waits_for_a_blocked_broker_is_not_written_when_the_link_is_lost(
    autojump_clock: MockClock,
) -> None:
    async with confirming() as (peer, link, channel), trio.open_nursery() as nursery:
        await peer.send(commands.Connection.Blocked("low on memory"), channel=0)
        await wait_all_tasks_blocked()
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel)
        await wait_all_tasks_blocked()
        await trio.aclose_forcefully(peer.stream)
        await caught.done.wait()
        assert isinstance(caught.error, LinkLostError)
        assert not caught.error.written
        assert link.lost is not None


async def test_publish_that_waits_for_a_blocked_broker_hears_of_its_channel(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, link, channel), trio.open_nursery() as nursery:
        await peer.send(commands.Connection.Blocked("low on memory"), channel=0)
        await wait_all_tasks_blocked()
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel)
        await wait_all_tasks_blocked()
        await peer.send(commands.Channel.Close(404, "NOT_FOUND", 60, 40))
        await caught.done.wait()
        assert isinstance(caught.error, ChannelClosedError)
        assert not caught.error.written
        assert link.lost is None


async def test_unsent_bytes_are_bounded_and_publishers_take_turns(autojump_clock: MockClock) -> None:
    size, count = 100_000, 40
    arrived: list[str] = []
    async with confirming(pair=lockstep_stream_pair) as (peer, _, channel), trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(publish, channel, f"{number}", b"y" * size)
            await wait_all_tasks_blocked()
        waiting = channel._writer._publishers.statistics().tasks_waiting
        unsent = channel._writer._unsent
        assert unsent <= MAX_UNSENT + size + 1000
        assert waiting >= count - unsent // size - 1
        for number in range(count):
            arrived.append((await peer.expect_message())[0].routing_key)
            await peer.send(commands.Basic.Ack(number + 1))
    assert arrived == [f"{number}" for number in range(count)]


async def test_publisher_that_gives_up_its_turn_holds_nobody_up(autojump_clock: MockClock) -> None:
    async with confirming(pair=lockstep_stream_pair) as (peer, _, channel), trio.open_nursery() as nursery:
        impatient = trio.CancelScope()

        async def give_up() -> None:
            with impatient:
                await publish(channel, "given up", b"y" * 900_000)

        for _ in range(3):
            nursery.start_soon(publish, channel, "taken", b"y" * 900_000)
            await wait_all_tasks_blocked()
        nursery.start_soon(give_up)
        await wait_all_tasks_blocked()
        nursery.start_soon(publish, channel, "taken", b"y" * 900_000)
        await wait_all_tasks_blocked()
        impatient.cancel()
        for number in range(4):
            assert (await peer.expect_message())[0].routing_key == "taken"
            await peer.send(commands.Basic.Ack(number + 1))


async def test_many_small_writes_become_one_send(autojump_clock: MockClock) -> None:
    sends: list[int] = []

    def pair() -> tuple[Any, Any]:
        ours, theirs = memory_stream_pair()
        send = ours.send_stream.send_all

        async def counted(data: bytes) -> None:
            sends.append(len(data))
            await send(data)

        ours.send_stream.send_all = counted
        return ours, theirs

    async with confirming(pair=pair) as (peer, _, channel), trio.open_nursery() as nursery:
        sends.clear()
        for _ in range(100):
            nursery.start_soon(publish, channel)
        await wait_all_tasks_blocked()
        assert len(sends) <= 2
        for _ in range(100):
            await peer.expect_message()
        await peer.send(commands.Basic.Ack(100, True))


# Channels


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


# Consumers


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
        assert [(await peer.expect(commands.Basic.Ack)).delivery_tag for _ in range(2)] == [1, 2]
        rejected = (await peer.next())[1]
        assert (rejected.delivery_tag, rejected.requeue) == (3, False)
        await peer.send(commands.Basic.Cancel("c", True))
        await wait_all_tasks_blocked()
        assert cancelled == ["c"]


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


# The end


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


# Heartbeats


async def test_silent_peer_is_found_within_two_heartbeats(autojump_clock: MockClock) -> None:
    async with linked(beating, BEATING) as (_, link):
        began = trio.current_time()
        lost = await link.wait_lost()
        assert 10 < trio.current_time() - began <= 20
        assert "nothing was heard for 20 s" in lost.reason


async def test_peer_that_beats_is_kept_and_hears_us(autojump_clock: MockClock) -> None:
    beats: list[float] = [0.0]

    async def hear(peer: Peer) -> None:
        while True:
            await peer.expect(Heartbeat)
            beats.append(trio.current_time())

    async with linked(beating, BEATING) as (peer, link), trio.open_nursery() as nursery:
        beats[0] = trio.current_time()
        nursery.start_soon(hear, peer)
        nursery.start_soon(_heartbeats_of, peer)
        await trio.sleep(3600)
        assert link.lost is None
        nursery.cancel_scope.cancel()
    gaps = [after - before for before, after in pairwise(beats)]
    assert len(gaps) > 600
    assert max(gaps) <= 5.001


async def test_loop_that_was_held_up_does_not_blame_the_peer(autojump_clock: MockClock) -> None:
    async with linked(beating, BEATING) as (peer, link):
        await wait_all_tasks_blocked()
        await peer.send(Heartbeat(), channel=0)  # it waits to be read when 30 s have passed at once
        _jump(30)
        await trio.sleep(1)
        assert link.lost is None


def _jump(seconds: float) -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    clock.jump(seconds)


async def test_no_heartbeat_no_watch(autojump_clock: MockClock) -> None:
    async with linked() as (_, link):
        await trio.sleep(80_000)
        assert link.lost is None
