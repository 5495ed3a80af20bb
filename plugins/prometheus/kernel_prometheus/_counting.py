"""Counters and histograms that cost little to add to: a dict each, written by the event loop, read by any thread."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Final, TypeAlias, final

import attrs
import trio

Labels: TypeAlias = tuple[str, ...]
OTHER: Final = "other"
"""What stands for label values that there are too many of."""


@final
@attrs.define(eq=False, repr=False)
class Counter:
    """Counts by label values."""

    max_series: int
    counts: dict[Labels, float] = attrs.field(factory=dict[Labels, float], init=False)
    capped: int = attrs.field(default=0, init=False)
    """How often there was no room for label values."""

    def add(self, labels: Labels, amount: float = 1.0) -> None:
        """Add to the count of some label values."""
        self.counts[self.room_for(labels)] += amount

    def room_for(self, labels: Labels) -> Labels:
        """Return the label values that a count goes by, which is there from now on: these, if there is room."""
        counts = self.counts
        if labels not in counts:
            if len(counts) >= self.max_series:
                labels = (OTHER,) * len(labels)
                self.capped += 1
            counts.setdefault(labels, 0.0)
        return labels

    def items(self) -> list[tuple[Labels, float]]:
        """Return what has been counted. May be called from any thread."""
        return list(self.counts.items())


@final
@attrs.define(eq=False, repr=False)
class Series:
    """The distribution of some values."""

    bounds: Sequence[float]
    counts: list[int] = attrs.field(
        init=False, default=attrs.Factory(lambda self: [0] * (len(self.bounds) + 1), takes_self=True)
    )
    """For each bucket, how many values are in it and in none before; the last is for what exceeds all bounds."""
    total: float = 0.0
    exemplars: dict[int, tuple[str, float, float]] = attrs.field(factory=dict[int, "tuple[str, float, float]"])
    """Bucket -> trace id, value and time of the last value in it that belongs to a trace."""

    def observe(self, value: float, trace: str = "") -> None:
        """Add a value, which may belong to a trace."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.total += value
        if trace:
            self.exemplars[bucket] = (trace, value, time.time())

    def observe_all(self, values: Sequence[float]) -> None:
        """Add values that belong to no trace."""
        counts = self.counts
        for bucket in map(bisect_left, repeat(self.bounds), values):
            counts[bucket] += 1
        self.total += sum(values)


@final
@attrs.define(eq=False, repr=False)
class Histogram:
    """Distributions by label values."""

    bounds: Sequence[float]
    max_series: int
    series: dict[Labels, Series] = attrs.field(factory=dict[Labels, Series], init=False)
    capped: int = attrs.field(default=0, init=False)

    def observe(self, labels: Labels, value: float, trace: str = "") -> None:
        """Add a value, which may belong to a trace."""
        self.of(labels).observe(value, trace)

    def of(self, labels: Labels) -> Series:
        """Return the distribution that values of some label values go into: their own, if there is room."""
        if len(self.series) >= self.max_series and labels not in self.series:
            labels = (OTHER,) * len(labels)
            self.capped += 1
        return self.series.setdefault(labels, Series(self.bounds))

    def items(self) -> Iterator[tuple[Labels, Series]]:
        """Yield the distributions. May be called from any thread."""
        yield from list(self.series.items())


@final
@attrs.define(eq=False, repr=False)
class TurnTimes(trio.abc.Instrument):
    """Measures for how long each turn of the event loop keeps everything else waiting."""

    bounds: Sequence[float]
    count: Callable[[], None]
    """Is called at the end of each turn, to count what happened in it; must not raise."""
    series: Series = attrs.field(init=False, default=attrs.Factory(lambda self: Series(self.bounds), takes_self=True))
    _began: float = attrs.field(factory=time.perf_counter, init=False)

    def after_io_wait(self, timeout: float) -> None:
        """Note that a turn begins. Called by trio."""
        del timeout
        self._began = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        """Note that a turn has ended. Called by trio."""
        del timeout
        self.count()
        self.series.observe(time.perf_counter() - self._began)
