"""Attempts in which a process died, where a broker only tells of a message that it was delivered before.

What comes again, and was given back neither by this process nor with one of its connections, is sent to its queue anew with
a note. A copy with the note that comes again and again was in the hand of a process that ended, and so was, as far as
anybody can know, the message before it. It is forgiven some times: what is on its way to a consumer that leaves is marked
as delivered, too. Public through `kernel.abc`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Final, final

import attrs

from .fields import ByFields

CRASHES_HEADER: Final = "kernel-crashes"
"""The attempts in which a process died, of a copy that was made to note that."""
COMINGS_HEADER: Final = "kernel-comings"
"""Times that such a copy came again which are not counted."""
FORGIVEN: Final = 3
"""Times in a row that a copy with a note may come again before that is counted."""
_MAX_SPARED: Final = 20_000


@final
@attrs.frozen(eq=False, repr=False)
class CrashNote(ByFields):
    """What a copy says."""

    crashes: int = 0
    """Attempts in which a process died."""
    comings: int = 0
    """Times in a row that it came again and nobody had given it back in order, of those that are forgiven."""

    def next(self, *, is_counted: bool = False) -> CrashNote:
        """Return what the copy of a copy says that came again; it has died with two when that counts for the first time.

        Args:
            is_counted: Whether the broker counts how often it came, and that was too often: then nothing is forgiven.
        """
        if self.comings < FORGIVEN and not is_counted:
            return CrashNote(crashes=self.crashes, comings=self.comings + 1)
        return CrashNote(crashes=self.crashes + 1 if self.crashes else 2, comings=self.comings)

    def returned(self) -> CrashNote:
        """Return what a copy says that is given back in order."""
        return CrashNote(crashes=self.crashes)

    def headers(self) -> Mapping[str, int]:
        """Return the headers that say it."""
        return {CRASHES_HEADER: self.crashes} | ({COMINGS_HEADER: self.comings} if self.comings else {})


@final
@attrs.define(eq=False, repr=False)
class Spared:
    """What this process has given back, or lost with a connection: that it comes again says nothing about a crash."""

    _known: OrderedDict[tuple[str, Hashable], None] = attrs.field(
        factory=OrderedDict[tuple[str, Hashable], None], init=False
    )
    """Queue and id of those given back last, 20,000 at most: one that is forgotten is sent anew with a note."""
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
