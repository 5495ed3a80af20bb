"""Envelopes <-> headers of STOMP; what a message that lacks ours is taken for. Pure.

A header of STOMP is text. What is no text, or has a name that means something to a server, goes as JSON in one header
more, `kernel-headers`; all else is there under its own name, so that others can read it and write it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, cast, final

import attrs

from kernel import NO_HEADERS, Envelope, new_id
from kernel.abc import COMINGS_HEADER, CRASHES_HEADER, DEADLINE_HEADER, check_envelope, read_deadline, write_deadline
from kernel.errors import EncodeError

from ..core import Frame

if TYPE_CHECKING:
    from attrs import frozen as _value
else:
    _value = attrs.define
    """Frozen for type checkers alone, as the frame that it is made of."""

ATTEMPTS: Final = "kernel-attempts"
"""The attempts that a message has behind it."""
SUBJECT: Final = "kernel-subject"
EXCHANGE: Final = "kernel-exchange"
"""The exchange that a message was sent to, where the destination does not tell."""
TARGET: Final = "kernel-target"
"""Where a message goes that waits in a place for delayed ones."""
OTHERS: Final = "kernel-headers"
"""A JSON object of the headers that are no text, or have a name of the server's."""
_OURS: Final = frozenset({
    ATTEMPTS,
    CRASHES_HEADER,
    COMINGS_HEADER,
    SUBJECT,
    EXCHANGE,
    TARGET,
    OTHERS,
    DEADLINE_HEADER,
    "kernel-id",
})
# fmt: off
_OF_SERVERS: Final = frozenset((
    "accept-version", "ack", "amqp-message-id", "app-id", "auto-delete", "browser", "cluster-id",
    "content-encoding", "content-length", "content-type", "correlation-id", "destination", "durable", "exclusive",
    "expiration", "expires", "heart-beat", "host", "id", "login", "message", "message-id", "original-destination",
    "passcode", "persistent", "prefetch-count", "priority", "receipt", "receipt-id", "redelivered", "reply-to",
    "requeue", "selector", "server", "session", "subscription", "timestamp", "transaction", "transformation",
    "type", "user-id", "version", "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-delivery-count",
    "x-expires", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason", "x-last-death-exchange",
    "x-last-death-queue", "x-last-death-reason", "x-max-length", "x-max-length-bytes", "x-max-priority",
    "x-message-ttl", "x-queue-name", "x-queue-type", "x-priority", "x-stream-offset", "x-death", "cc", "bcc",
))
# fmt: on
_TAKEN: Final = _OF_SERVERS | _OURS - {OTHERS}
"""Those of which nothing is a header of the message's own."""
_PREFIXES: Final = ("JMS", "AMQ_", "activemq.")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_TEXT: Final = re.compile(r"[^\x00-\x1f\s](?:[^\x00-\x08\x0b\x0c\x0e-\x1f]*[^\x00-\x1f\s])?")


@final
@_value(kw_only=True, repr=False)
class Letter:
    """What came, as the kernel means it."""

    envelope: Envelope
    attempts: int
    """Those behind it."""


def write_letter(envelope: Envelope, *, now: float, attempts: int = 0) -> dict[str, str]:
    """Return the headers of a message; those that only one server knows, and the destination, come besides.

    Raises:
        EncodeError: if a header is nothing that JSON can say.
        ValueError: if its priority is not 0 to 9.
    """
    check_envelope(envelope)
    headers = _write_headers(envelope.headers) if envelope.headers else {}
    headers["persistent"] = "true"
    headers[SUBJECT] = envelope.subject
    for key, text in (("content-type", envelope.content_type), ("correlation-id", envelope.correlation_id)):
        if text:
            headers[key] = text
    if envelope.priority:
        headers["priority"] = str(envelope.priority)
    if attempts:
        headers[ATTEMPTS] = str(attempts)
    if envelope.deadline != math.inf:
        # A delay eats from the time that remains: no clock runs while a message waits for its time.
        headers[DEADLINE_HEADER] = write_deadline(envelope.deadline - envelope.delay, now=now) or "0"
    return headers


def read_letter(
    frame: Frame, *, id_: str, reply_to: str, subject: Callable[[Mapping[str, str]], str], now: float
) -> Letter:
    """Return what a message means.

    Args:
        frame: The message.
        id_: Its id, as the server has it; empty if none was given.
        reply_to: Where answers go.
        subject: Tells what it is about if it does not say.
        now: The time, from which its deadline is counted.
    """
    headers = frame.headers
    priority = headers.get("priority")
    envelope = Envelope(
        subject=headers.get(SUBJECT) or subject(headers),
        body=frame.body,
        headers=_read_headers(headers),
        id=id_ or new_id(),
        content_type=headers.get("content-type", ""),
        reply_to=reply_to,
        correlation_id=headers.get("correlation-id", ""),
        priority=min(int(priority), 9) if priority and _is_number(priority) else 0,
        deadline=read_deadline(headers[DEADLINE_HEADER], now=now) if DEADLINE_HEADER in headers else math.inf,
    )
    return Letter(envelope=envelope, attempts=number_of(headers, ATTEMPTS) + number_of(headers, CRASHES_HEADER))


def number_of(headers: Mapping[str, str], name: str) -> int:
    """Return a header that is a number; 0 for every other."""
    text = headers.get(name)
    return int(text) if text and _is_number(text) else 0


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def is_plain(name: str) -> bool:
    """Return whether a header can go under its own name: it means nothing to a server, nor to us."""
    is_free = name not in _TAKEN and name != OTHERS and not name.startswith(_PREFIXES)
    return is_free and _NAME.fullmatch(name) is not None


def _write_headers(headers: Mapping[str, object]) -> dict[str, str]:
    plain: dict[str, str] = {}
    others: dict[str, object] = {}
    for name, value in headers.items():
        if isinstance(value, str) and is_plain(name) and _TEXT.fullmatch(value):
            plain[name] = value
        elif name not in _OURS:
            others[name] = value
    if others:
        try:
            plain[OTHERS] = json.dumps(others, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise EncodeError(f"a header is nothing that JSON can say: {error}") from error
    return plain


def _read_headers(headers: Mapping[str, str]) -> Mapping[str, object]:
    if _TAKEN.issuperset(headers):  # as most of them are, which is asked of all at once
        return NO_HEADERS
    plain: dict[str, object] = {name: value for name, value in headers.items() if is_plain(name)}
    return plain | _read_others(headers[OTHERS]) if OTHERS in headers else plain or NO_HEADERS


def _read_others(text: str) -> dict[str, object]:
    """Return the headers in JSON; nonsense that another program wrote there means nothing."""
    try:
        others: object = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", others) if isinstance(others, dict) else {}
