"""What is counted together, found once for all of a kind: to look up a series by its labels costs as much as to count."""

from __future__ import annotations

from typing import final

import attrs

from ._counting import Histogram, Labels, Series


@final
@attrs.define(eq=False, repr=False)
class DeliveryRow:
    """Where the usual end of a delivery is counted."""

    dispatcher: str
    worker: str
    _acks: Labels
    _counts: dict[Labels, float]
    """Of which this is counted by them."""
    _times: Series
    _queue_times: Histogram
    seconds: list[float] = attrs.field(factory=list[float], init=False)
    """From taken to settled, of those that are not counted yet."""
    queued: list[float] = attrs.field(factory=list[float], init=False)
    """In the queue, of those of which the source tells."""

    def count(self) -> None:
        """Count what is not counted yet."""
        seconds, self.seconds = self.seconds, []
        queued, self.queued = self.queued, []
        self._counts[self._acks] += len(seconds)
        self._times.observe_all(seconds)
        if queued:
            self._queue_times.of((self.dispatcher, self.worker)).observe_all(queued)


@final
@attrs.define(eq=False, repr=False)
class RequestRow:
    """Where requests of one dispatcher, worker, method and status are counted."""

    dispatcher: str
    worker: str
    method: str
    """As it was asked with."""
    status: int
    by: Labels
    """What they are counted by."""
    counts: dict[Labels, float]
    received_by: Labels
    sent_by: Labels
    amounts: dict[Labels, float]
    times: Series
    seconds: list[float] = attrs.field(factory=list[float], init=False)
    """That those took which are not counted yet."""
    received: int = attrs.field(default=0, init=False)
    """Bytes of body of these."""
    sent: int = attrs.field(default=0, init=False)

    def add(self, seconds: float, received: int, sent: int) -> None:
        """Take one, to be counted with the next."""
        self.seconds.append(seconds)
        self.received += received
        self.sent += sent

    def count(self) -> None:
        """Count what is not counted yet."""
        seconds, self.seconds = self.seconds, []
        received, sent, self.received, self.sent = self.received, self.sent, 0, 0
        self.counts[self.by] += len(seconds)
        self.amounts[self.received_by] += received
        self.amounts[self.sent_by] += sent
        self.times.observe_all(seconds)
