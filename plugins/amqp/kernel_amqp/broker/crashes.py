"""Attempts in which the process died.

A classic queue tells of a delivery that it was delivered before, and not how often; a quorum queue counts deliveries,
also those that were only fetched and given back. So what comes again, and was given back neither by this process nor
with one of its connections, is sent to its queue anew with a note, at a quorum queue when it has come often; a copy with
the note that comes again was in the hand of a process that ended, and so was, as far as anybody can know, the message
before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, final

import attrs

from ..core import Delivered
from .headers import CRASHES, DELIVERY_COUNT

FORGIVEN: Final = 10
"""Times that a quorum queue may have delivered a message before there is a note: it counts what was returned, too."""
FORGIVEN_NOTED: Final = 3
"""Likewise of a copy with a note, which nobody returns: what is on its way when a consumer leaves is counted as well."""
_MAX_SPARED: Final = 20_000
_Key = tuple[str, str | int]


@final
@attrs.define(eq=False, repr=False)
class Spared:
    """What this process has given back, or lost with a connection: that it comes again says nothing about a crash."""

    _known: OrderedDict[_Key, None] = attrs.field(factory=OrderedDict[_Key, None], init=False)
    """Those given back last."""
    _unseen: dict[str, int] = attrs.field(factory=dict[str, int], init=False)
    """Queue -> how many more may have been on their way here when a connection broke: nobody has seen which."""

    def add(self, queue: str, event: Delivered) -> None:
        """Take note of a delivery that will come again."""
        self._known[_key(queue, event)] = None
        if len(self._known) > _MAX_SPARED:
            self._known.popitem(last=False)

    def lose(self, queue: str, unseen: int) -> None:
        """Take note that a connection broke, with up to so many deliveries that were not read.

        So a message whose process died is not counted now and then; what is never tried is not put aside for that.
        """
        self._unseen[queue] = max(self._unseen.get(queue, 0), unseen)

    def take(self, queue: str, event: Delivered) -> bool:
        """Return whether a delivery is such a one; it is asked for once."""
        if self._known.pop(_key(queue, event), self) is None:
            return True
        if left := self._unseen.get(queue, 0):
            self._unseen[queue] = left - 1
        return left > 0


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


def _key(queue: str, event: Delivered) -> _Key:
    return queue, event.properties.message_id or hash(event.body)
