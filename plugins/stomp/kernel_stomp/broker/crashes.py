"""Attempts in which the process died.

Servers tell of a message that it was delivered before, and not how often; a quorum queue of RabbitMQ counts deliveries,
also those that were only fetched and given back. So what comes again, and was given back neither by this process nor
with one of its connections, is sent to its queue anew with a note, from a quorum queue when it has come often. A copy
with the note that comes again and again was in the hand of a process that ended, and so was, as far as anybody can know,
the message before it. It is forgiven some times: a message is marked as delivered also by who only declares its queue, and
by a consumer that leaves while it is on its way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Final, final

import attrs

from .letters import COMINGS, CRASHES, number_of

FORGIVEN: Final = 10
"""Times that a quorum queue may have delivered a message before there is a note: it counts what was returned, too."""
FORGIVEN_NOTED: Final = 3
"""Times in a row that a copy with a note may come again before that is counted."""
_COUNT: Final = "x-delivery-count"
_MAX_SPARED: Final = 20_000


@final
@attrs.define(eq=False, repr=False)
class Spared:
    """What this process has given back, or lost with a connection: that it comes again says nothing about a crash."""

    _known: OrderedDict[tuple[str, Hashable], None] = attrs.field(
        factory=OrderedDict[tuple[str, Hashable], None], init=False
    )
    """Queue and id of those given back last."""
    _unseen: dict[str, int] = attrs.field(factory=dict[str, int], init=False)
    """Queue -> how many more may have been on their way here when a connection broke: nobody has seen which."""

    def add(self, queue: str, id_: Hashable) -> None:
        """Take note of a delivery that will come again."""
        self._known[queue, id_] = None
        if len(self._known) > _MAX_SPARED:
            self._known.popitem(last=False)

    def lose(self, queue: str, unseen: int) -> None:
        """Take note that a connection broke, with up to so many deliveries that were not read.

        So a message whose process died is not counted now and then; what is never tried is not put aside for that.
        """
        self._unseen[queue] = max(self._unseen.get(queue, 0), unseen)

    def take(self, queue: str, id_: Hashable) -> bool:
        """Return whether a delivery is such a one; it is asked for once."""
        if self._known.pop((queue, id_), self) is None:
            return True
        if left := self._unseen.get(queue, 0):
            self._unseen[queue] = left - 1
        return left > 0


@final
@attrs.frozen
class Note:
    """What a copy says."""

    crashes: int = 0
    """Attempts in which a process died."""
    comings: int = 0
    """Times in a row that it came again and nobody had given it back in order, of those that are forgiven."""

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Note:
        """Return what a message says."""
        return cls(number_of(headers, CRASHES), number_of(headers, COMINGS))

    def returned(self) -> Note:
        """Return what a copy says that is given back in order."""
        return Note(crashes=self.crashes)

    def headers(self) -> Mapping[str, str]:
        """Return the headers that say it."""
        comings = {COMINGS: str(self.comings)} if self.comings else {}
        return {CRASHES: str(self.crashes), **comings}


def is_suspect(headers: Mapping[str, str]) -> bool:
    """Return whether a message may have been in the hand of a process that ended, and that is to be noted."""
    if headers.get("redelivered") != "true":
        return False
    least = FORGIVEN_NOTED if is_noted(headers) else FORGIVEN
    return not _is_counted(headers) or number_of(headers, _COUNT) >= least


def is_noted(headers: Mapping[str, str]) -> bool:
    """Return whether a message is a copy that has a note."""
    return CRASHES in headers


def next_note(headers: Mapping[str, str]) -> Note:
    """Return what is to be noted of a suspect: no crash of a first one, which may have been given back."""
    if not is_noted(headers):
        return Note()
    note = Note.of(headers)
    if note.comings < FORGIVEN_NOTED and not _is_counted(headers):
        return Note(crashes=note.crashes, comings=note.comings + 1)
    return Note(crashes=note.crashes + 1 if note.crashes else 2, comings=note.comings)


def _is_counted(headers: Mapping[str, str]) -> bool:
    return _COUNT in headers
