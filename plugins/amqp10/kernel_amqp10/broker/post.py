"""What has to be sent before a delivery can be settled: replies, retries and dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import attrs
import trio

from kernel import Envelope, Event
from kernel.abc import Context, CrashNote, death_headers
from kernel.errors import EncodeError, UnroutableError

from .._addresses import Addresses, Route
from ..link.proton import Proton
from ..link.sender import OnWritten
from .events import Amqp10MessageDropped
from .letters import write_letter
from .outbox import Outbox
from .postponing import Postponer, bounded

_HOPELESS: Final = (EncodeError, UnroutableError, ValueError, TypeError)
"""What sending raises if it would raise it again."""


def is_hopeless(error: Exception) -> bool:
    """Whether to send again what failed with this is of no use."""
    return isinstance(error, _HOPELESS)


@final
@attrs.define(eq=False, repr=False)
class Post:
    """Writes and sends envelopes."""

    _context: Context
    _proton: Proton
    _addresses: Addresses
    _outbox: Outbox
    _postponer: Postponer | None
    """None for a broker that holds messages back by itself."""
    _as_text: bool = False
    """Whether bodies that are UTF-8 go as text."""

    async def send(
        self, envelope: Envelope, *, exchange: str, mandatory: bool, attempts: int = 0, delay: float = 0.0
    ) -> None:
        """Send an envelope to an exchange, or straight to the queue that its subject names; raises as `Outbox.send`.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent.
        """
        await self._send(envelope, exchange, envelope.subject, attempts=attempts, delay=delay, mandatory=mandatory)

    async def reply(self, reply: Envelope, *, exchange: str, on_written: OnWritten) -> None:
        """Send a reply; one that nobody can get is dropped."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            await self._send(
                reply, exchange, reply.subject, attempts=0, delay=0.0, mandatory=False, on_written=on_written
            )
        except UnroutableError:
            self.drop(reply, queue=reply.subject, reason="nobody waits for the reply")

    async def again(
        self, envelope: Envelope, *, queue: str, attempts: int, after: float, on_written: OnWritten
    ) -> None:
        """Send a copy to its queue, to be delivered after so many seconds, with so many attempts behind it."""
        delay = bounded(after)
        await self._send(envelope, "", queue, attempts=attempts, delay=delay, mandatory=True, on_written=on_written)

    async def note(
        self, envelope: Envelope, *, queue: str, attempts: int, note: CrashNote, on_written: OnWritten
    ) -> None:
        """Send a copy to its queue that notes how often a process has died with it, with so many attempts besides."""
        await self._send(
            envelope, "", queue, attempts=attempts, delay=0.0, mandatory=True, on_written=on_written, note=note
        )

    async def bury(
        self, envelope: Envelope, *, queue: str, grave: str, reason: str, attempts: int, on_written: OnWritten
    ) -> None:
        """Send a copy to the queue for dead letters."""
        headers: Mapping[str, object] = death_headers(envelope, reason=reason, queue=queue, attempts=attempts)
        letter = attrs.evolve(envelope, headers=headers, deadline=float("inf"))
        await self._send(letter, "", grave, attempts=0, delay=0.0, mandatory=True, on_written=on_written)

    async def _send(
        self,
        envelope: Envelope,
        exchange: str,
        key: str,
        *,
        attempts: int,
        delay: float,
        mandatory: bool,
        on_written: OnWritten | None = None,
        note: CrashNote | None = None,
    ) -> None:
        held = 0.0
        if delay <= 0:
            route = self._addresses.route(exchange, key)
        elif self._postponer is None:
            route, held = self._addresses.route(exchange, key), delay
        else:
            route, mandatory = await self._postponer.route(exchange, key, delay=delay), True
        data = self._write(envelope, route, attempts=attempts, delay=delay, held=held, note=note)
        await self._outbox.send(route, data, mandatory=mandatory, on_written=on_written)

    def _write(
        self, envelope: Envelope, route: Route, *, attempts: int, delay: float, held: float, note: CrashNote | None
    ) -> bytes:
        now = trio.current_time()
        if delay > 0 and envelope.delay <= 0:
            envelope = attrs.evolve(envelope, deadline=envelope.deadline - delay)
        return write_letter(
            self._proton,
            self._addresses,
            envelope,
            now=now,
            to=route.to,
            attempts=attempts,
            delay=held,
            as_text=self._as_text,
            note=note,
        )

    def drop(self, envelope: Envelope, *, queue: str, reason: str) -> None:
        """Tell that a message ended without a queue for dead letters."""
        event: Event = Amqp10MessageDropped(
            component=self._context.id, queue=queue, reason=reason, message_id=envelope.id, subject=envelope.subject
        )
        self._context.emit(event)

    def warn(self, text: str) -> None:
        """Say something in the log."""
        self._context.log.warning(text)

    def hold(self, envelope: Envelope, *, queue: str, error: Exception) -> None:
        """Say in the log that an outcome waits to be sent."""
        self.warn(f'the outcome of message {envelope.id} from queue "{queue}" cannot be sent yet: {error}')
