"""Heartbeats both ways: tells the peer that we live, and finds out when the peer does not, or does not hear it.

It depends on nothing but the event loop: not on handlers, and not on whether there is anything to say.
"""

from __future__ import annotations

from typing import Final, final

import attrs
import trio

from ..core import Connection
from .probe import Probe
from .writer import Writer

_MISSED: Final = 2
"""Intervals without a sign of life after which the peer is gone. Source: AMQP 0-9-1, 4.2.7."""


@final
@attrs.define(eq=False)
class Heartbeat:
    """The signs of life of one connection."""

    _connection: Connection
    _writer: Writer
    _probe: Probe
    _interval: float
    """Seconds, as agreed with the peer; 0 for no heartbeats."""
    _heard_at: float = attrs.field(factory=trio.current_time, init=False)

    def hear(self, size: int) -> None:
        """Take note that so many bytes came from the peer; for whoever reads."""
        self._heard_at = trio.current_time()
        self._probe.carried += size

    async def wait_dead(self) -> str:
        """Send heartbeats until the peer is gone; return how that shows.

        Cancellation: Is a checkpoint.
        """
        if not self._interval:
            await trio.sleep_forever()
        while True:
            planned = self._next_look()
            await trio.sleep_until(planned)
            # Something else may have held up the loop: what came meanwhile is read first, and counts. One turn is for
            # whoever reads, one for whom that wakes; an answer may be behind more than is read in a turn.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            self._probe.look(late=trio.current_time() - planned > self._interval / 2)
            reason = self._sign_of_death()
            if reason:
                return reason
            self._beat()

    def _next_look(self) -> float:
        """Return when there may be something to do."""
        return min(trio.current_time() + self._interval / 2, *self._limits(), self._probe.limit)

    def _limits(self) -> tuple[float, float]:
        """Return until when something must be heard, and until when the write under way must end."""
        patience = _MISSED * self._interval
        since = self._writer.writing_since
        if since is None or self._writer.room.blocked:  # a broker that is blocked does not read, and says so
            return self._heard_at + patience, float("inf")
        return self._heard_at + patience, since + patience

    def _sign_of_death(self) -> str:
        now = trio.current_time()
        heard, written = self._limits()
        seconds = f"{_MISSED * self._interval:g} s"
        if heard <= now:
            return f"nothing was heard for {seconds}"
        if written <= now:
            return f"it has taken nothing for {seconds}"
        return f"it has answered nothing for {self._probe.patience:g} s" if self._probe.limit <= now else ""

    def _beat(self) -> None:
        if self._writer.writing_since is None:
            self._connection.send_heartbeat()
            self._writer.ring()
