"""Translators of a protocol: every message passes through them, and what they raise is an error of the protocol."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import attrs
import pytest
from trio.testing import MockClock

from kernel import Ack, DeadLetter, Envelope, Message, handles
from kernel._delivery.translate import translated
from kernel.abc import NoConfig, Protocol
from kernel.errors import DecodeError, EncodeError, RemoteError
from kernel.testing import fake_context

from ._feed import Json, parcel, running


def upper(message: Message) -> Message:
    return attrs.evolve(message, payload=str(message.payload).upper())


def exclaim(message: Message) -> Message:
    return attrs.evolve(message, payload=f"{message.payload}!", headers={**message.headers, "loud": True})


def renamed(message: Message) -> Message:
    return attrs.evolve(message, subject=f"legacy.{message.subject}")


def broken(message: Message) -> Message:
    raise LookupError(f"no rule for {message.subject}")


def exits(message: Message) -> Message:
    sys.exit(4)


def forgetful(message: Message) -> None:
    pass


def refuses_in(message: Message) -> Message:
    raise DecodeError("not ours")


def refuses_out(message: Message) -> Message:
    raise EncodeError("not ours")


class Callable:
    def __call__(self, message: Message) -> Message:
        raise LookupError("no rule")


@attrs.define(eq=False)
class Headed(Json):
    """Carries headers, continues calls, and tells its errors."""

    def encode(self, message: Message) -> Envelope:
        return attrs.evolve(super().encode(message), headers=message.headers)

    def decode(self, envelope: Envelope) -> Message:
        return attrs.evolve(super().decode(envelope), headers=envelope.headers)

    def decode_reply(self, reply: Envelope) -> object:
        if reply.headers.get("error"):
            raise RemoteError("ValueError", "too big")
        return super().decode_reply(reply)

    def continued(self, cause: Envelope) -> dict[str, object]:
        return {"caused-by": cause.id}


@attrs.define(eq=False)
class Answering(Headed):
    always_replies = True


def built(cls: type[Any] = Headed, *, inbound: tuple[Any, ...] = (), outbound: tuple[Any, ...] = ()) -> Protocol:
    inner = cls(NoConfig(), fake_context("protocol/plain"))
    return translated(inner, inbound=inbound, outbound=outbound)


@pytest.fixture(autouse=True)
def rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a module `rules`, whose functions a manifest can name."""
    module = ModuleType("rules")
    for function in (upper, exclaim, renamed, broken):
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, "rules", module)


def test_without_translators_a_protocol_stays_itself() -> None:
    inner = Headed(NoConfig(), fake_context("protocol/plain"))

    assert translated(inner, inbound=(), outbound=()) is inner


def test_translators_run_in_order_after_decoding_and_before_encoding() -> None:
    protocol = built(inbound=(upper, exclaim), outbound=(exclaim, upper))

    decoded = protocol.decode(Envelope(subject="a", body=b'"tea"'))
    encoded = protocol.encode(Message(subject="a", payload="tea", headers={"kept": 1}))

    assert decoded == Message(subject="a", payload="TEA!", headers={"loud": True})
    assert (encoded.body, encoded.headers) == (b'"TEA!"', {"kept": 1, "loud": True})


def test_what_an_answer_carries_is_translated_both_ways() -> None:
    protocol = built(inbound=(upper,), outbound=(exclaim,))
    request = Envelope(subject="a", reply_to="answers", correlation_id="c-1")

    reply = protocol.encode_reply(request, "tea")

    assert reply is not None
    assert (reply.subject, reply.correlation_id) == ("answers", "c-1")
    assert (reply.body, reply.headers) == (b'"tea!"', {"loud": True})
    assert protocol.decode_reply(reply) == "TEA!"


def test_an_answer_that_nobody_wants_stays_none() -> None:
    assert built(outbound=(exclaim,)).encode_reply(Envelope(subject="a"), "tea") is None


