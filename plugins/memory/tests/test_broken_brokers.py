"""The check itself: a broker that breaks one promise must fail, by the name of that promise."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import attrs
import pytest
import trio
from kernel_memory import MemoryDriver

from kernel import Ack, DeadLetter, Envelope, Outcome, Retry, Return
from kernel.abc import Delivery, Queue, Subscription, Topology
from kernel.errors import ConflictError, EncodeError, QueueFullError, SettledError
from kernel.testing import check_broker

from .passing import Passed, Passing, open_passing


class SettlesTwice(Passed):
    async def settle(self, outcome: Outcome) -> None:
        try:
            await super().settle(outcome)
        except SettledError:
            await trio.lowlevel.checkpoint()


class ForgetsAck(Passed):
    async def settle(self, outcome: Outcome) -> None:
        await super().settle(Return() if outcome == Ack() and self.envelope.body == b"first" else outcome)


class CountsReturns(Passed):
    async def settle(self, outcome: Outcome) -> None:
        await super().settle(Retry() if outcome == Return() else outcome)


class DoesNotCount(Passed):
    @property
    def attempt(self) -> int:
        return 1


class RetriesAtOnce(Passed):
    async def settle(self, outcome: Outcome) -> None:
        await super().settle(Retry() if isinstance(outcome, Retry) else outcome)


class ForgetsReason(Passed):
    async def settle(self, outcome: Outcome) -> None:
        await super().settle(DeadLetter("") if isinstance(outcome, DeadLetter) else outcome)


class DropsReplies(Passed):
    async def settle(self, outcome: Outcome) -> None:
        await super().settle(Ack() if isinstance(outcome, Ack) else outcome)


class LosesHeaders(Passed):
    @property
    def envelope(self) -> Envelope:
        return attrs.evolve(super().envelope, headers={})


class SendsTwice(Passing):
    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        await super().send(envelope, exchange=exchange, mandatory=mandatory)
        await super().send(envelope, exchange=exchange, mandatory=mandatory)


class DropsSilently(Passing):
    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        await super().send(envelope, exchange=exchange, mandatory=False)


class HidesOverflow(Passing):
    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        try:
            await super().send(envelope, exchange=exchange, mandatory=mandatory)
        except QueueFullError:
            await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class SpillsOver(Passing):
    """Gives those that have room what another queue has refused."""

    bound: list[str] = attrs.field(factory=list[str], init=False)

    async def declare(self, topology: Topology) -> None:
        self.bound += [binding.queue for binding in topology.bindings]
        await super().declare(topology)

    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        try:
            await super().send(envelope, exchange=exchange, mandatory=mandatory)
        except QueueFullError:
            for queue in self.bound if exchange else ():
                with suppress(QueueFullError):
                    await super().send(attrs.evolve(envelope, subject=queue), exchange="")
            raise


class LosesWhenCancelled(Passing):
    """Sends in two steps: a sender that is cancelled in between has sent, and sends again."""

    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        await super().send(envelope, exchange=exchange, mandatory=mandatory)
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await super().send(envelope, exchange=exchange, mandatory=mandatory)
            raise


class TakesAhead(Passing):
    """Takes a delivery before it is asked for one, and keeps it when it is cancelled."""

    async def passed(self, deliveries: AsyncIterator[Delivery]) -> AsyncGenerator[Delivery]:
        async for delivery in deliveries:
            await trio.lowlevel.checkpoint()
            yield self.delivery(delivery)


class IgnoresPrefetch(Passing):
    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return super().subscribe(attrs.evolve(subscription, prefetch=subscription.prefetch + 1))


class Hoards(Passing):
    """Takes all that there is."""

    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        is_told_by_others = subscription.prefetch < 4  # who shares a queue, and how much is unsettled
        most = subscription.prefetch if is_told_by_others else 1000
        return super().subscribe(attrs.evolve(subscription, prefetch=most))

    async def passed(self, deliveries: AsyncIterator[Delivery]) -> AsyncGenerator[Delivery]:
        async for delivery in deliveries:
            ahead = [delivery]
            with trio.move_on_after(0.01):
                while True:
                    ahead.append(await anext(deliveries))
            for one in ahead:
                yield self.delivery(one)


class IgnoresReplyExchange(Passing):
    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return super().subscribe(attrs.evolve(subscription, reply_exchange=""))


class HidesConflicts(Passing):
    async def declare(self, topology: Topology) -> None:
        try:
            await super().declare(topology)
        except ConflictError:
            await trio.lowlevel.checkpoint()


class ForgetsProperties(Passing):
    """Declares queues without some of what was asked for."""

    changes: dict[str, Any]

    async def declare(self, topology: Topology) -> None:
        queues: list[Queue] = [attrs.evolve(queue, **self.changes) for queue in topology.queues]
        await super().declare(attrs.evolve(topology, queues=queues))


class ForgetsTtl(ForgetsProperties):
    changes = {"ttl": None}


class RefusesInstead(ForgetsProperties):
    changes = {"overflow": "refuse"}


class ForgetsDead(ForgetsProperties):
    changes = {"dead_letters": ""}


class ForgetsExclusive(ForgetsProperties):
    changes = {"exclusive": False}


class ForgetsKeys(ForgetsProperties):
    changes = {"partition_by": ""}


class ForgetsWindow(ForgetsProperties):
    changes = {"deduplication_window": 0.0}


class NeverForgetsIds(Passing):
    async def declare(self, topology: Topology) -> None:
        queues = [
            attrs.evolve(queue, deduplication_window=queue.deduplication_window * 100) for queue in topology.queues
        ]
        await super().declare(attrs.evolve(topology, queues=queues))


class ForgetsHistory(Passed):
    @property
    def envelope(self) -> Envelope:
        headers = {key: value for key, value in super().envelope.headers.items() if key != "kernel-death-history"}
        return attrs.evolve(super().envelope, headers=headers)


class ChangesEnvelopes(Passing):
    changes: dict[str, Any]

    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        changed = attrs.evolve(envelope, **self.changes)
        await super().send(changed, exchange=exchange, mandatory=mandatory)


class IgnoresPriority(ChangesEnvelopes):
    changes = {"priority": 0}


class IgnoresDelay(ChangesEnvelopes):
    changes = {"delay": 0.0}


class ForgetsDeadline(ChangesEnvelopes):
    changes = {"deadline": math.inf}


class PeekTakes(Passing):
    async def peek(self, queue: str, *, limit: int = 100) -> Sequence[Delivery]:
        seen = await super().peek(queue, limit=limit)
        if seen:
            async with self.inner.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
                await (await anext(deliveries)).settle(Ack())
        return seen


class TakesAnything(Passing):
    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        with suppress(EncodeError):
            await super().send(envelope, exchange=exchange, mandatory=mandatory)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (SettlesTwice, "a delivery is settled once"),
        (ForgetsAck, "Ack removes the message"),
        (CountsReturns, "Return gives the message back at once, its attempt not counted"),
        (DoesNotCount, "Retry delivers again, attempt + 1"),
        (RetriesAtOnce, "Retry waits, and the queue goes on meanwhile"),
        (ForgetsReason, "a dead letter carries bytes, headers and the reason"),
        (DropsReplies, "a reply is sent before settle returns"),
        (IgnoresReplyExchange, "a reply goes through the exchange that the subscription names"),
        (LosesHeaders, "an envelope arrives as it was sent"),
        (SendsTwice, "a message may be empty"),
        (DropsSilently, "an exclusive queue goes away with its consumer"),
        (HidesOverflow, "a full queue refuses"),
        (SpillsOver, "what one full queue refuses no other queue gets"),
        (LosesWhenCancelled, "a cancelled send sends once or not at all"),
        (TakesAhead, "a cancelled wait for a delivery loses nothing"),
        (IgnoresPrefetch, "not more than `prefetch` deliveries are unsettled"),
        (Hoards, "what one consumer cannot take yet goes to others"),
        (HidesConflicts, "a queue that exists with other properties is a conflict"),
        (ForgetsTtl, "a message older than `ttl` is not delivered"),
        (RefusesInstead, "a full queue drops its oldest"),
        (ForgetsDead, "a dead letter carries bytes, headers and the reason"),
        (ForgetsExclusive, "an exclusive queue has one consumer"),
        (IgnoresPriority, "the highest priority comes first"),
        (IgnoresDelay, "a delayed message waits"),
        (ForgetsDeadline, "an envelope arrives as it was sent"),
        (ForgetsKeys, "of one key one message at a time is taken, in the order of sending"),
        (ForgetsWindow, "a message that is sent twice within the window is taken once"),
        (NeverForgetsIds, "after the window an id is taken again"),
        (ForgetsHistory, "a dead letter that dies again tells of both deaths"),
        (PeekTakes, "peek takes nothing"),
        (TakesAnything, "an id that is no text, and a header that JSON cannot say, are refused"),
    ],
)
async def test_a_broken_promise_is_named(
    broken: type[Any], promise: str, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(AssertionError, match=f"^{re.escape(promise)}: "):
        await check_broker(lambda: open_passing(broken), capabilities=MemoryDriver.capabilities)


async def test_a_broker_that_only_passes_on_keeps_every_promise(autojump_clock: trio.testing.MockClock) -> None:
    await check_broker(lambda: open_passing(Passing), capabilities=MemoryDriver.capabilities)


async def test_a_promise_is_skipped_where_the_capability_is_missing(autojump_clock: trio.testing.MockClock) -> None:
    await check_broker(lambda: open_passing(IgnoresDelay), capabilities=frozenset())
