"""What is told of a handler before and after its call, in the context in which it runs; and what goes with messages."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import pytest
import trio

from kernel import (
    NO_HEADERS,
    Envelope,
    EventHub,
    HandlerCalled,
    HandlerDone,
    Sending,
    Sent,
    carried,
    carry,
    handles,
)
from kernel.testing import RunningService, open_kernel

SPAN: ContextVar[str] = ContextVar("span", default="none")
seen: list[object] = []


class Worker:
    @handles("fine")
    async def fine(self, payload: object, envelope: Envelope) -> None:
        await trio.sleep(1)
        seen.append((SPAN.get(), dict(envelope.headers).get("traceparent")))

    @handles("raises")
    async def raises(self, payload: object) -> None:
        raise ValueError("broken")

    @handles("hangs")
    async def hangs(self, payload: object) -> None:
        await trio.sleep_forever()

    @handles("asked")
    async def asked(self, payload: object) -> str:
        return SPAN.get()


class Batches:
    @handles("#")
    async def many(self, payloads: list[object]) -> None:
        seen.append(SPAN.get())


def manifest(use: str = "Worker", **dispatcher: Any) -> dict[str, Any]:
    common = {"driver": "queue", "protocol": "json"}
    return {
        "kernel": {"name": "test"},
        "drivers": {
            "queue": {"plugin": "memory"},
            "events": {"plugin": "publisher", **common},
            "rpc": {"plugin": "rpc_client", **common},
        },
        "dispatchers": {"work": {"plugin": "consumer", **common, "queue": "q", "bindings": ["#"], **dispatcher}},
        "workers": {"w": {"use": f"{__name__}:{use}", "dispatcher": "work", "timeout": 5.0, "retry": {"attempts": 1}}},
    }


def watch(running: RunningService) -> list[Any]:
    """Hear the pairs, and be a tracer of a kind: set a context variable, and what messages take along."""
    told: list[Any] = []
    seen.clear()

    def begin(event: HandlerCalled | Sending) -> None:
        told.append(event)
        name = f"span {len(told)}"
        SPAN.set(name)
        carry({"traceparent": name})

    hub: EventHub = running.kernel.hub
    hub.subscribe(begin, HandlerCalled, Sending)  # type: ignore[arg-type]
    hub.subscribe(told.append, HandlerDone, Sent)
    return told


def one(told: list[Any], kind: type[object]) -> Any:
    (found,) = (event for event in told if isinstance(event, kind))
    return found


async def test_a_call_is_told_in_the_context_of_the_handler(autojump_clock: object) -> None:
    async with open_kernel(manifest()) as running:
        told = watch(running)
        await running.publish("events", "fine", None)
        await running.wait_settled()

    called, done = one(told, HandlerCalled), one(told, HandlerDone)
    assert (called.component, called.method, done.seconds, done.error) == ("worker/w", "fine", 1.0, None)
    assert seen == [(f"span {told.index(called) + 1}", "span 1")]
    assert told.index(one(told, Sending)) < told.index(one(told, Sent))


@pytest.mark.parametrize(("subject", "error"), [("raises", ValueError), ("hangs", trio.Cancelled)])
async def test_what_comes_out_of_a_handler_is_told(
    subject: str, error: type[BaseException], autojump_clock: object
) -> None:
    async with open_kernel(manifest(), expected=(ValueError, Exception)) as running:
        told = watch(running)
        await running.publish("events", subject, None)
        await running.wait_settled()

    assert isinstance(one(told, HandlerDone).error, error)


async def test_a_batch_is_one_call_of_all_its_deliveries(autojump_clock: object) -> None:
    async with open_kernel(manifest("Batches", batch={"size": 2, "wait": 1.0})) as running:
        told = watch(running)
        for _ in range(2):
            await running.publish("events", "fine", None)
        await running.wait_settled(2)

    called = one(told, HandlerCalled)
    assert {each.envelope.headers["traceparent"] for each in called.deliveries} == {"span 1", "span 3"}
    assert seen == [f"span {told.index(called) + 1}"]


async def test_a_call_over_the_broker_is_told_until_its_answer(autojump_clock: object) -> None:
    async with open_kernel(manifest()) as running:
        told = watch(running)
        answer = await running.call("rpc", "asked", None)

    assert answer == "span 2"
    assert [type(event) for event in told] == [Sending, HandlerCalled, HandlerDone, Sent]
    assert (told[0].is_call, told[3].error) == (True, None)


async def test_who_wants_to_hear_the_end_alone_hears_it(autojump_clock: object) -> None:
    told: list[Any] = []
    async with open_kernel(manifest()) as running:
        running.kernel.hub.subscribe(told.append, HandlerDone, Sent)
        await running.publish("events", "fine", None)
        await running.wait_settled()

    assert {type(event) for event in told} == {HandlerDone, Sent}


async def test_who_cares_for_one_of_many_is_told_its_end_alone(autojump_clock: object) -> None:
    told: list[Any] = []

    def begin(event: Any) -> object:
        return told.append if len(told) < 2 else None

    async with open_kernel(manifest()) as running:
        running.kernel.hub.subscribe(begin, HandlerCalled, Sending)
        for _ in range(3):
            await running.publish("events", "fine", None)
        await running.wait_settled(3)

    assert [type(event) for event in told] == [Sent, Sent]


async def test_what_a_message_takes_along_is_for_this_one_alone(autojump_clock: object) -> None:
    left: list[object] = []
    async with open_kernel(manifest()) as running:
        running.kernel.hub.subscribe(lambda _: carry({"traceparent": "mine"}) and None, Sending)
        await running.publish("events", "fine", None)
        left.append(carried())
        await running.wait_settled()

    assert (left, seen[-1]) == ([{}], ("none", "mine"))


async def test_a_message_that_cannot_be_sent_is_told(autojump_clock: object) -> None:
    async with open_kernel(manifest(bindings=["other"])) as running:
        told = watch(running)
        with pytest.raises(Exception, match="fine"):
            await running.publish("events", "fine", None)

    assert one(told, Sent).error is not None


async def test_nothing_is_carried_into_what_follows(autojump_clock: object) -> None:
    before = carry({"a": "b"})
    try:
        assert (before, carried()) == ({}, {"a": "b"})
    finally:
        carry(NO_HEADERS)


class Along:
    """Tells what is taken along, before and after it says something else itself."""

    @handles("#")
    async def any(self, payload: object) -> None:
        seen.append(dict(carried()))
        before = carry({"traceparent": "own"})
        seen.append(dict(carried()))
        carry(before)
        seen.append(dict(carried()))


def pass_by(running: RunningService, of_handlers: Any, of_messages: Any) -> list[Any]:
    """Want none of what happens, and say what is taken along instead."""
    told: list[Any] = []
    seen.clear()
    hub: EventHub = running.kernel.hub
    hub.subscribe(told.append, HandlerCalled, unless=lambda _: of_handlers)
    hub.subscribe(told.append, Sending, unless=lambda _: of_messages)
    return told


async def test_what_nobody_wants_is_not_made_and_takes_its_headers_along(autojump_clock: object) -> None:
    async with open_kernel(manifest("Along")) as running:
        told = pass_by(running, {"traceparent": "handler"}, True)
        await running.publish("events", "x", None)
        await running.wait_settled()

    assert seen == [{"traceparent": "handler"}, {"traceparent": "own"}, {"traceparent": "handler"}]
    assert told == []


@pytest.mark.parametrize("outer", [NO_HEADERS, {"tenant": "a"}], ids=["nothing before", "something before"])
async def test_what_a_message_takes_along_is_for_it_alone(outer: Any, autojump_clock: object) -> None:
    async with open_kernel(manifest()) as running:
        told = pass_by(running, True, {"traceparent": "message"})
        carry(outer)
        await running.publish("events", "fine", None)
        left = carried()
        await running.wait_settled()

    assert seen == [("none", "message")]
    assert (left, told) == (outer, [])


async def test_what_the_submitter_takes_along_is_not_for_the_handler(autojump_clock: object) -> None:
    async with open_kernel(manifest("Along")) as running:
        carry({"traceparent": "outer"})
        pass_by(running, {"traceparent": "handler"}, True)
        await running.publish("events", "x", None)
        await running.wait_settled()

    assert seen[0] == {"traceparent": "handler"}
