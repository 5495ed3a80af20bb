from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import pytest
from kernel_amqp import AmqpBroker, AmqpConfig, AmqpDriver, AmqpOptions

from kernel import Envelope
from kernel.abc import Broker, Capability, Delivery, Subscription, Topology
from kernel.testing import check_broker
from kernel.testing._broker_deliveries import DELIVERIES
from kernel.testing._broker_keys import KEYS
from kernel.testing._broker_nowait import NOWAIT
from kernel.testing._broker_once import ONCE
from kernel.testing._broker_queues import QUEUES
from kernel.testing._check_broker import _check

from .bench import HERE, open_amqp
from .rabbit43 import rabbit_43

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rabbitmq")]

QUORUM = AmqpOptions(type="quorum")
CANNOT_BE_QUORUM = {
    "a queue that exists with other properties is a conflict",  # it is told by `durable`, and all of them are
    "a full queue refuses",  # some messages later: the length of a quorum queue is a bound that it reaches softly
    "Return gives the message back at once, its attempt not counted",  # and others may come before it
    "Return that does not wait gives the message back at once, its attempt not counted",
}


@attrs.define(eq=False)
class OnQuorumQueues(Broker):
    """Declares every queue as a quorum queue, except for exclusive ones."""

    inner: AmqpBroker

    async def declare(self, topology: Topology) -> None:
        queues = [
            queue if queue.exclusive else attrs.evolve(queue, durable=True, options=QUORUM) for queue in topology.queues
        ]
        await self.inner.declare(attrs.evolve(topology, queues=queues))

    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return self.inner.subscribe(subscription)

    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        await self.inner.send(envelope, exchange=exchange, mandatory=mandatory)


@asynccontextmanager
async def open_on_quorum_queues() -> AsyncGenerator[Broker]:
    async with open_amqp() as broker:
        yield OnQuorumQueues(broker)


@asynccontextmanager
async def open_at_43() -> AsyncGenerator[AmqpBroker]:
    async with rabbit_43(HERE) as rabbit:
        config = AmqpConfig(hosts=(f"127.0.0.1:{rabbit.port}",), backoff_initial=0.01, backoff_max=0.05)
        async with open_amqp(config) as broker:
            yield broker


async def test_it_keeps_them_on_durable_queues_where_the_broker_takes_no_others() -> None:
    prioritised = AmqpOptions(max_priority=9)

    await check_broker(open_at_43, capabilities=AmqpDriver.capabilities, durable=True, prioritised=prioritised)


async def test_transient_queues_are_refused_there_and_that_is_said() -> None:
    with pytest.raises(AssertionError, match=r"541 .*`durable = false` is for exclusive queues alone"):
        await check_broker(open_at_43, capabilities=AmqpDriver.capabilities)


async def test_amqp_keeps_every_promise_of_a_broker() -> None:
    await check_broker(open_amqp, capabilities=AmqpDriver.capabilities, prioritised=AmqpOptions(max_priority=9))


@pytest.mark.parametrize(
    "promise",
    [
        promise
        for promise in (*DELIVERIES, *QUEUES, *NOWAIT, *KEYS, *ONCE)
        if promise.needs <= AmqpDriver.capabilities - {Capability.PRIORITY} and promise.text not in CANNOT_BE_QUORUM
    ],
    ids=lambda promise: promise.text,
)
async def test_quorum_queues_keep_it_as_well(promise: object) -> None:
    await _check(promise, open_on_quorum_queues)
