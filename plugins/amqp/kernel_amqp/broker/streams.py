"""Streams: queues that keep what is consumed. Where a consumer begins, what it wants, and how far it has come. Pure.

Over AMQP 0-9-1 the broker keeps no offset of a consumer, delivers nothing again and puts nothing aside; so whoever
consumes notes what is done, and goes on there when a subscription is made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, final

import attrs

from kernel.abc import Queue

from .._tables import AmqpOptions
from ..core import Delivered
from .topology import options_of

OFFSET: Final = "x-stream-offset"
"""The place of a message in its stream: a header of what is delivered, and an argument of who consumes."""
FILTER_VALUE: Final = "x-stream-filter-value"
"""The header of a message that filters look at. Source: RabbitMQ, Streams, filtering."""
_FILTER: Final = "x-stream-filter"
_UNFILTERED: Final = "x-stream-match-unfiltered"
_MAX_DONE: Final = 1000
"""Messages that are noted as done before those are forgotten of which nobody will ask."""


def is_stream(queue: Queue | None) -> bool:
    """Return whether a queue is known to be a stream."""
    return queue is not None and options_of(queue).type == "stream"


def stream_arguments(options: AmqpOptions, begin: int | None) -> dict[str, object]:
    """Return what a consumer asks for; `begin` is the offset at which it goes on, None begins where the options say."""
    arguments: dict[str, object] = {OFFSET: offset_of(options.offset) if begin is None else begin}
    if options.filter:
        arguments[_FILTER] = list(options.filter)
        arguments[_UNFILTERED] = options.match_unfiltered
    return arguments


def offset_of(said: int | str) -> object:
    """Return an offset as the broker takes it: a time is one, and everything else is as it is said."""
    is_time = isinstance(said, str) and "-" in said
    return datetime.fromisoformat(said) if is_time and isinstance(said, str) else said


def is_wanted(headers: Mapping[str, object], options: AmqpOptions) -> bool:
    """Return whether a message passes the filter: the broker filters by blocks, in which there may be others."""
    value = headers.get(FILTER_VALUE)
    return not options.filter or (options.match_unfiltered if value is None else value in options.filter)


@final
@attrs.define(eq=False, repr=False)
class Progress:
    """How far a stream has been consumed: the first message that is not done, and those after it that are."""

    options: AmqpOptions
    """Where it began, and what was wanted."""
    is_used: bool = False
    """Whether somebody consumes at the moment."""
    _open: dict[int, None] = attrs.field(factory=dict[int, None], init=False)
    """Offsets that have come and are not done, in order."""
    _done: set[int] = attrs.field(factory=set[int], init=False)
    _bound: int = attrs.field(default=_MAX_DONE, init=False)
    """Of `_done`, before those are forgotten that stand before the first that is not done."""
    _tries: dict[int, int] = attrs.field(factory=dict[int, int], init=False)
    """Offset -> attempts behind it, of what is tried again."""
    _next: int | None = attrs.field(default=None, init=False)
    """Behind the last one that has come, or, after a break, where the next one comes from."""

    @property
    def next(self) -> int | None:
        """The first offset that is not done; None if nothing has come yet."""
        return next(iter(self._open), self._next)

    def begin(self) -> int | None:
        """Return where a new subscription goes on; None if nothing has come yet."""
        self._next = self.next
        self._open.clear()
        return self._next

    def take_in(self, offset: int) -> bool:
        """Take note of what has come; returns whether it is to be handled, and was not done before a break."""
        is_new = self._next is None or offset >= self._next
        if not is_new or offset in self._done:
            return False
        self._open[offset] = None
        self._next = offset + 1
        return True

    def skip(self, offset: int) -> None:
        """Take note of what has come and is not wanted."""
        if self._next is None or offset >= self._next:
            self._next = offset + 1

    def done(self, offset: int) -> None:
        """Take note that a message is never to come again."""
        self._open.pop(offset, None)
        self._tries.pop(offset, None)
        self._done.add(offset)
        if len(self._done) > self._bound:
            first = self.next or 0
            self._done = {done for done in self._done if done >= first}
            self._bound = max(_MAX_DONE, 2 * len(self._done))

    def tried(self, offset: int) -> None:
        """Count an attempt, which nothing else does."""
        self._tries[offset] = self.tries(offset) + 1

    def tries(self, offset: int) -> int:
        """Return the attempts behind a message."""
        return self._tries.get(offset, 0)


def place_of(event: Delivered) -> int | None:
    """Return the offset of a message; None if it says none."""
    offset = (event.properties.headers or {}).get(OFFSET)
    return offset if isinstance(offset, int) else None
