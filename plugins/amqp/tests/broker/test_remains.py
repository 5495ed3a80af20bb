"""What is said of queues and bindings that a reload leaves on a broker."""

from __future__ import annotations

from kernel_amqp import AmqpConfig
from kernel_amqp._driver import AmqpDriver

from kernel.abc import Binding, Queue, Topology


def test_what_stays_on_the_broker_is_told_by_its_name_there_with_what_ends_it() -> None:
    bound = [Binding(queue=name, exchange="events", pattern="a.*") for name in ("gone now", "kept")]
    topology = Topology(queues=[Queue(name="gone now")], bindings=bound)

    queue, binding = AmqpDriver.remains(AmqpConfig(prefix="try."), topology)

    assert queue.startswith('queue "try.gone now" stays, bound as it was')
    assert queue.endswith("`kernel rabbitmq delete 'gone now'` ends it")
    assert binding == 'queue "try.kept" stays bound to exchange "try.events" by "a.*": unbind it at the broker'
