"""Which workers fail at all that they are given, for whoever asks why nothing gets done."""

from __future__ import annotations

from typing import final

import attrs

from .failure import Mask, describe


@final
@attrs.frozen(kw_only=True)
class InARow:
    """Deliveries of one worker that failed, with none between that did not."""

    count: int
    since: float
    """When the first failed, in `trio.current_time()`."""
    error: str
    """The last one, in a line."""


@final
@attrs.define(eq=False, repr=False)
class Rows:
    """Counts failures in a row for each worker of a dispatcher; holds one text for each."""

    mask: Mask = str
    """Takes the secrets of the manifest out of a text, before it is cut."""
    _by_worker: dict[str, InARow] = attrs.field(factory=dict[str, InARow], init=False)

    def failed(self, worker: str, error: BaseException, now: float) -> None:
        """Note a failure.

        Args:
            worker: `worker/name`; empty if none was found, or if several decided together.
            error: What failed.
            now: In `trio.current_time()`.
        """
        row = self._by_worker.get(worker)
        count, since = (1, now) if row is None else (row.count + 1, row.since)
        self._by_worker[worker] = InARow(count=count, since=since, error=describe(error, self.mask))

    def handled(self, worker: str) -> None:
        """Note that one was handled."""
        if self._by_worker:
            self._by_worker.pop(worker, None)

    def longer_than(self, least: int) -> list[tuple[str, InARow]]:
        """Return the workers whose rows are at least so long. May be called from any thread."""
        return [(worker, row) for worker, row in list(self._by_worker.items()) if row.count >= least]
