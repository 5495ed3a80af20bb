"""Which published messages the broker has confirmed: each number is told once, whatever the broker's batches are."""

from __future__ import annotations

from typing import final

import attrs

from .errors import COMMAND_INVALID, ViolationError

Ranges = list[tuple[int, int]]
"""First and last number of each."""


@final
@attrs.define(eq=False, repr=False)
class Confirms:
    """The published messages of a channel in confirm mode."""

    published: int = 0
    """The number of the last message; numbers begin with 1."""
    _settled: int = 0
    """All numbers up to this one are confirmed."""
    _ahead: set[int] = attrs.field(factory=set[int])
    """The confirmed numbers beyond; at most as many as messages are under way."""

    def settle(self, number: int, *, multiple: bool) -> Ranges:
        """Return the numbers that a confirm is about and that were not confirmed before.

        Raises:
            ViolationError: if no message has this number.
        """
        if number > self.published or (number == 0 and not multiple):
            raise ViolationError(COMMAND_INVALID, f"the peer confirmed message {number} of {self.published}")
        if multiple:
            return self._settle_up_to(number or self.published)
        return self._settle_one(number)

    def _settle_one(self, number: int) -> Ranges:
        if number <= self._settled or number in self._ahead:
            return []
        if number == self._settled + 1:
            self._advance(number)
        else:
            self._ahead.add(number)
        return [(number, number)]

    def _settle_up_to(self, last: int) -> Ranges:
        if last <= self._settled:
            return []
        ranges: Ranges = []
        first = self._settled + 1
        # Each number is looked at once in the life of the channel, so the cost is that of publishing.
        for number in range(first, last + 1) if self._ahead else ():
            if number in self._ahead:
                self._ahead.remove(number)
                ranges.append((first, number - 1))
                first = number + 1
        self._advance(last)
        return [(begin, end) for begin, end in (*ranges, (first, last)) if begin <= end]

    def _advance(self, settled: int) -> None:
        while settled + 1 in self._ahead:
            settled += 1
            self._ahead.remove(settled)
        self._settled = settled
