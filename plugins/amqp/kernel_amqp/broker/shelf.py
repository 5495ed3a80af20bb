"""What has come from the broker and was not taken: in the order of arrival, or one message of a key at a time."""

from __future__ import annotations

import heapq
import math
from abc import ABC, abstractmethod
from collections import deque
from typing import final

import attrs
import trio
from typing_extensions import override

from kernel.abc import partition_key

from .delivery import AmqpDelivery


class Shelf(ABC):
    """Holds deliveries until they are taken."""

    __slots__ = ()

    @abstractmethod
    def put(self, delivery: AmqpDelivery) -> None:
        """Take in what has come."""

    @abstractmethod
    def take(self) -> AmqpDelivery | None:
        """Remove and return what comes next; None if nothing may."""

    @property
    @abstractmethod
    def due(self) -> float:
        """When something that waits may be taken, in `trio.current_time()`; infinite if nothing waits."""

    @abstractmethod
    def clear(self) -> list[AmqpDelivery]:
        """Remove and return everything, in the order in which it came."""


@final
@attrs.define(eq=False, repr=False)
class PlainShelf(Shelf):
    """First come, first served."""

    _waiting: deque[AmqpDelivery] = attrs.field(factory=deque[AmqpDelivery], init=False)

    @override
    def put(self, delivery: AmqpDelivery) -> None:
        self._waiting.append(delivery)

    @override
    def take(self) -> AmqpDelivery | None:
        return self._waiting.popleft() if self._waiting else None

    @property
    @override
    def due(self) -> float:
        return math.inf

    @override
    def clear(self) -> list[AmqpDelivery]:
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting


@final
@attrs.define(eq=False, repr=False)
class OrderedShelf(Shelf):
    """Of each key only the first may be taken, until `release`; it stays the first while it waits for a retry."""

    _partition_by: str
    _prefetch: int
    """Deliveries that may be taken and not settled."""
    _ready: list[tuple[int, int, AmqpDelivery]] = attrs.field(factory=list[tuple[int, int, AmqpDelivery]], init=False)
    """A heap: highest priority first, then the order of arrival."""
    _later: list[tuple[float, int, AmqpDelivery]] = attrs.field(
        factory=list[tuple[float, int, AmqpDelivery]], init=False
    )
    """A heap of what waits for its retry."""
    _behind: dict[str, deque[AmqpDelivery]] = attrs.field(factory=dict[str, deque[AmqpDelivery]], init=False)
    """Key -> who waits behind its first; there is one as long as there is a first."""
    _taken: int = attrs.field(default=0, init=False)
    _orders: int = attrs.field(default=0, init=False)

    @override
    def put(self, delivery: AmqpDelivery) -> None:
        self._orders += 1
        delivery.order = self._orders
        delivery.key = partition_key(delivery.envelope, self._partition_by)
        if delivery.key is not None and delivery.key in self._behind:
            self._behind[delivery.key].append(delivery)
            return
        if delivery.key is not None:
            self._behind[delivery.key] = deque()
        self._offer(delivery)

    @override
    def take(self) -> AmqpDelivery | None:
        if self._taken >= self._prefetch:
            return None
        now = trio.current_time()
        while self._later and self._later[0][0] <= now:
            self._offer(heapq.heappop(self._later)[2])
        if not self._ready:
            return None
        self._taken += 1
        return heapq.heappop(self._ready)[2]

    @property
    @override
    def due(self) -> float:
        return self._later[0][0] if self._later and self._taken < self._prefetch else math.inf

    @override
    def clear(self) -> list[AmqpDelivery]:
        waiting = [entry[2] for entry in (*self._ready, *self._later)]
        waiting += (delivery for line in self._behind.values() for delivery in line)
        self._ready.clear()
        self._later.clear()
        self._behind.clear()
        return sorted(waiting, key=lambda delivery: delivery.order)

    def release(self, delivery: AmqpDelivery) -> None:
        """Let the next of its key go on: the way of a delivery that was taken has ended."""
        self._taken -= 1
        if delivery.key is None:
            return
        line = self._behind.get(delivery.key)
        if line:
            self._offer(line.popleft())
        elif line is not None:
            del self._behind[delivery.key]

    def put_back(self, delivery: AmqpDelivery, *, after: float) -> None:
        """Take back a delivery that was taken, to be taken again in so many seconds; its key waits for it."""
        self._taken -= 1
        if after > 0:
            heapq.heappush(self._later, (trio.current_time() + after, delivery.order, delivery))
        else:
            self._offer(delivery)

    def _offer(self, delivery: AmqpDelivery) -> None:
        heapq.heappush(self._ready, (-delivery.envelope.priority, delivery.order, delivery))
