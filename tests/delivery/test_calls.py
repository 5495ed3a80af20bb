"""The pipeline and calls: arguments, the current delivery, and answers to what cannot be decoded or nobody asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
import pytest
import trio
from typing_extensions import override

from kernel import Ack, Arguments, DeadLetter, Envelope, Failure, Message, answers, current_delivery, handles
from kernel._manifest.registry import Registry
from kernel.abc import Delivery
from kernel.errors import EncodeError
from kernel.testing import open_kernel

from ._feed import Feed, Json, parcel, running


def reply(outcome: object) -> bytes:
    assert isinstance(outcome, Ack)
    assert outcome.reply is not None
    return outcome.reply.body


async def settle_with(protocol: type[Json], workers: Mapping[str, Any], delivery: Any, **table: object) -> object:
    """Deliver to a service that speaks another protocol than the others here; return the outcome."""
    feed = Feed()
    registry = Registry.of({
        "dispatchers": {"feed": feed.dispatcher},
        "protocols": {"own": protocol},
        "workers": workers,
    })
    tables: dict[str, Any] = {name: {"use": name} for name in workers}
    tables["worker"].update(dispatcher="feed", **table)
    manifest = {"kernel": {"name": "test"}, "dispatchers": {"feed": {"protocol": "own"}}, "workers": tables}
    async with open_kernel(manifest, registry=registry, expected=Exception):
        return await feed.settle(delivery)


# --- arguments ----------------------------------------------------------------------------------------------------


class Desk:
    @answers("a.add")
    async def add(self, one: int, other: int = 10, /, *more: int, sign: int = 1) -> int:
        return sign * (one + other + sum(more))

    @answers("a.about")
    async def about(self, delivery: Delivery, name: str, envelope: Envelope) -> list[object]:
        return [name, envelope.id, delivery.attempt]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([1], b"11"),
        ([1, 2, 3, 4], b"10"),
        ({"args": [1, 2], "kwargs": {"sign": -1}}, b"-3"),
        ({"one": 1}, b"ArgumentsError: one: must be given by position; one: is missing"),
        ([1, "2"], b'ArgumentsError: other: must be an integer, got "2"'),
    ],
)
async def test_a_call_is_answered_with_its_result_or_what_is_wrong_with_its_arguments(
    body: object, expected: bytes
) -> None:
    async with running({"worker": Desk}) as (feed, _):
        outcome = await feed.settle(parcel(body, subject="a.add", reply_to="me"))

    assert reply(outcome) == expected


async def test_a_call_takes_the_envelope_and_the_delivery_where_it_asks_for_them() -> None:
    async with running({"worker": Desk}) as (feed, _):
        outcome = await feed.settle(parcel(["n"], subject="a.about", reply_to="me", id="i-1"))

    assert reply(outcome) == b'["n", "i-1", 1]'


async def test_wrong_arguments_that_nobody_waits_for_are_dead_lettered() -> None:
    async with running({"worker": Desk}) as (feed, _):
        outcome = await feed.settle(parcel([], subject="a.add"))

    assert outcome == DeadLetter("payload of 'a.add': ArgumentsError: one: is missing")


async def test_a_function_is_called_beside_what_is_injected() -> None:
    @answers("a.b")
    async def worker(factor: int, config: dict[str, int], times: int) -> int:
        return factor * times * config["unit"]

    worker.__annotations__ |= {"factor": int, "times": int, "config": dict[str, int]}
    async with running({"worker": worker}, {"worker": {"config": {"unit": 100}}}) as (feed, _):
        outcome = await feed.settle(parcel([2, 3], reply_to="me"))

    assert reply(outcome) == b"600"


async def test_a_protocol_may_decode_to_arguments_which_a_handler_of_payloads_takes_as_they_are() -> None:
    class Calls(Json):
        @override
        def decode(self, envelope: Envelope) -> Message:
            return Message(subject=envelope.subject, payload=Arguments((1,), {"k": 2}))

    seen: list[object] = []

    async def worker(payload: Arguments) -> None:
        seen.append(payload)

    assert await settle_with(Calls, {"worker": worker}, parcel()) == Ack()
    assert seen == [Arguments((1,), {"k": 2})]


# --- the current delivery -----------------------------------------------------------------------------------------


async def test_the_current_delivery_is_that_of_the_handler_and_of_the_tasks_it_starts() -> None:
    seen: dict[str, object] = {}

    async def child(name: str) -> None:
        await trio.lowlevel.checkpoint()
        seen[f"{name}'s child"] = current_delivery()

    async def worker(name: str) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, name)
            await trio.lowlevel.checkpoint()
            seen[name] = current_delivery()

    one, other = parcel("one"), parcel("other")
    async with running({"worker": worker}) as (feed, _):
        feed.send.send_nowait(one)
        await feed.settle(other)
        await one.settled.wait()

    assert seen == {"one": one, "one's child": one, "other": other, "other's child": other}
    assert current_delivery() is None


async def test_there_is_no_current_delivery_in_the_loop_of_a_worker_or_in_a_handler_of_batches() -> None:
    seen: list[object] = []

    class Worker:
        @handles("#")
        async def batch(self, payloads: list[int]) -> None:
            seen.append(current_delivery())

        async def run(self) -> None:
            seen.append(current_delivery())
            await trio.sleep_forever()

    async with running({"worker": Worker}, batch={"size": 2}) as (feed, _):
        feed.send.send_nowait(parcel(1))
        await feed.settle(parcel(2))

    assert seen == [None, None]


async def test_a_failure_worker_has_the_delivery_that_failed_as_its_current_one() -> None:
    seen: list[object] = []

    async def worker(payload: object) -> None:
        raise ValueError("no")

    async def last(failure: Any) -> None:
        delivery = current_delivery()
        assert delivery is not None
        seen.append(delivery.envelope.id)

    tables = {"worker": {"failure_worker": "last", "retry": {"attempts": 1}}, "last": {"dispatcher": ""}}
    async with running({"worker": worker, "last": last}, tables) as (feed, _):
        await feed.settle(parcel(1, id="i-1"))

    assert seen == ["i-1"]


# --- requests that mean nothing -----------------------------------------------------------------------------------


async def test_a_request_that_cannot_be_decoded_is_answered() -> None:
    async with running({"worker": Desk}) as (feed, _):
        outcome = await feed.settle(parcel(b"{", reply_to="me"))

    assert reply(outcome).startswith(b"DecodeError: ")


class Silent(Json):
    """Has no answer that says what went wrong."""

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        return None


class Mute(Json):
    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        raise EncodeError("no words")


@pytest.mark.parametrize("protocol", [Silent, Mute])
@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"{", "cannot be decoded: "), ("x", "payload of 'a.b': "), (1, "KeyError: 1")],
    ids=["bytes", "payload", "handler"],
)
async def test_an_error_that_cannot_be_told_is_dead_lettered(protocol: type[Json], body: object, reason: str) -> None:
    async def worker(payload: int) -> None:
        raise KeyError(payload)

    worker.__annotations__["payload"] = int
    outcome = await settle_with(protocol, {"worker": worker}, parcel(body, reply_to="me"))

    assert isinstance(outcome, DeadLetter)
    assert outcome.reason.startswith(reason)


# --- answers that nobody asked for ----------------------------------------------------------------------------------


class Talkative(Json):
    """Answers everything but None, to where the subject says."""

    always_replies: ClassVar[bool] = True

    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        return (
            None
            if result is None
            else attrs.evolve(request, subject=f"{request.subject}_reply", body=repr(result).encode())
        )


@pytest.mark.parametrize(("body", "expected"), [("yes", ("a.b_reply", b"'yes'")), (None, None)])
async def test_a_protocol_that_always_replies_is_asked_without_a_reply_to(
    body: object, expected: tuple[str, bytes] | None
) -> None:
    async def worker(payload: object) -> object:
        return payload

    outcome = await settle_with(Talkative, {"worker": worker}, parcel(body))

    assert isinstance(outcome, Ack)
    assert (outcome.reply and (outcome.reply.subject, outcome.reply.body)) == expected


async def test_a_protocol_that_always_replies_has_no_answer_to_an_error_that_nobody_waits_for() -> None:
    async def worker(payload: object) -> object:
        raise ValueError("no")

    outcome = await settle_with(Talkative, {"worker": worker}, parcel(1), retry={"attempts": 1})

    assert outcome == DeadLetter("ValueError: no (attempt 1 of 1)")


class Shy(Talkative):
    """Cannot write any answer."""

    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        raise EncodeError("no words")


async def test_what_a_failure_worker_returns_is_no_answer() -> None:
    """So that it cannot fail by what it returns."""

    async def worker(payload: object) -> object:
        raise ValueError("no")

    async def last(failure: Failure) -> object:
        return "buried"

    outcome = await settle_with(
        Shy, {"worker": worker, "last": last}, parcel(1), failure_worker="last", retry={"attempts": 1}
    )

    assert outcome == Ack()


@pytest.mark.parametrize(
    ("payload", "arguments"),
    [
        (Arguments((1,), {"a": 2}), Arguments((1,), {"a": 2})),
        ({"a": 2}, Arguments((), {"a": 2})),
        ([1, 2], Arguments((1, 2))),
        ((1, 2), Arguments((1, 2))),
    ],
)
def test_an_object_or_an_array_is_taken_for_arguments(payload: object, arguments: Arguments) -> None:
    assert Arguments.of(payload) == arguments


def test_nothing_else_is_taken_for_arguments() -> None:
    with pytest.raises(EncodeError, match="Arguments, an object or an array, not str"):
        Arguments.of("tea")
