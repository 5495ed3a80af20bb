"""Acknowledgements that wait to be sent: those that stand next to each other become one frame.

A broker spends about as much on the frame of an acknowledgement as on that of a message, so a hundred of them that are
sent together should not be a hundred frames.
"""

from __future__ import annotations

from typing import final

import attrs


@final
@attrs.define(eq=False, repr=False)
class Acks:
    """The acknowledgements of one channel.

    "All up to this one" must cover nothing that is still under way, and must name a delivery that is: RabbitMQ closes
    the channel for a tag that it does not know. So the tags below which everything is settled are kept track of, as
    long as the peer counts deliveries 1, 2, 3; for one that does not, each is sent by itself.
    """

    _pending: list[int] = attrs.field(factory=list[int], init=False)
    _delivered: int = attrs.field(default=0, init=False)
    """The tag of the last delivery."""
    _lowest: int = attrs.field(default=1, init=False)
    """The lowest tag that is not settled."""
    _settled: set[int] = attrs.field(factory=set[int], init=False)
    """Tags above it that are."""
    _counts: bool = attrs.field(default=True, init=False)
    """Whether the peer counts."""

    def delivered(self, tag: int) -> None:
        """Take note of a delivery."""
        if tag != self._delivered + 1:
            self._counts = False
            self._settled.clear()
        self._delivered = tag

    def add(self, tag: int) -> bool:
        """Have a delivery acknowledged with the next `take`; return whether it is the first one."""
        self._pending.append(tag)
        return len(self._pending) == 1

    def settled(self, tag: int, *, below: bool = False) -> None:
        """Take note that a delivery, and those `below` it, were settled in another way."""
        if not self._counts:
            return
        if below:
            self._lowest = max(self._lowest, min(tag, self._delivered) + 1)
            self._settled = {above for above in self._settled if above >= self._lowest}
        elif tag >= self._lowest:
            self._settled.add(tag)

    def take(self) -> list[tuple[int, bool]]:
        """Return what is to be acknowledged: tags, and whether all below are meant as well."""
        pending, self._pending = self._pending, []
        if not self._counts:
            return [(tag, False) for tag in pending]
        settled, lowest = self._settled, self._lowest
        settled.update(pending)
        while lowest in settled:
            settled.remove(lowest)
            lowest += 1
        self._lowest = lowest
        together = [tag for tag in pending if tag < lowest]
        alone = [(tag, False) for tag in pending if tag > lowest]
        return [(max(together), len(together) > 1), *alone] if together else alone
