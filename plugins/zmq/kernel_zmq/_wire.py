"""Frames <-> envelopes; no I/O.

A request of ours is `[id, facts, "", body]`. The part before the empty frame is the address: libzmq's own REP gives it
back with the answer as it was, and its user sees the body alone. So a peer that knows nothing of us never sees id,
subject, deadline and headers. A peer that knows facts greets whoever sends it some, and only who has greeted is told of
cancelled calls: REP drops a message without an empty frame, but of one whose sender is gone by then it keeps the
beginning, and loses the next answer over it. Source: ZeroMQ RFC 28, REQ and REP, and libzmq 4.3.5 `src/rep.cpp`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, cast, final

import attrs

from kernel import NO_HEADERS, Envelope, read_json, write_json
from kernel.abc import DEADLINE_HEADER, check_headers, read_deadline, write_deadline
from kernel.errors import DecodeError

from ._config import Framing

Frames: TypeAlias = Sequence[bytes]

_FACTS: Final = b"\1kernel "
_ANSWER: Final = b"\1kernel-answer "
"""Apart from the facts of a request, which REP gives back."""
_CANCEL: Final = b"\1kernel-cancel"
_GREETING: Final = b"\1kernel-hello"
_MAX_FACTS: Final = 65536
"""Bytes of subject, deadline and headers of one message."""
_DEPTH: Final = 16
_REPLY_TO: Final = "zmq"
"""What `reply_to` of requests says: that there is somebody who waits."""


# --- requests and answers ---------------------------------------------------------------------------------------


@final
@attrs.frozen(kw_only=True, repr=False)
class Request:
    """A request as it came."""

    name: str
    """What a cancellation of it is named by; empty if nobody can send one."""
    address: Frames
    """What stands before the body of the answer, the empty frame included."""
    envelope: Envelope

    @property
    def peer(self) -> Frames:
        """Return who sent it, if it has facts; else nothing."""
        return self.address[:-2] if self.name else ()


@final
@attrs.frozen
class Cancellation:
    """Nobody waits for the answer to a request any more."""

    name: str


@final
@attrs.frozen
class Malformed:
    """A request that nobody can be given."""

    reason: str
    request: Request | None
    """Whom an answer is for; None if that is not known."""


def write_request(envelope: Envelope, call: bytes, *, now: float) -> Frames:
    """Return the frames of a request."""
    facts: dict[str, object] = {"subject": envelope.subject, "headers": _checked(envelope)}
    remaining = write_deadline(envelope.deadline, now=now)
    if remaining is not None:
        facts[DEADLINE_HEADER] = remaining
    return [call, _FACTS + _written(facts), b"", envelope.body]


def write_cancellation(call: bytes) -> Frames:
    """Return the frames that tell of a cancelled call."""
    return [_CANCEL, call]


def write_greeting(peer: Frames) -> Frames:
    """Return the frames that tell a peer that we know facts and cancellations."""
    return [*peer, _GREETING]


def is_greeting(frames: Frames) -> bool:
    """Return whether a message to a DEALER says that the peer knows facts and cancellations."""
    return len(frames) == 1 and frames[0] == _GREETING


def read_request(frames: Frames, *, subject: str, now: float) -> Request | Cancellation | Malformed:
    """Return what a message to a ROUTER is.

    Args:
        frames: The message; whom it is from stands first.
        subject: Of a request that names none.
        now: In `trio.current_time()`.
    """
    if b"" not in frames[1:]:
        is_cancellation = len(frames) > 2 and frames[-2] == _CANCEL
        if is_cancellation:
            return Cancellation(_name([*frames[:-2], frames[-1]]))
        return Malformed("there is no empty frame before the request, as REQ sends it", None)
    at = frames.index(b"", 1)
    address, content = frames[: at + 1], frames[at + 1 :]
    is_ours = at > 2 and address[-2].startswith(_FACTS)
    name = _name([*address[:-3], address[-3]]) if is_ours else ""
    back = [*address[:-2], b""] if is_ours else address
    if not 1 <= len(content) <= 2:
        reason = f"a request is a body, or a subject and a body, and not {len(content)} frames"
        return _malformed(reason, name, back, subject)
    try:
        facts = _read(address[-2]) if is_ours else NO_HEADERS
        named = content[0].decode() if len(content) == 2 else _text_in(facts, "subject")
        headers, deadline = _headers_in(facts), _deadline_in(facts, now)
    except DecodeError as error:
        return _malformed(str(error), name, back, subject)
    except UnicodeDecodeError:
        return _malformed("the subject is not UTF-8", name, back, subject)
    envelope = Envelope(
        subject=named or subject,
        body=content[-1],
        headers=headers,
        reply_to=_REPLY_TO,
        correlation_id=name,
        deadline=deadline,
    )
    return Request(name=name, address=back, envelope=envelope)


def _malformed(reason: str, name: str, back: Frames, subject: str) -> Malformed:
    asked = Envelope(subject=subject, body=b"", reply_to=_REPLY_TO, correlation_id=name)
    return Malformed(reason, Request(name=name, address=back, envelope=asked))


def write_reply(request: Request, reply: Envelope) -> Frames:
    """Return the frames of the answer to a request."""
    if reply.headers and request.name:
        return [*request.address[:-1], _ANSWER + _written({"headers": _checked(reply)}), b"", reply.body]
    return [*request.address, reply.body]


def read_reply(frames: Frames) -> tuple[bytes, Envelope] | None:
    """Return for which call a message to a DEALER is the answer, and the answer; None if it is none."""
    at = frames.index(b"", 1) if b"" in frames[1:] else 0
    if not at or len(frames) == at + 1:
        return None
    try:
        headers = _headers_in(_read(frames[1], _ANSWER)) if at > 1 else NO_HEADERS
    except DecodeError:
        headers = NO_HEADERS
    return frames[0], Envelope(subject=_REPLY_TO, body=frames[-1], headers=headers)


def _name(frames: Frames) -> str:
    return "/".join(frame.hex() for frame in frames)


# --- what is published ------------------------------------------------------------------------------------------


def topic_filter(topic: str, framing: Framing) -> bytes:
    """Return what messages about a topic begin with."""
    if framing == "service_framework":
        return _packed(topic) if topic else b""
    return b"" if framing == "body" else topic.encode()


def write_publication(envelope: Envelope, framing: Framing) -> Frames:
    """Return the frames of a message: `[subject, body]`, and headers behind them if there are any.

    With `service_framework` it is one frame: the topic as MessagePack writes a string, if there is one, and the body.
    With `body` it is the body alone.
    """
    if framing == "service_framework":
        return [_packed(envelope.subject) + envelope.body]
    if framing == "body":
        return [envelope.body]
    more = [_FACTS + _written({"id": envelope.id, "headers": _checked(envelope)})] if envelope.headers else []
    return [envelope.subject.encode(), envelope.body, *more]


def read_publication(frames: Frames, framing: Framing, *, subject: str) -> Envelope | None:
    """Return what was published; None if it means nothing in this framing.

    Args:
        frames: The message.
        framing: How it is framed.
        subject: Of messages that name none.
    """
    if framing == "service_framework":
        topic, at = _unpacked(frames[0])
        return Envelope(subject=topic or subject, body=frames[0][at:])
    if framing == "body":
        return Envelope(subject=subject, body=frames[-1])
    if not 2 <= len(frames) <= 3:
        return None
    try:
        facts = _read(frames[2]) if len(frames) == 3 else NO_HEADERS
        named = frames[0].decode() or subject
        headers, given = _headers_in(facts), _text_in(facts, "id")
    except (DecodeError, UnicodeDecodeError):
        return None
    envelope = Envelope(subject=named, body=frames[1], headers=headers)
    return attrs.evolve(envelope, id=given) if given else envelope


def _packed(topic: str) -> bytes:
    """Return a string as MessagePack writes it. Source: its specification, formats fixstr, str 8 and str 16."""
    text = topic.encode()
    if len(text) < 32:
        return bytes([0xA0 | len(text)]) + text
    if len(text) < 256:
        return bytes([0xD9, len(text)]) + text
    return b"\xda" + len(text).to_bytes(2) + text


def _unpacked(frame: bytes) -> tuple[str, int]:
    """Return the topic that a frame begins with, and where the body begins; empty and 0 if there is none."""
    first = frame[:1]
    size, head = 0, 0
    if first and 0xA0 <= first[0] < 0xC0:
        size, head = first[0] & 0x1F, 1
    elif first == b"\xd9":
        size, head = int.from_bytes(frame[1:2]), 2
    elif first == b"\xda":
        size, head = int.from_bytes(frame[1:3]), 3
    topic = frame[head : head + size]
    try:
        return (topic.decode(), head + size) if head and len(topic) == size else ("", 0)
    except UnicodeDecodeError:
        return "", 0


# --- what both say besides --------------------------------------------------------------------------------------


def _checked(envelope: Envelope) -> dict[str, object]:
    """Return the headers to write; raises EncodeError if one would come as something else."""
    if not envelope.headers:
        return {}
    check_headers(envelope.headers)
    return dict(envelope.headers)


def _written(facts: Mapping[str, object]) -> bytes:
    return write_json(facts, max_bytes=_MAX_FACTS, max_depth=_DEPTH)


def _read(frame: bytes, mark: bytes = _FACTS) -> Mapping[str, object]:
    """Return the facts in a frame, or none if it does not begin with the mark.

    Raises:
        DecodeError: if they make no sense.
    """
    if not frame.startswith(mark):
        return NO_HEADERS
    facts = read_json(frame[len(mark) :], max_bytes=_MAX_FACTS, max_depth=_DEPTH)
    if not isinstance(facts, dict):
        raise DecodeError("the facts of a message are no object")
    return cast("Mapping[str, object]", facts)


def _headers_in(facts: Mapping[str, object]) -> Mapping[str, object]:
    headers = facts.get("headers", NO_HEADERS)
    if not isinstance(headers, Mapping):
        raise DecodeError("the headers of a message are no object")
    return cast("Mapping[str, object]", headers)


def _text_in(facts: Mapping[str, object], name: str) -> str:
    text = facts.get(name, "")
    if not isinstance(text, str):
        raise DecodeError(f"the {name} of a message is no text")
    return text


def _deadline_in(facts: Mapping[str, object], now: float) -> float:
    if DEADLINE_HEADER not in facts:
        return math.inf
    deadline = read_deadline(facts[DEADLINE_HEADER], now=now)
    if deadline == math.inf:
        raise DecodeError(f'"{DEADLINE_HEADER}" is milliseconds from now, 0 or more')
    return deadline
