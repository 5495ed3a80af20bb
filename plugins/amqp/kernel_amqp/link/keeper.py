"""Keeps one connection: opens it, notices its loss, and connects again until that succeeds."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final, final

import attrs
import trio

from kernel.abc import Complaints
from kernel.errors import StartupError, UnavailableError

from .._errors import LinkError
from .connect import LinkSettings
from .session import Session, open_session

_LOOK: Final = 0.5
"""Seconds between two looks whether the broker takes messages."""


@final
@attrs.define(eq=False, repr=False)
class Keeper:
    """One connection that heals; `session` waits for it."""

    role: str
    """What it is for, in complaints."""
    _settings: Callable[[], LinkSettings]
    """Asked for each connection, so that certificates that were changed count."""
    _complaints: Complaints
    _restore: Callable[[Session], Awaitable[None]]
    """Makes exist again what was declared, before anybody uses a connection."""
    _backoff_initial: float
    _backoff_max: float
    _lost: Callable[[], None]
    """Called when a connection is gone."""
    _session: Session | None = attrs.field(default=None, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _was_up: bool = attrs.field(default=False, init=False)

    @property
    def current(self) -> Session | None:
        """The connection, if there is one at the moment."""
        session = self._session
        return session if session is not None and session.link.lost is None else None

    async def session(self) -> Session:
        """Return the connection, once there is one.

        Raises:
            UnavailableError: if the driver is closed.

        Cancellation: A checkpoint if it has to wait.
        """
        while True:
            if self._closed:
                raise UnavailableError("the connection to the broker is closed")
            if (session := self.current) is not None:
                return session  # noqa: ASYNC910  each message asks
            await self._changed.wait()

    def close(self) -> None:
        """Refuse whoever asks from here on, and whoever waits."""
        self._closed = True
        self._set(None)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep the connection; never returns unless cancelled.

        A broker that is away when a service starts is tried again until it is there, or the time to start is over.

        Raises:
            LoginRefusedError: if the first connection is refused; later ones are tried again.
        """
        await self._connect(task_status.started)
        failures = 0
        while True:
            began = trio.current_time()
            try:
                await self._keep_one(lambda: None)
            except (LinkError, StartupError) as error:  # a broker that is starting refuses logins, too
                self._complain(str(error))
            # A broker that takes every connection and drops it at once has not healed.
            failures = 0 if trio.current_time() - began > self._backoff_max else failures + 1
            await trio.sleep(self._wait(failures))

    async def _connect(self, connected: Callable[[], None]) -> None:
        """Keep the first connection, as soon as there is one, until it is lost."""
        failures = 0
        while True:
            try:
                await self._keep_one(connected)
            except LinkError as error:
                if self._was_up:
                    return  # noqa: ASYNC910  it was connected, which is one
                failures += 1
                self._complaints.warn(self.role, f"waits for the broker: {error}")
                await trio.sleep(self._wait(failures))
            else:
                return

    async def _keep_one(self, connected: Callable[[], None]) -> None:
        """Open a connection and keep it until it is lost."""
        async with open_session(self._settings()) as session:
            await self._restore(session)
            self._set(session)
            self._complaints.recover(self.role)
            self._was_up = True
            connected()
            try:
                await self._wait_lost(session)
            finally:
                self._set(None)
                self._lost()

    async def _wait_lost(self, session: Session) -> None:
        while True:
            with trio.move_on_after(_LOOK):
                self._complain(str(await session.link.wait_lost()))
                return
            session.link.sweep()
            if reason := session.link.blocked:
                self._complain(f"takes no messages: {reason}")
            else:
                self._complaints.recover(self.role)

    def _complain(self, text: str) -> None:
        self._complaints.complain(self.role, f"{self.role}: {text}")

    def _set(self, session: Session | None) -> None:
        self._session = session
        self._changed.set()
        self._changed = trio.Event()

    def _wait(self, failures: int) -> float:
        """Return seconds before the next try: exponential backoff with full jitter."""
        limit = min(self._backoff_max, self._backoff_initial * 2 ** min(max(failures - 1, 0), 30))
        return random.uniform(0, limit)