def test_an_answer_whose_translators_add_no_headers_keeps_those_of_the_protocol() -> None:
    reply = built(outbound=(upper,)).encode_reply(Envelope(subject="a", reply_to="b"), "tea")

    assert reply is not None
    assert (reply.body, reply.headers) == (b'"TEA"', {})


def test_errors_pass_through_no_translator() -> None:
    protocol = built(inbound=(broken,), outbound=(broken,))

    answer = protocol.encode_error(Envelope(subject="a", reply_to="b"), ValueError("too big"))
    assert answer is not None
    assert answer.body == b"ValueError: too big"
    with pytest.raises(RemoteError, match="too big"):
        protocol.decode_reply(Envelope(subject="b", body=b"1", headers={"error": True}))


def test_what_else_a_protocol_does_it_still_does() -> None:
    cause = Envelope(subject="a")

    assert built(inbound=(upper,)).continued(cause) == {"caused-by": cause.id}
    assert not built(inbound=(upper,)).always_replies
    assert built(Answering, inbound=(upper,)).always_replies


@pytest.mark.parametrize(
    ("translator", "text"),
    [
        (broken, f"translator {__name__}:broken raised LookupError: no rule for a"),
        (exits, f"translator {__name__}:exits raised SystemExit: 4"),
        (forgetful, f"translator {__name__}:forgetful returned NoneType, and a translator returns a Message"),
        (refuses_in, f"translator {__name__}:refuses_in: not ours"),
        (refuses_out, f"translator {__name__}:refuses_out: not ours"),
        (Callable(), "translator Callable raised LookupError: no rule"),
    ],
)
def test_what_a_translator_raises_is_an_error_of_its_direction(translator: Any, text: str) -> None:
    protocol = built(inbound=(translator,), outbound=(translator,))
    envelope, message = Envelope(subject="a", body=b"1"), Message(subject="a", payload=1)

    with pytest.raises(DecodeError) as inbound:
        protocol.decode(envelope)
    with pytest.raises(DecodeError) as answer:
        protocol.decode_reply(envelope)
    with pytest.raises(EncodeError) as outbound:
        protocol.encode(message)
    with pytest.raises(EncodeError):
        protocol.encode_reply(attrs.evolve(envelope, reply_to="b"), 1)

    assert {str(inbound.value), str(answer.value), str(outbound.value)} == {text}


async def test_a_service_translates_what_comes_in_and_what_it_answers(autojump_clock: MockClock) -> None:
    class Worker:
        @handles("legacy.a.b")
        async def handle(self, payload: str) -> str:
            return f"{payload} with milk"

    translators = {"inbound": ["rules:renamed", "rules:upper"], "outbound": ["rules:exclaim"]}
    async with running({"worker": Worker}, translators=translators) as (feed, _service):
        answered = await feed.settle(parcel("tea", reply_to="answers"))

    assert isinstance(answered, Ack)
    assert answered.reply is not None
    assert answered.reply.body == b'"TEA with milk!"'


async def test_what_an_inbound_translator_refuses_is_dead_lettered(autojump_clock: MockClock) -> None:
    async def worker(payload: object) -> None: ...

    async with running({"worker": worker}, translators={"inbound": ["rules:broken"]}) as (feed, _service):
        outcome = await feed.settle(parcel("tea"))

    text = f"translator {__name__}:broken raised LookupError: no rule for a.b"
    assert outcome == DeadLetter(f"cannot be decoded: DecodeError: {text}")


async def test_a_result_that_an_outbound_translator_refuses_is_answered_with_the_error(
    autojump_clock: MockClock,
) -> None:
    async def worker(payload: object) -> str:
        return "done"

    async with running({"worker": worker}, translators={"outbound": ["rules:broken"]}) as (feed, _service):
        answered = await feed.settle(parcel("tea", reply_to="answers"))

    assert isinstance(answered, Ack)
    assert answered.reply is not None
    assert answered.reply.body.startswith(b"EncodeError: translator")
