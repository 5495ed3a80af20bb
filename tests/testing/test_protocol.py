"""The conformance check of protocols passes what is right and fails each broken variant, naming the promise."""

from __future__ import annotations

import json
from collections.abc import Mapping

import attrs
import pytest
import trio
from typing_extensions import override

from kernel import Arguments, Envelope, Message, Secret
from kernel.abc import Protocol
from kernel.errors import DecodeError, EncodeError, RemoteError
from kernel.testing import check_protocol


class Plain(Protocol):
    """A right protocol: JSON, as short as can be."""

    @override
    def decode(self, envelope: Envelope) -> Message:
        try:
            payload = json.loads(envelope.body)
        except (ValueError, RecursionError) as error:
            raise DecodeError("not JSON") from error
        return Message(subject=envelope.subject, payload=payload, headers=envelope.headers)

    @override
    def encode(self, message: Message) -> Envelope:
        try:
            body = json.dumps(message.payload).encode()
        except Exception as error:
            raise EncodeError("cannot be written") from error
        return Envelope(subject=message.subject, body=body, headers=message.headers)

    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        return super().encode_reply(request, {"result": result})

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        try:
            text = str(error)
        except Exception:  # noqa: BLE001  the error's own code
            text = ""
        return super().encode_reply(request, {"error": text})

    @override
    def decode_reply(self, reply: Envelope) -> object:
        answer = self.decode(reply).payload
        if not isinstance(answer, dict) or not answer.keys() & {"result", "error"}:
            raise DecodeError("no answer")
        if "error" in answer:
            raise RemoteError("Error", str(answer["error"]))
        return answer["result"]


class AsyncDecode(Plain):
    async def decode(self, envelope: Envelope) -> Message:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        return super().decode(envelope)


class LosesPayload(Plain):
    @override
    def decode(self, envelope: Envelope) -> Message:
        return attrs.evolve(super().decode(envelope), payload=None)


class LosesHeaders(Plain):
    @override
    def decode(self, envelope: Envelope) -> Message:
        return attrs.evolve(super().decode(envelope), headers={})


class Counts(Plain):
    def __init__(self) -> None:
        self.count = 0

    @override
    def encode(self, message: Message) -> Envelope:
        self.count += 1
        return attrs.evolve(super().encode(message), headers={**message.headers, "count": self.count})


class LeaksValueError(Plain):
    @override
    def decode(self, envelope: Envelope) -> Message:
        return Message(subject=envelope.subject, payload=json.loads(envelope.body), headers=envelope.headers)


class LeaksKeyError(Plain):
    @override
    def decode_reply(self, reply: Envelope) -> object:
        answer = self.decode(reply).payload
        if isinstance(answer, dict) and "error" in answer:
            raise RemoteError("Error", str(answer["error"]))
        return answer["result"]  # type: ignore[index]


class LeaksTypeError(Plain):
    @override
    def encode(self, message: Message) -> Envelope:
        return Envelope(subject=message.subject, body=json.dumps(message.payload).encode(), headers=message.headers)


class LosesCorrelation(Plain):
    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        reply = super().encode_reply(request, result)
        return None if reply is None else attrs.evolve(reply, correlation_id="")


class AnswersErrorAsResult(Plain):
    @override
    def decode_reply(self, reply: Envelope) -> object:
        answer = self.decode(reply).payload
        if not isinstance(answer, dict):
            raise DecodeError("no answer")
        return answer.get("result")


class TrustsErrors(Plain):
    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        return Protocol.encode_reply(self, request, {"error": str(error)})


class AnswersAll(Plain):
    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        return super().encode_reply(attrs.evolve(request, reply_to=request.reply_to or "nobody"), result)


class WritesSecrets(Plain):
    @override
    def encode(self, message: Message) -> Envelope:
        if isinstance(message.payload, Secret):
            return super().encode(attrs.evolve(message, payload=message.payload.reveal()))
        return super().encode(message)


