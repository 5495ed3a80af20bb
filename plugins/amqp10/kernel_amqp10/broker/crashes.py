"""Attempts in which the process died.

RabbitMQ tells of a message over AMQP 1.0 that it was delivered before, and of a classic queue not how often. So what
comes again, and was given back neither by this process nor with one of its connections, is sent to its queue anew with a
note. A copy with the note that comes again and again was in the hand of a process that ended, and so was, as far as
anybody can know, the message before it. It is forgiven some times: a consumer that leaves marks what is on its way to it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, final

import attrs

CRASHES: Final = "kernel-crashes"
"""The attempts in which a process died, of a copy that was made to note that."""
COMINGS: Final = "kernel-comings"
"""Times that such a copy came again which are not counted."""
FORGIVEN: Final = 3
"""Times in a row that a copy with a note may come again before that is counted."""
_MOST: Final = 1 << 20
_MAX_SPARED: Final = 20_000


@final
@attrs.frozen
class Note:
    """What a copy says."""

    crashes: int = 0
    """Attempts in which a process died."""
    comings: int = 0
    """Times in a row that it came again and nobody had given it back in order, of those that are forgiven."""

    @classmethod
    def of(cls, table: Mapping[str, object]) -> Note | None:
        """Return what a message says; None if it is no such copy."""
        return cls(number_of(table, CRASHES), number_of(table, COMINGS)) if CRASHES in table else None

    def returned(self) -> Note:
        """Return what a copy says that is given back in order."""
        return Note(crashes=self.crashes)

    def properties(self) -> Mapping[str, object]:
        """Return the application properties that say it."""
        return {CRASHES: self.crashes} | ({COMINGS: self.comings} if self.comings else {})


def next_note(note: Note | None) -> Note:
    """Return what is to be noted of a suspect: no crash of a first one, which may have been given back."""
    if note is None:
        return Note()
    if note.comings < FORGIVEN:
        return Note(crashes=note.crashes, comings=note.comings + 1)
    return Note(crashes=note.crashes + 1 if note.crashes else 2, comings=note.comings)


def number_of(table: Mapping[str, object], name: str) -> int:
    """Return an application property that is a number, 0 for every other."""
    number = table.get(name)
    return min(int(number), _MOST) if isinstance(number, int) and number > 0 else 0


@final
@attrs.define(eq=False, repr=False)
class Spared:
    """What this process has given back, or lost with a connection: that it comes again says nothing about a crash."""

    _known: OrderedDict[tuple[str, str], None] = attrs.field(factory=OrderedDict[tuple[str, str], None], init=False)
    """Queue and id of those given back last."""
    _unseen: dict[str, int] = attrs.field(factory=dict[str, int], init=False)
    """Queue -> how many more may have been on their way here when a connection broke: nobody has seen which."""

    def add(self, queue: str, id_: str) -> None:
        """Take note of a delivery that will come again."""
        self._known[queue, id_] = None
        if len(self._known) > _MAX_SPARED:
            self._known.popitem(last=False)

    def lose(self, queue: str, unseen: int) -> None:
        """Take note that a connection broke, with up to so many deliveries that were not read.

        So a message whose process died is not counted now and then; what is never tried is not put aside for that.
        """
        self._unseen[queue] = max(self._unseen.get(queue, 0), unseen)

    def take(self, queue: str, id_: str) -> bool:
        """Return whether a delivery is such a one; it is asked for once."""
        if self._known.pop((queue, id_), self) is None:
            return True
        if left := self._unseen.get(queue, 0):
            self._unseen[queue] = left - 1
        return left > 0
