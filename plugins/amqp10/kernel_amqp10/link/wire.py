"""The engine on a stream: what reads, what writes, and what finds out that the other side is gone.

The other side is asked now and then whether it hears us, by a session that is begun and ended at once: what comes from
there tells nothing about what gets there.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, final

import attrs
import trio

from .._errors import EndClosedError, LinkError, LinkLostError
from .engine import Engine
from .proton import ProtonSession

CHUNK: Final = 64 * 1024
"""Bytes that are read at once."""
_UNANSWERED: Final = 1.5
"""Idle timeouts without an answer after which the other side does not hear us: with the half before, two since it did."""
_CARRIED: Final = 32 * 1024
"""Bytes that a line carries in this time at least, both ways together."""


@final
@attrs.define(eq=False, repr=False)
class Bell:
    """Wakes what writes."""

    _is_rung: bool = attrs.field(default=False, init=False)
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def ring(self) -> None:
        """Wake it, or have it go on at once when it is done."""
        self._is_rung = True
        if self._waiting:
            self._waiting.unpark_all()

    async def wait(self) -> None:
        """Wait for the next ring.

        Cancellation: Is a checkpoint.
        """
        if self._is_rung:
            await trio.lowlevel.checkpoint()
        else:
            await self._waiting.park()
        self._is_rung = False


@final
@attrs.define(eq=False, repr=False)
class _Probe:
    """A session that is begun only to see whether the other side answers."""

    _engine: Engine
    is_answered: bool = attrs.field(default=False, init=False)
    _session: ProtonSession | None = attrs.field(default=None, init=False)

    def ask(self) -> None:
        self._session = self._engine.new_session(self)

    def opened(self) -> None:
        self.is_answered = True
        if self._session is not None:
            self._session.close()

    def flowed(self) -> None:
        pass

    def delivered(self, delivery: object) -> None:
        pass

    def lost(self, error: EndClosedError | LinkLostError) -> None:
        self.is_answered = isinstance(error, EndClosedError)

    def close(self) -> None:
        """It ends by itself as soon as it is answered."""

    def ended(self) -> None:
        if self._session is not None:
            self._session.kernel_slot = None  # a reference that no garbage collector sees


@final
@attrs.define(eq=False, repr=False)
class Wire:
    """An open connection."""

    engine: Engine
    _stream: trio.abc.Stream
    _bell: Bell
    _writing_since: float | None = attrs.field(default=None, init=False)
    """When the send that is under way began."""
    _over: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def lost(self) -> str | None:
        """Why the connection is over; None while it is not."""
        return self.engine.over

    async def wait_lost(self) -> str:
        """Wait until the connection is over; return why.

        Cancellation: Is a checkpoint.
        """
        await self._over.wait()
        return self.engine.over or "it was closed"

    async def read(self) -> None:
        """Read until the connection is over."""
        await trio.lowlevel.checkpoint()
        try:
            while self.engine.over is None:
                data = bytes(await self._stream.receive_some(CHUNK))
                if not data:
                    self.engine.receive_end()
                else:
                    self.engine.receive(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.engine.fail(f"the connection broke: {error.__cause__ or error}")
        self._over.set()

    async def write(self) -> None:
        """Write what there is, and wait for more, until the connection is over."""
        await trio.lowlevel.checkpoint()
        try:
            while self.engine.over is None:
                await self._bell.wait()
                await self.write_all()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.engine.fail(f"the connection broke: {error.__cause__ or error}")
        self._over.set()

    async def write_all(self) -> None:
        """Write what there is.

        Raises:
            trio.BrokenResourceError: if the stream is broken.

        Cancellation: Is a checkpoint. If cancelled, the connection is of no more use.
        """
        await trio.lowlevel.checkpoint()
        while data := self.engine.data_to_send():
            self._writing_since = trio.current_time()
            await self._stream.send_all(data)
            self._writing_since = None

    async def keep_time(self) -> None:
        """Send what shows that we live, and find out whether the other side does."""
        idle = self.engine.settings.idle_timeout
        await trio.lowlevel.checkpoint()
        while self.engine.over is None:
            now = trio.current_time()
            due = self.engine.tick(now) or math.inf
            self._bell.ring()
            await trio.sleep_until(min(max(due, now + 0.01), now + idle / 4))
        self._over.set()

    async def probe(self) -> None:
        """Ask again and again whether the other side hears us, until it does not."""
        idle = self.engine.settings.idle_timeout
        await trio.lowlevel.checkpoint()
        while self.engine.over is None:
            await trio.sleep(idle / 2)
            await self._ask(idle)
        self._over.set()

    async def _ask(self, idle: float) -> None:
        """Ask, and wait for the answer; what is on its way before it, in either direction, gives it more time."""
        engine, probe = self.engine, _Probe(self.engine)
        asked, taken, came = trio.current_time(), engine.taken + engine.pending, engine.came
        probe.ask()
        await trio.lowlevel.checkpoint()
        while engine.over is None and not probe.is_answered:
            carried = taken - engine.seen + engine.came - came
            patience = _UNANSWERED * idle * max(1.0, carried / _CARRIED)
            if trio.current_time() - max(asked, self._writing_since or 0.0) > patience:
                engine.fail(f"the other side has not answered for {patience:g} s")
            await trio.sleep(idle / 16)
        engine.note_seen(taken)


@asynccontextmanager
async def driving(engine: Engine, stream: trio.abc.Stream, bell: Bell, *, close_timeout: float) -> AsyncGenerator[Wire]:
    """Drive an engine whose connection is open, for the time of the block.

    Cancellation: Leaving says goodbye to the other side, for at most `close_timeout` seconds.
    """
    wire = Wire(engine, stream, bell)
    async with trio.open_nursery() as nursery:
        life: trio.CancelScope = await nursery.start(_carry, wire)
        try:
            yield wire
        finally:
            with trio.move_on_after(close_timeout, shield=True) as scope:
                await _end_sessions(engine)
            engine.close()
            life.cancel()
            with trio.CancelScope(deadline=scope.deadline, shield=True):
                await _say_goodbye(wire)


async def _carry(wire: Wire, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    """Read and write until the scope is cancelled that is told: whoever cancels the block still has its last words said."""
    with trio.CancelScope(shield=True) as life:
        async with trio.open_nursery() as nursery:
            for task in (wire.read, wire.write, wire.keep_time, wire.probe):
                nursery.start_soon(task)
            task_status.started(life)
    await trio.lowlevel.checkpoint()


async def _end_sessions(engine: Engine) -> None:
    """Wait until the other side has ended each session, and so has taken what was settled.

    RabbitMQ up to 3.13 ends the sessions of a connection that is closed with what they have not looked at yet: it gave again
    what had been accepted a moment before.
    """
    await trio.lowlevel.checkpoint()
    engine.end_sessions()
    while engine.has_sessions:  # noqa: ASYNC110  nobody tells; it takes a round trip
        await trio.sleep(0.001)


async def _say_goodbye(wire: Wire) -> None:
    try:
        await wire.write_all()
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError, LinkError):
        await trio.lowlevel.checkpoint()
