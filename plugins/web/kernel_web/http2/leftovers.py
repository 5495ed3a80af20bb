"""Streams whose answer is complete while their client goes on sending what nobody wants.

RFC 9113, 8.1, lets a server reset such a stream at once. Clients take that for a failure, and drop the answer, if they
are in the midst of sending, as curl 7.88 does; and it reads no more once it has the answer, so that it must have been
told before how much it may send, or it spins until it is killed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from .lane import Lane

if TYPE_CHECKING:
    from ..asgi.shared import Shared

PAUSE: Final = 1.0
"""Seconds in which something more must come."""


@final
class Leftovers:
    """The streams of one connection that are such."""

    __slots__ = ("_pause_until", "_shared", "_tell", "_until")

    def __init__(self, shared: Shared, tell: Callable[[], None]) -> None:
        """Begin without any.

        Args:
            shared: What all connections share.
            tell: Called when the client of one has sent the rest.
        """
        self._shared = shared
        self._tell = tell
        self._until: dict[int, float] = {}
        """When the client must have sent everything."""
        self._pause_until: dict[int, float] = {}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._until)

    def add(self, lane: Lane) -> bool:
        """Let the client of a complete answer go on, if there is more to come; return whether there is."""
        if lane.ended or lane.lost:
            return False
        self._until[lane.id] = self._shared.clock.now + self._shared.config.body_timeout
        self.put(lane.id)
        return True

    def put(self, stream_id: int) -> None:
        """Take note that something came."""
        if stream_id in self._until:
            self._pause_until[stream_id] = self._shared.clock.now + PAUSE

    def end(self, stream_id: int) -> None:
        """Take note that nothing more comes, if it is one of them."""
        if self._until.pop(stream_id, None) is not None:
            del self._pause_until[stream_id]
            self._tell()

    def hurry(self) -> None:
        """Give them no more than a moment."""
        until = self._shared.clock.now + PAUSE
        self._until = {stream_id: min(until, each) for stream_id, each in self._until.items()}

    def drop_late(self, now: float) -> list[int]:
        """Return those that have had their time, and drop them."""
        late = [each for each, until in self._until.items() if min(until, self._pause_until[each]) <= now]
        for stream_id in late:
            del self._until[stream_id], self._pause_until[stream_id]
        return late
