"""The conformance check of protocols."""

from __future__ import annotations

import inspect
import json
import random
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

import attrs
import trio

from .._core.envelope import NO_HEADERS, Arguments, Envelope, Message
from .._core.secret import Secret
from .._plan.binding import read_arguments
from ..errors import DecodeError, EncodeError, ProtocolError, RemoteError
from ._promise import expect, prove

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from ..abc import Protocol

MALFORMED: Final[Sequence[bytes]] = (
    b"", b"\0", b"\xff", b"\xff" * 64, b"\xef\xbb\xbf", b"[" * 100_000, b'{"a":' * 100_000, b'"', b"\\", b"9" * 5000,
    b"\xed\xa0\x80", b"NaN", b"\x80\x04\x95", b"\xc1", b"\xdf\xff\xff\xff\xff",
)  # fmt: skip
"""Bodies that have broken parsers: nested, endless, not text, lone surrogates, pickle, msgpack lengths."""
_METHODS: Final = ("decode", "encode", "encode_reply", "encode_error", "decode_reply", "continued")
_SECRET: Final = "kernel-testing-secret"
_FUZZ: Final = 300
"""Random bodies; always the same."""
_CUTS: Final = 100
"""Places at which a body is cut, at most."""


async def check_protocol(
    make: Callable[[], Protocol],
    *,
    samples: Sequence[object],
    results: Sequence[object] | None = None,
    malformed: Sequence[bytes] = MALFORMED,
) -> None:
    """Test a protocol against the promises of `kernel.abc.Protocol`.

    Args:
        make: Returns a new protocol; called for each case.
        samples: Payloads that come back equal from being encoded and decoded; at least one.
        results: What comes back equal from being answered; None takes the samples. For protocols whose requests carry
            `Arguments`, which nobody returns.
        malformed: Bodies to decode besides random ones, and the samples cut and damaged. They may have a meaning in
            the protocol; what must not happen is another error than `DecodeError`.

    Raises:
        AssertionError: naming the promise that is broken, and what happened instead.

    Cancellation: Is a checkpoint.
    """
    bench = _Bench(make, samples, samples if results is None else results, malformed)
    for promise, case in (
        ("a protocol has no asynchronous method", bench.is_synchronous),
        ("what is encoded can be decoded", bench.round_trip),
        ("the same message gives the same envelope, but for its id", bench.is_pure),
        ("decoding raises DecodeError and nothing else", bench.decode_anything),
        ("decoding an answer raises DecodeError, RemoteError and nothing else", bench.decode_any_reply),
        ("encoding raises EncodeError and nothing else", bench.encode_anything),
        ("arguments come back as arguments, or are refused with EncodeError", bench.call),
        ("a result reaches the caller", bench.reply),
        ("an error reaches the caller as a RemoteError", bench.reply_error),
        ("a request that means nothing can be answered, or EncodeError is raised", bench.reply_to_anything),
        ("nobody is answered who did not ask", bench.reply_to_nobody),
        ("what is continued can be sent, whatever the cause is", bench.continue_anything),
        ("a Secret is never written", bench.keep_secret),
    ):
        await prove(promise, _as_async(case))


