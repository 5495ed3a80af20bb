"""What the headers of a message say of attempts in which a process died: see `kernel.abc.CrashNote`. Pure.

Servers tell of a message that it was delivered before, and not how often; a quorum queue of RabbitMQ counts deliveries,
also those that were only fetched and given back, so there a note is made when it has come often. A message is marked as
delivered also by who only declares its queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kernel.abc import COMINGS_HEADER, CRASHES_HEADER, CrashNote

from .letters import number_of

FORGIVEN: Final = 10
"""Times that a quorum queue may have delivered a message before there is a note: it counts what was returned, too."""
FORGIVEN_NOTED: Final = 3
"""Likewise of a copy with a note."""
_COUNT: Final = "x-delivery-count"


def is_suspect(headers: Mapping[str, str]) -> bool:
    """Return whether a message may have been in the hand of a process that ended, and that is to be noted."""
    if headers.get("redelivered") != "true":
        return False
    least = FORGIVEN_NOTED if is_noted(headers) else FORGIVEN
    return not _is_counted(headers) or number_of(headers, _COUNT) >= least


def is_noted(headers: Mapping[str, str]) -> bool:
    """Return whether a message is a copy that has a note."""
    return CRASHES_HEADER in headers


def note_of(headers: Mapping[str, str]) -> CrashNote:
    """Return what a copy says."""
    return CrashNote(number_of(headers, CRASHES_HEADER), number_of(headers, COMINGS_HEADER))


def next_note(headers: Mapping[str, str]) -> CrashNote:
    """Return what is to be noted of a suspect: no crash of a first one, which may have been given back."""
    return note_of(headers).next(is_counted=_is_counted(headers)) if is_noted(headers) else CrashNote()


def _is_counted(headers: Mapping[str, str]) -> bool:
    return _COUNT in headers
