"""Envelopes -> messages of AMQP 1.0. Pure, but for the clock.

- Headers: application properties, typed. What those cannot say, lists and tables, is JSON in the one `kernel-json`.
- Attempts: the application property `kernel-attempts`, and what the broker counts as deliveries that failed.
- Deadline: the application property `kernel-deadline`.
- Body: one data section. From others, text is taken as UTF-8, and other values as JSON.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Final, final

import attrs

from kernel import Envelope
from kernel.abc import COMINGS_HEADER, CRASHES_HEADER, DEADLINE_HEADER, CrashNote, check_envelope, write_deadline
from kernel.errors import EncodeError

from .._addresses import Addresses
from ..link.proton import Proton, ProtonMessage

ATTEMPTS: Final = "kernel-attempts"
JSON: Final = "kernel-json"
DELAY: Final = "x-opt-delivery-delay"
"""Message annotation: milliseconds that a broker holds a message back. Source: Artemis, Scheduled Messages."""
OURS: Final = frozenset({ATTEMPTS, CRASHES_HEADER, COMINGS_HEADER, JSON, DEADLINE_HEADER})
_LONG: Final = 2**63


@final
@attrs.frozen(kw_only=True)
class Letter:
    """A message as it was read."""

    envelope: Envelope
    attempts: int
    """Those behind it."""
    is_again: bool
    """Whether it may have been delivered before."""
    note: CrashNote | None = None
    """What it says of crashes, if it is a copy that notes them."""
    counted: int = 0
    """Attempts behind it that it says itself, without those in which a process died."""
    is_uncounted: bool = False
    """Whether it was delivered before, and the broker does not say how often."""
    sent: float = 0.0
    """Seconds since 1970, by the clock of who sent it; 0 if it does not say."""


def write_letter(
    proton: Proton,
    addresses: Addresses,
    envelope: Envelope,
    *,
    now: float,
    to: str | None = None,
    attempts: int = 0,
    delay: float = 0.0,
    as_text: bool = False,
    note: CrashNote | None = None,
) -> bytes:
    """Return an encoded message.

    Args:
        proton: The package.
        addresses: How the broker names queues.
        envelope: What to send.
        now: `trio.current_time()`.
        to: The address that the message itself says.
        attempts: Those behind it.
        delay: Seconds for which the broker is to hold it back by itself.
        as_text: Whether a body that is UTF-8 is one value of text, and not bytes.
        note: What it says of crashes.

    Raises:
        ValueError: if its priority is not 0 to 9.
        EncodeError: if it has headers that AMQP 1.0 has no place for.
    """
    check_envelope(envelope)
    message = proton.Message()
    message.body = text = _text_of(envelope.body) if as_text else envelope.body
    message.inferred, message.durable = not isinstance(text, str), True
    message.first_acquirer = True  # until a broker that tells says otherwise
    message.id, message.subject, message.priority = envelope.id, envelope.subject, envelope.priority
    message.address, message.creation_time = to, time.time()
    if envelope.content_type:
        message.content_type = envelope.content_type
    if envelope.reply_to:
        message.reply_to = addresses.queue(envelope.reply_to)
    if envelope.correlation_id:
        message.correlation_id = envelope.correlation_id
    properties = _properties(envelope, now=now, wait=envelope.delay or delay)
    if attempts:
        properties[ATTEMPTS] = attempts
    if note is not None:
        properties |= note.headers()
    if properties:
        message.properties = properties
    if delay > 0:
        message.annotations = {proton.symbol(DELAY): math.ceil(delay * 1000)}
    return _encode(message, envelope)


def _encode(message: ProtonMessage, envelope: Envelope) -> bytes:
    try:
        return message.encode()
    except Exception as error:  # the engine has no tree of errors of its own for what it cannot write
        raise EncodeError(f'the message for "{envelope.subject}" cannot be written in AMQP 1.0: {error}') from error


def _properties(envelope: Envelope, *, now: float, wait: float) -> dict[str, object]:
    headers = {key: value for key, value in envelope.headers.items() if key not in OURS} if envelope.headers else {}
    others = {key: value for key, value in headers.items() if not _is_simple(value)}
    if others:
        headers = {key: value for key, value in headers.items() if key not in others}
        headers[JSON] = _write_json(others, envelope)
    if envelope.deadline != math.inf:
        # A delay eats from the time that remains: no clock runs while a message lies in the broker.
        headers[DEADLINE_HEADER] = write_deadline(envelope.deadline - wait, now=now)
    return headers


def _is_simple(value: object) -> bool:
    return (
        value is None or isinstance(value, str | bool | float) or (isinstance(value, int) and -_LONG <= value < _LONG)
    )


def _write_json(others: Mapping[str, object], envelope: Envelope) -> str:
    try:
        return json.dumps(others)
    except (TypeError, ValueError, RecursionError) as error:
        raise EncodeError(f'the headers of the message for "{envelope.subject}" are not what JSON can say') from error


def _text_of(body: bytes) -> str | bytes:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body
