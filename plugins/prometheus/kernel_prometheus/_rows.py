"""What is counted together, found once for all of a kind: to look up a series by its labels costs as much as to count."""

from __future__ import annotations

from typing import final

import attrs

from ._counting import Histogram, Labels, Series


@final
@attrs.define(eq=False, repr=False)
class DeliveryRow:
    """Where the usual end of a delivery is counted."""

    labels: Labels
    """Dispatcher and worker."""
    acks: Labels
    times: Series
    _queue_times: Histogram
    _queued: Series | None = attrs.field(default=None, init=False)
    """None until a source tells of such a time."""

    def observe_queued(self, seconds: float) -> None:
        """Add a time in the queue."""
        if self._queued is None:
            self._queued = self._queue_times.of(self.labels)
        self._queued.observe(seconds)


@final
@attrs.define(eq=False, repr=False)
class RequestRow:
    """Where requests of one dispatcher, worker, method and status are counted."""

    count: Labels
    received: Labels
    sent: Labels
    times: Series
