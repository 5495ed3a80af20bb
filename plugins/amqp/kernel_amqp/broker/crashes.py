"""Attempts in which the process died.

A classic queue tells of a delivery that it was delivered before, and not how often; a quorum queue counts deliveries,
also those that were only fetched and given back. So what comes again, and was given back neither by this process nor
with one of its connections, is sent to its queue anew with a note, at a quorum queue when it has come often; a copy with
the note that comes again was in the hand of a process that ended, and so was, as far as anybody can know, the message
before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..core import Delivered
from .headers import CRASHES, DELIVERY_COUNT

FORGIVEN: Final = 10
"""Times that a quorum queue may have delivered a message before there is a note: it counts what was returned, too."""
FORGIVEN_NOTED: Final = 3
"""Likewise of a copy with a note, which nobody returns: what is on its way when a consumer leaves is counted as well."""


def is_suspect(event: Delivered) -> bool:
    """Return whether a message may have been in the hand of a process that ended, and that is to be noted."""
    table = event.properties.headers or {}
    count = table.get(DELIVERY_COUNT)
    least = FORGIVEN_NOTED if CRASHES in table else FORGIVEN
    return event.redelivered and (not isinstance(count, int) or count >= least)


def is_noted(event: Delivered) -> bool:
    """Return whether a message is a copy that has a note."""
    return CRASHES in (event.properties.headers or {})


def crashes_of(table: Mapping[str, object]) -> int:
    """Return the attempts in which a process died."""
    count = table.get(CRASHES)
    return count if isinstance(count, int) and count > 0 else 0


def next_count(event: Delivered) -> int:
    """Return what is to be noted of a suspect: nothing of a first one, which may have been given back."""
    table = event.properties.headers or {}
    if CRASHES not in table:
        return 0
    return crashes_of(table) + 1 if crashes_of(table) else 2


def key_of(event: Delivered) -> str | int:
    """Return what a message is known by when it comes again: its id, or that of its bytes where it has none."""
    return event.properties.message_id or hash(event.body)
