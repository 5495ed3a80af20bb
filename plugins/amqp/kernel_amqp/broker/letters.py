"""Envelopes <-> properties of AMQP messages; what a message that lacks ours is taken for. Pure.

- Subject: the routing key; the header `kernel-subject` where the routing key is the name of the queue.
- Attempts: the headers `kernel-attempts` and `kernel-crashes`; what a quorum queue counts of deliveries says nothing.
- Deadline: the header `kernel-deadline`, and `expiration`, by which the broker puts aside what is too late.
- Death: the headers `kernel-death-*`; the broker's own `x-death` is translated to them.
- Properties that only AMQP has, such as `type`: the headers `amqp-*`, and `kernel-user-id` in copies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, cast

import attrs

from kernel import NO_HEADERS, Envelope, new_id
from kernel.abc import DEADLINE_HEADER, MAX_DEATHS, check_envelope, death_headers, read_deadline, write_deadline

from ..core import Delivered, Properties
from .crashes import crashes_of
from .headers import (
    ATTEMPTS,
    CRASHES,
    DEATHS,
    DELIVERY_COUNT,
    SENDER,
    SUBJECT,
    strip_headers,
    to_json_values,
    without_deaths,
)
from .named import LONGEST_EXPIRATION, has_named, is_named, named, take_named

DELAY_PREFIX: Final = "kernel.delay."
"""What the names of delay queues begin with: to pass through one is no death."""
_PERSISTENT: Final = 2
_OURS: Final = frozenset({ATTEMPTS, CRASHES, SUBJECT, DEADLINE_HEADER, DELIVERY_COUNT})
_NOTED: Final = "timestamp_in_ms"
"""Source: RabbitMQ, message interceptors."""
_REASONS: Final = {"expired": "expired", "maxlen": "overflow"}
"""Words of the broker for what the contract has its own words for."""


def write_letter(envelope: Envelope, *, now: float) -> Properties:
    """Return the properties of a message that is sent.

    Raises:
        EncodeError: if one of its headers means a property, and has a value that this cannot have.
        ValueError: if its priority is not 0 to 9.
    """
    check_envelope(envelope)
    letter = Properties(content_type=envelope.content_type or None, delivery_mode=_PERSISTENT, message_id=envelope.id)
    headers = _own(envelope.headers) if envelope.headers else {}
    if envelope.deadline != math.inf:
        # A delay eats from the time that remains: no clock runs while a message lies in a delay queue.
        headers[DEADLINE_HEADER] = deadline = write_deadline(envelope.deadline - envelope.delay, now=now)
        letter.expiration = None if envelope.delay > 0 else _expiration(deadline)
    if headers and is_named(headers):
        take_named(headers, letter, delay=envelope.delay)
    if headers:
        letter.headers = headers
    if envelope.priority:
        letter.priority = envelope.priority
    if envelope.correlation_id:
        letter.correlation_id = envelope.correlation_id
    if envelope.reply_to:
        letter.reply_to = envelope.reply_to
    return letter


def write_retry(delivered: Delivered, envelope: Envelope, *, attempts: int, after: float, now: float) -> Properties:
    """Return the properties of the copy that is delivered again, after so many seconds and attempts."""
    deadline = write_deadline(envelope.deadline - after, now=now)
    headers = _copied(delivered, envelope) | {ATTEMPTS: attempts}
    if deadline is not None:
        headers[DEADLINE_HEADER] = deadline
    expiration = delivered.properties.expiration if deadline is None else _expiration(deadline)
    return _copy(delivered, envelope, headers, expiration=None if after > 0 else expiration)


def write_noted(delivered: Delivered, envelope: Envelope, *, crashes: int, now: float) -> Properties:
    """Return the properties of the copy that notes how often a process has died with the message."""
    table = delivered.properties.headers or {}
    letter = write_retry(delivered, envelope, attempts=_counted(table), after=0.0, now=now)
    return attrs.evolve(letter, headers={**(letter.headers or {}), CRASHES: crashes})


def write_dead_letter(
    delivered: Delivered, envelope: Envelope, *, reason: str, queue: str, attempts: int
) -> Properties:
    """Return the properties of the copy that is put aside. It has no deadline, and no attempts behind it."""
    death = death_headers(envelope, reason=reason, queue=queue, attempts=attempts)
    headers = _copied(delivered, envelope) | _deaths_of(death)
    return _copy(delivered, envelope, headers, expiration=None)


def read_letter(delivered: Delivered, *, now: float) -> tuple[Envelope, int]:
    """Return the envelope of a delivery and the attempts behind it."""
    properties = delivered.properties
    table = properties.headers
    if not table:
        found = named(properties, is_due=False, clean=clean) if has_named(properties, is_due=False) else NO_HEADERS
        return _envelope(delivered, clean(delivered.routing_key), found, math.inf), 0
    if len(table) == 1 and DEADLINE_HEADER in table and not has_named(properties, is_due=True):  # as a call comes
        deadline = read_deadline(table[DEADLINE_HEADER], now=now)
        return _envelope(delivered, clean(delivered.routing_key), NO_HEADERS, deadline), 0
    attempts, deaths = _attempts(table), _broker_deaths(table)
    known = table.get(SUBJECT)
    subject = clean(known if isinstance(known, str) else _first_key(deaths) or delivered.routing_key)
    headers = to_json_values({key: value for key, value in table.items() if key not in _OURS})
    is_due = DEADLINE_HEADER in table
    if has_named(properties, is_due=is_due):
        headers |= named(properties, is_due=is_due, clean=clean)
    if deaths:
        envelope = _envelope(delivered, subject, headers, math.inf)
        return _translated(envelope, deaths, attempts), 0
    if DEATHS in headers:
        headers = without_deaths(headers)
    deadline = read_deadline(table[DEADLINE_HEADER], now=now) if is_due else math.inf
    return _envelope(delivered, subject, headers, deadline), attempts


def sent_at(properties: Properties) -> object:
    """Return what a message says of when it was sent, or came to the broker; None if nothing.

    What RabbitMQ has noted, if it is told to note it, is in milliseconds; what senders note is in whole seconds.
    """
    noted = properties.headers.get(_NOTED) if properties.headers else None
    return properties.timestamp if noted is None else noted


def clean(text: str) -> str:
    """Return a text that UTF-8 can write: what another program sent as no UTF-8 is marked."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _own(headers: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in strip_headers(headers).items() if key not in _OURS}


