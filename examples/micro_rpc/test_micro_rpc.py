"""The calls over a real RabbitMQ: by its own client, by the timer, and as micro-framework puts them on the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from kernel import Envelope
from kernel.abc import Binding, Exchange, Queue, Subscription, Topology
from kernel.errors import RemoteError, UnroutableError

MANIFEST = Path(__file__).with_name("kernel.toml")
TASK = {
    "target": "amqp_rpc_task",
    "args": ["arg1", "arg2", "args"],
    "kwargs": ["kwargs"],
    "docstring": "Return what it was called with, as text.",
}
METHOD = {"target": "Class.class_method", "args": ["payload"], "kwargs": [], "docstring": "Add up."}
pytestmark = pytest.mark.slow


@attrs.frozen
class Running:
    service: Any
    name: str
    exchange: str


@asynccontextmanager
async def running(open_example: Any, own_name: Any, interval: float = 60.0) -> AsyncGenerator[Running]:
    name, exchange = own_name("micro"), own_name("ufw-rpc")
    timer = {"plugin": "timer", "interval": interval}
    environ, replace = {"SERVICE": name, "EXCHANGE": exchange}, {"dispatchers.every_ten_seconds": timer}
    async with open_example(MANIFEST, environ, replace=replace) as service:
        yield Running(service, name, exchange)


async def test_functions_and_methods_are_called_by_their_names(open_example: Any, own_name: Any) -> None:
    async with running(open_example, own_name) as here:
        remote = here.service.resource("driver/rpc")[here.name]
        told = await remote["__list_targets__"]()
        of_function = await remote.amqp_rpc_task("argument1", "argument2", "additional_arg", and_kwargs="too")
        of_method = await remote.Class.class_method({"a": 1, "b": 2})

    assert told == [TASK, METHOD]
    assert of_function == "argument1 argument2 ('additional_arg',) {'and_kwargs': 'too'}"
    assert of_method == 3


async def test_the_caller_calls_when_the_timer_ticks(
    open_example: Any, own_name: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="rpc_tasks")
    async with running(open_example, own_name, interval=0.2) as here:
        await here.service.wait_settled(matching=lambda event: event.component == "dispatcher/every_ten_seconds")

    texts = [record.getMessage() for record in caplog.records if record.name == "rpc_tasks"]
    assert texts[0].startswith("there are [{'target': 'amqp_rpc_task'")
    assert {text for text in texts if "answer" in text} >= {
        f"the answer is {first} {second} ('additional_arg',) {{'and_kwargs': 'too'}}"
        for first, second in (("argument1", "argument2"), ("argument3", "argument4"))
    }


async def test_a_wrong_call_is_told_and_a_service_that_is_not_there_is_known_at_once(
    open_example: Any, own_name: Any
) -> None:
    async with running(open_example, own_name) as here:
        rpc = here.service.resource("driver/rpc")
        with pytest.raises(RemoteError, match=r"TypeError: .*arg2"):
            await rpc[here.name].amqp_rpc_task("argument1")
        with pytest.raises(RemoteError, match="RPCTargetDoesNotExist: other does not exist"):
            await rpc[here.name].other()
        with pytest.raises(UnroutableError):
            await rpc.nobody.amqp_rpc_task("argument1")


async def test_a_caller_of_micro_framework_gets_json_in_json_from_the_exchange(
    open_example: Any, own_name: Any
) -> None:
    """What its client sends: a request by the name of the target, and a queue of its own bound for the answer."""
    replies = own_name("ufw-reply")
    async with running(open_example, own_name) as here:
        broker = here.service.resource("driver/rabbit")
        topology = Topology(
            exchanges=[Exchange(name=here.exchange)],
            queues=[Queue(name=replies, exclusive=True, durable=False)],
            bindings=[Binding(queue=replies, exchange=here.exchange, pattern=replies)],
        )
        await broker.declare(topology)
        request = Envelope(
            subject=f"{here.name}.Class.class_method",
            body=b'{"command": "Class.class_method", "command_args": [{"a": 1}], "command_kwargs": {}}',
            content_type="application/json",
            reply_to=replies,
            correlation_id="c-1",
        )
        await broker.send(request, exchange=here.exchange, mandatory=True)
        with trio.fail_after(10):
            async with broker.subscribe(Subscription(queue=replies, prefetch=1)) as deliveries:
                reply = (await anext(deliveries)).envelope

    assert reply.correlation_id == "c-1"
    assert json.loads(json.loads(reply.body)) == {"data": 1, "exception": None}