class WritesArguments(Plain):
    """A right one too: it has a shape for calls."""

    @override
    def encode(self, message: Message) -> Envelope:
        call = message.payload
        shape = {"args": call.args, "kwargs": dict(call.kwargs)} if isinstance(call, Arguments) else call
        return super().encode(attrs.evolve(message, payload=shape))

    @override
    def continued(self, cause: Envelope) -> Mapping[str, object]:
        return {"chain": [str(cause.headers.get("chain")), cause.id]}


class LosesNames(WritesArguments):
    @override
    def encode(self, message: Message) -> Envelope:
        call = message.payload
        return super().encode(attrs.evolve(message, payload=call.args) if isinstance(call, Arguments) else message)


class ReadsRequests(Plain):
    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        if request.body:
            json.loads(request.body)
        return super().encode_error(request, error)


class TrustsCauses(WritesArguments):
    @override
    def encode(self, message: Message) -> Envelope:
        return super().encode(attrs.evolve(message, headers={"chain": "", **message.headers}))

    @override
    def continued(self, cause: Envelope) -> Mapping[str, object]:
        return {"chain": f"{cause.headers.get('chain', '')}" + cause.headers.get("chain", "")}  # type: ignore[operator]


class ContinuesBytes(WritesArguments):
    @override
    def continued(self, cause: Envelope) -> Mapping[str, object]:
        return {"cause": cause.body}


class ContinuesChance(WritesArguments):
    @override
    def continued(self, cause: Envelope) -> Mapping[str, object]:
        return {"id": id(self)}


SAMPLES = (1, "text", {"a": [None]})


async def test_a_right_protocol_passes() -> None:
    await check_protocol(Plain, samples=SAMPLES)
    await check_protocol(WritesArguments, samples=SAMPLES)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (AsyncDecode, "no asynchronous method: decode"),
        (LosesPayload, "what is encoded can be decoded: 1 came back as None"),
        (LosesHeaders, "the headers came back as {}"),
        (Counts, "the same message gives the same envelope"),
        (LeaksValueError, "decoding raises DecodeError and nothing else"),
        (LeaksKeyError, "decoding an answer raises"),
        (LeaksTypeError, "encoding raises EncodeError and nothing else"),
        (LosesCorrelation, "a result reaches the caller: its correlation id"),
        (AnswersErrorAsResult, "an error reaches the caller as a RemoteError"),
        (TrustsErrors, "an error reaches the caller as a RemoteError"),
        (AnswersAll, "nobody is answered who did not ask"),
        (LosesNames, "arguments come back as arguments, or are refused with EncodeError: {'k': {'a': True}} came back"),
        (ReadsRequests, "a request that means nothing can be answered"),
        (TrustsCauses, "what is continued can be sent, whatever the cause is"),
        (ContinuesBytes, "what is continued can be sent, whatever the cause is"),
        (ContinuesChance, "was continued in two ways"),
        (WritesSecrets, "a Secret is never written"),
    ],
)
async def test_a_broken_protocol_fails(broken: type[Plain], promise: str) -> None:
    with pytest.raises(AssertionError) as raised:
        await check_protocol(broken, samples=SAMPLES)

    assert promise in str(raised.value)


async def test_a_protocol_needs_samples() -> None:
    with pytest.raises(AssertionError, match="there are no samples"):
        await check_protocol(Plain, samples=())
    with pytest.raises(AssertionError, match="there are no results"):
        await check_protocol(Plain, samples=SAMPLES, results=())


class AnswersAllOnPurpose(AnswersAll):
    always_replies = True


async def test_a_protocol_that_always_replies_may_answer_who_did_not_ask() -> None:
    await check_protocol(AnswersAllOnPurpose, samples=SAMPLES)


class LosesResult(Plain):
    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        return super().encode_reply(request, None if result == "lost" else result)


async def test_what_is_answered_may_be_another_thing_than_what_is_sent() -> None:
    await check_protocol(LosesResult, samples=SAMPLES)
    with pytest.raises(AssertionError, match="'lost' came back as None"):
        await check_protocol(LosesResult, samples=SAMPLES, results=["lost"])