def _as_async(case: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        await trio.lowlevel.checkpoint()
        case()

    return run


class _HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class _Hostile:
    """A value that nothing can be done with."""

    def __getattribute__(self, name: str) -> object:
        if name == "__class__":
            return _Hostile
        raise RuntimeError(f"no {name}")


@final
@attrs.frozen(repr=False)
class _Bench:
    make: Callable[[], Protocol]
    samples: Sequence[object]
    results: Sequence[object]
    malformed: Sequence[bytes]

    def is_synchronous(self) -> None:
        for name in _METHODS:
            method = getattr(self.make(), name)
            is_async = inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
            expect(not is_async, f"{name} is asynchronous")

    def round_trip(self) -> None:
        expect(bool(self.samples), "there are no samples")
        for sample in self.samples:
            message = Message(subject="check.sample", payload=sample, headers=MappingProxyType({"k": "v"}))
            again = self.make().decode(self.make().encode(message))
            expect(again.payload == sample, f"{sample!r} came back as {again.payload!r}")
            expect(again.subject == message.subject, f"the subject came back as {again.subject!r}")
            expect(again.headers.get("k") == "v", f"the headers came back as {dict(again.headers)!r}")

    def is_pure(self) -> None:
        protocol = self.make()
        for sample in self.samples:
            first, second, other = (one.encode(_message(sample)) for one in (protocol, protocol, self.make()))
            for envelope in (second, other):
                expect(attrs.evolve(envelope, id=first.id) == first, f"{sample!r} was written in two ways")
            read = [one.decode(first).payload for one in (protocol, protocol, self.make())]
            expect(read[0] == read[1] == read[2], f"{sample!r} was read in two ways")

    def decode_anything(self) -> None:
        protocol = self.make()
        for body in self._bodies():
            _allow(partial(protocol.decode, _envelope(body)), DecodeError, f"{body[:40]!r}")

    def decode_any_reply(self) -> None:
        protocol = self.make()
        for body in self._bodies():
            allowed = (DecodeError, RemoteError)
            _allow(partial(protocol.decode_reply, _envelope(body)), allowed, f"{body[:40]!r}")

    def encode_anything(self) -> None:
        protocol = self.make()
        circle: list[object] = []
        circle.append(circle)
        deep: object = None
        for _ in range(100_000):
            deep = [deep]
        values = {"an object": object(), "a circle": circle, "deep nesting": deep, "a hostile value": _Hostile()}
        for name, value in values.items():
            _allow(partial(protocol.encode, _message(value)), EncodeError, name)

    def call(self) -> None:
        for call in _CALLS:
            try:
                envelope = self.make().encode(_message(call))
            except EncodeError:
                continue
            read = read_arguments(self.make().decode(envelope).payload)
            expect(list(read.args) == list(call.args), f"{call.args!r} came back as {read.args!r}")
            expect(dict(read.kwargs) == dict(call.kwargs), f"{call.kwargs!r} came back as {read.kwargs!r}")

    def reply(self) -> None:
        expect(bool(self.results), "there are no results")
        for wanted in self.results:
            reply = self.make().encode_reply(_REQUEST, wanted)
            _check_address(reply)
            result = self.make().decode_reply(_required(reply))
            expect(result == wanted, f"{wanted!r} came back as {result!r}")

    def reply_error(self) -> None:
        for error in (ValueError("the reason"), _HostileError()):
            reply = self.make().encode_error(_REQUEST, error)
            _check_address(reply)
            try:
                result = self.make().decode_reply(_required(reply))
            except RemoteError as remote:
                text = remote.message if type(error) is ValueError else "the reason"
                expect("the reason" in text, f"the caller was told {remote}")
            else:
                raise AssertionError(f"the caller got {result!r} as a result")

    def reply_to_anything(self) -> None:
        protocol = self.make()
        for body in self._bodies():
            request = attrs.evolve(_REQUEST, body=body)
            _allow(partial(protocol.encode_error, request, DecodeError("x")), EncodeError, f"{body[:40]!r}")

    def reply_to_nobody(self) -> None:
        event = attrs.evolve(_REQUEST, reply_to="")
        if not self.make().always_replies:
            expect(self.make().encode_reply(event, self.results[0]) is None, "there is an answer with the result")
        expect(self.make().encode_error(event, ValueError("x")) is None, "there is an answer with the error")

    def continue_anything(self) -> None:
        protocol, payload = self.make(), self.samples[0]
        for headers in self._causes():
            cause = attrs.evolve(_REQUEST, headers=headers)
            continued = _required_headers(partial(protocol.continued, cause), headers)
            expect(continued == self.make().continued(cause), f"{headers!r} was continued in two ways")
            protocol.encode(attrs.evolve(_message(payload), headers=continued))

    def _causes(self) -> Iterator[Mapping[str, object]]:
        """Yield headers of causes: what the protocol writes itself, and all kinds of nonsense in its place."""
        written = self.make().encode(_message(self.samples[0])).headers
        yield from (NO_HEADERS, written, {"check": "v"})
        nonsense: Sequence[object] = (
            None,
            True,
            -1,
            "",
            "x" * 10_000,
            [],
            [None, 1, "x"],
            {"a": [1]},
            list(range(1000)),
        )
        yield from (dict.fromkeys([*written, "check"], value) for value in nonsense)

    def keep_secret(self) -> None:
        for payload in (Secret(_SECRET), {"password": Secret(_SECRET)}, [Secret(_SECRET)]):
            try:
                written = repr(attrs.astuple(self.make().encode(_message(payload)), recurse=False))
            except ProtocolError as error:
                written = f"{error!r} {error.__cause__!r}"
            expect(_SECRET not in written, f"it is in {written}")

    def _bodies(self) -> Iterator[bytes]:
        yield from self.malformed
        chance = random.Random(0)
        for body in self._written():
            yield from (body[:at] for at in range(0, len(body), max(1, len(body) // _CUTS)))
            for _ in range(_CUTS if body else 0):
                at = chance.randrange(len(body))
                yield body[:at] + bytes([body[at] ^ 1 << chance.randrange(8)]) + body[at + 1 :]
        yield from (chance.randbytes(chance.randrange(64)) for _ in range(_FUZZ))

    def _written(self) -> Iterator[bytes]:
        """Yield the bodies of requests and of answers."""
        yield from (self.make().encode(_message(sample)).body for sample in self.samples)
        yield from (_required(self.make().encode_reply(_REQUEST, result)).body for result in self.results)


_CALLS: Final = (
    Arguments((1, "a", [None]), {"k": {"a": True}}),
    Arguments((1,)),
    Arguments(kwargs={"k": "v"}),
    Arguments(),
)
_REQUEST: Final = Envelope(subject="check.call", reply_to="check.replies", correlation_id="c-1")


def _message(payload: object) -> Message:
    return Message(subject="check.sample", payload=payload)


def _envelope(body: bytes) -> Envelope:
    return Envelope(subject="check.sample", body=body)


def _allow(call: Callable[[], object], allowed: type[Exception] | tuple[type[Exception], ...], what: str) -> None:
    try:
        call()
    except allowed:
        return
    except Exception as error:
        raise AssertionError(f"{what} raised {type(error).__name__}") from error


def _required_headers(call: Callable[[], Mapping[str, object]], cause: Mapping[str, object]) -> Mapping[str, object]:
    try:
        headers = call()
        json.dumps(dict(headers))
    except Exception as error:
        raise AssertionError(f"{cause!r:.200} raised {type(error).__name__}") from error
    return headers


def _required(reply: Envelope | None) -> Envelope:
    if reply is None:
        raise AssertionError("there is no answer to a request that wants one")
    return reply


def _check_address(reply: Envelope | None) -> None:
    answer = _required(reply)
    expect(answer.subject == _REQUEST.reply_to, f"the answer went to {answer.subject!r}, not to reply_to")
    expect(answer.correlation_id == _REQUEST.correlation_id, f"its correlation id is {answer.correlation_id!r}")
