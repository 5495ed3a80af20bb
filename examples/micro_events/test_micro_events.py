"""The event listeners over a real RabbitMQ: back-off with its callback, the filter, and the chain of events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from kernel import Ack, Envelope
from kernel.abc import Binding, Delivery, Exchange, Queue, Subscription, Topology

MANIFEST = Path(__file__).with_name("kernel.toml")
FAST = {"attempts": 3, "backoff_initial": 0.05, "backoff_factor": 1.0}
pytestmark = pytest.mark.slow


@asynccontextmanager
async def running(open_example: Any, own_name: Any) -> AsyncGenerator[tuple[Any, AsyncIterator[Delivery]]]:
    """Run the example, with retries that follow fast; yields it, and all that it tells of."""
    names = {"SERVICE": own_name("micro"), "SOURCE": own_name("source")}
    test = {
        "use": "event_tasks:test",
        "dispatcher": "context_1",
        "failure_worker": "test_failure",
        "retry": FAST,
    }
    told, exchange = own_name("told"), f"{names['SERVICE']}.events"
    topology = Topology(
        exchanges=[Exchange(name=exchange)],
        queues=[Queue(name=told, exclusive=True, durable=False)],
        bindings=[Binding(queue=told, exchange=exchange, pattern="#")],
    )
    async with open_example(MANIFEST, names, replace={"workers.test": test}, expected=ValueError) as service:
        broker = service.resource("driver/rabbit")
        await broker.declare(topology)
        async with broker.subscribe(Subscription(queue=told, prefetch=10)) as events:
            yield Source(service, broker, f"{names['SOURCE']}.events"), events


class Source:
    """The service whose events the example listens to."""

    def __init__(self, service: Any, broker: Any, exchange: str) -> None:
        self.service, self.broker, self.exchange = service, broker, exchange

    async def tell(self, payload: object) -> None:
        body = json.dumps(payload).encode()
        envelope = Envelope(subject="my_routing_key", body=body, content_type="application/json")
        await self.broker.send(envelope, exchange=self.exchange, mandatory=True)


async def next_event(events: AsyncIterator[Delivery]) -> Envelope:
    with trio.fail_after(10):
        delivery = await anext(events)
        await delivery.settle(Ack())
    return delivery.envelope


async def test_an_event_leads_to_others_and_the_chain_of_calls_is_told(open_example: Any, own_name: Any) -> None:
    payload = {"some_key": "some_value"}
    async with running(open_example, own_name) as (source, events):
        await source.tell(payload)
        first, second = await next_event(events), await next_event(events)

    assert (first.subject, json.loads(first.body)) == ("event_name", payload)
    assert (second.subject, json.loads(second.body)) == ("other_name", payload)
    stacks: list[Any] = [envelope.headers["nameko.call_id_stack"] for envelope in (first, second)]
    assert [len(stack) for stack in stacks] == [1, 2]
    assert stacks[1][0] == stacks[0][0]
    assert "my_routing_key" in stacks[0][0]


@pytest.mark.parametrize(("value", "seen"), [("some_value", 1), ("another", 0)])
async def test_the_filter_keeps_events_from_one_worker_only(
    open_example: Any, own_name: Any, caplog: pytest.LogCaptureFixture, value: str, seen: int
) -> None:
    caplog.set_level("INFO", logger="event_tasks")
    async with running(open_example, own_name) as (source, events):
        await source.tell({"some_key": value})
        await next_event(events)
        await next_event(events)
        await source.service.wait_settled(2)

    assert len([record for record in caplog.records if record.name == "event_tasks"]) == seen


async def test_after_the_last_attempt_the_callback_is_called(open_example: Any, own_name: Any) -> None:
    async with running(open_example, own_name) as (source, events):
        await source.tell({"is_broken": True})
        event = await next_event(events)

    assert event.subject == "given_up"
    assert json.loads(event.body) == {
        "payload": {"is_broken": True},
        "reason": "ValueError: cannot be done, tried 3 times (attempt 3 of 3)",
    }