def _expiration(deadline: str | None) -> str | None:
    return deadline if deadline is not None and int(deadline) <= LONGEST_EXPIRATION else None


def _copied(delivered: Delivered, envelope: Envelope) -> dict[str, object]:
    """Return the headers of a copy: those that came, as they came, and the deaths that were translated."""
    headers = _own(delivered.properties.headers or {}) | _deaths_of(envelope.headers)
    headers[SUBJECT] = envelope.subject
    if delivered.properties.user_id is not None:
        headers[SENDER] = clean(delivered.properties.user_id)
    return headers


def _deaths_of(headers: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in headers.items() if key.startswith("kernel-death-")}


def _copy(
    delivered: Delivered, envelope: Envelope, headers: dict[str, object], *, expiration: str | None
) -> Properties:
    """Return properties like those that came, to the byte.

    The user is a header instead: as property the broker takes only our own.
    """
    return attrs.evolve(
        delivered.properties,
        headers=headers,
        delivery_mode=delivered.properties.delivery_mode or _PERSISTENT,
        expiration=expiration,
        message_id=delivered.properties.message_id or envelope.id,
        user_id=None,
    )


def _envelope(delivered: Delivered, subject: str, headers: Mapping[str, object], deadline: float) -> Envelope:
    properties = delivered.properties
    return Envelope(
        subject=subject,
        body=delivered.body,
        headers=headers,
        id=clean(properties.message_id) if properties.message_id else new_id(),
        content_type=clean(properties.content_type) if properties.content_type else "",
        reply_to=properties.reply_to or "",
        correlation_id=properties.correlation_id or "",
        priority=min(properties.priority, 9) if properties.priority else 0,
        deadline=deadline,
    )


def _attempts(table: Mapping[str, object]) -> int:
    return _counted(table) + crashes_of(table)


def _counted(table: Mapping[str, object]) -> int:
    counted = table.get(ATTEMPTS)
    return counted if isinstance(counted, int) and counted > 0 else 0


def _broker_deaths(table: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return what the broker has noted of deaths, oldest first; passing through a delay queue is none."""
    noted = table.get(DEATHS)
    entries = cast("list[object]", noted) if isinstance(noted, list) else []
    deaths = [cast("Mapping[str, object]", entry) for entry in entries if isinstance(entry, dict)]
    return [death for death in deaths if not str(death.get("queue", "")).startswith(DELAY_PREFIX)][:MAX_DEATHS][::-1]


def _first_key(deaths: list[Mapping[str, object]]) -> str:
    """Return the routing key that a letter had before its first death, in which the broker replaced it."""
    keys = deaths[0].get("routing-keys") if deaths else None
    first = cast("list[object]", keys)[0] if isinstance(keys, list) and keys else None
    return first if isinstance(first, str) else ""


def _translated(envelope: Envelope, deaths: list[Mapping[str, object]], attempts: int) -> Envelope:
    """Return the envelope of a dead letter of the broker's own, as if we had written it."""
    letter = attrs.evolve(envelope, headers=without_deaths(envelope.headers))
    for death in deaths:
        reason, queue = str(death.get("reason", "")), clean(str(death.get("queue", "")))
        told = death_headers(letter, reason=_REASONS.get(reason, reason), queue=queue, attempts=attempts)
        letter = attrs.evolve(letter, headers=told)
        attempts = 0
    return letter
