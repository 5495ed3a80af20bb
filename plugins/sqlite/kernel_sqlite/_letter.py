"""Messages as rows: what is stored of an envelope, and what is claimed. Knows no clock but the one of the wall."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NamedTuple, cast

import trio

from kernel import NO_HEADERS, Envelope
from kernel.abc import check_envelope
from kernel.errors import EncodeError


class Letter(NamedTuple):
    """An envelope as it is stored. A plain tuple: it is made for every message, on the way in and out."""

    id: str
    subject: str
    body: bytes
    headers: str
    """JSON, or empty."""
    content_type: str
    reply_to: str
    correlation_id: str
    rank: int
    """9 - priority."""
    delay: float
    deadline: float | None
    """In seconds since 1970, as every time in the file: processes share no other clock."""


class Claim(NamedTuple):
    """A message that one process has taken, for as long as `holder` is its own."""

    seq: int
    queue: int
    holder: int
    attempt: int
    redelivered: bool
    expires: float | None
    key: str | None
    """What orders it among others; None for nothing."""
    letter: Letter


def write_letter(envelope: Envelope, *, now: float) -> Letter:
    """Return what to store.

    Args:
        envelope: Its deadline is in trio's time of this process.
        now: Seconds since 1970.

    Raises:
        ValueError: if the priority is out of range.
        EncodeError: if the headers hold what JSON cannot say.
    """
    check_envelope(envelope)
    deadline = envelope.deadline
    # As `Letter(...)`, which hands each value over twice.
    return tuple.__new__(  # pyright: ignore[reportUnknownMemberType]  what it may be made of is not said
        Letter,
        (
            envelope.id,
            envelope.subject,
            envelope.body,
            _write_headers(envelope.headers) if envelope.headers else "",
            envelope.content_type,
            envelope.reply_to,
            envelope.correlation_id,
            9 - envelope.priority,
            envelope.delay,
            None if deadline == math.inf else now + deadline - trio.current_time(),
        ),
    )


def _write_headers(headers: Mapping[str, object]) -> str:
    try:
        return json.dumps(dict(headers), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise EncodeError(f"a header is nothing that JSON can say: {error}") from error


def read_letter(letter: Letter, *, now: float) -> Envelope:
    """Return the envelope; its deadline is in trio's time of this process.

    Raises:
        ValueError: if its headers are none, as somebody else may have written them.
    """
    headers: object = json.loads(letter.headers) if letter.headers else NO_HEADERS
    if not isinstance(headers, Mapping):
        raise ValueError("its headers are no object")  # noqa: TRY004  as what json raises
    deadline = math.inf if letter.deadline is None else trio.current_time() + letter.deadline - now
    return Envelope(
        subject=letter.subject,
        body=letter.body,
        headers=cast("Mapping[str, object]", headers),
        id=letter.id,
        content_type=letter.content_type,
        reply_to=letter.reply_to,
        correlation_id=letter.correlation_id,
        priority=9 - letter.rank,
        deadline=deadline,
    )
