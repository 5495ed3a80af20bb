"""Keeps one connection: opens it, notices its loss, and connects again until that succeeds."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import final

import attrs
import trio

from kernel.abc import Complaints
from kernel.errors import ConflictError, StartupError, UnavailableError

from .._errors import LinkError
from .connect import LinkSettings
from .link import Link, open_link


@final
@attrs.frozen(kw_only=True)
class Backoff:
    """How long to wait between two tries: a random part of a time that doubles."""

    initial: float
    """Seconds."""
    longest: float
    """Seconds."""

    def wait(self, failures: int) -> float:
        """Return seconds before the next try, after so many that failed."""
        return random.uniform(0, min(self.longest, self.initial * 2 ** min(max(failures - 1, 0), 30)))


@final
@attrs.define(eq=False, repr=False)
class Keeper:
    """One connection that heals; `link` waits for it."""

    role: str
    """What it is for, in complaints."""
    settings: Callable[[], LinkSettings]
    """Asked for each connection, so that secrets and certificates that were changed count."""
    complaints: Complaints
    _restore: Callable[[], Awaitable[None]]
    """Makes exist again what was declared, before anybody uses a connection."""
    backoff: Backoff
    close_timeout: float
    _link: Link | None = attrs.field(default=None, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _was_up: bool = attrs.field(default=False, init=False)

    @property
    def current(self) -> Link | None:
        """The connection, if there is one at the moment."""
        link = self._link
        return link if link is not None and link.lost is None else None

    async def link(self) -> Link:
        """Return the connection, once there is one.

        Raises:
            UnavailableError: if the driver is closed.

        Cancellation: A checkpoint if it has to wait.
        """
        while True:
            if self._closed:
                raise UnavailableError("the connection to the server is closed")
            if (link := self.current) is not None:
                return link  # noqa: ASYNC910  each message asks
            await self._changed.wait()

    def close(self) -> None:
        """Refuse whoever asks from here on, and whoever waits."""
        self._closed = True
        self._set(None)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep the connection; never returns unless cancelled.

        A server that is away when a service starts is tried again until it is there, or the time to start is over.

        Raises:
            StartupError: if the first connection is refused; later ones are tried again, also where what was declared
            cannot be declared again.
        """
        failures = 0
        while True:
            began = trio.current_time()
            try:
                await self._keep_one(task_status)
            except (LinkError, StartupError, ConflictError) as error:
                if not self._was_up and isinstance(error, StartupError):
                    raise
                self._tell(str(error))
            # A server that takes every connection and drops it at once has not healed.
            failures = 0 if trio.current_time() - began > self.backoff.longest else failures + 1
            await trio.sleep(self.backoff.wait(failures))

    async def _keep_one(self, task_status: trio.TaskStatus[None]) -> None:
        """Open a connection and keep it until it is lost."""
        async with open_link(self.settings(), close_timeout=self.close_timeout) as link:
            await self._restore()
            self._set(link)
            self.complaints.recover(self.role)
            if not self._was_up:
                self._was_up = True
                task_status.started()
            try:
                self._tell(str(await link.wait_lost()))
            finally:
                self._set(None)

    def _tell(self, text: str) -> None:
        if self._was_up:
            self.complaints.complain(self.role, f"{self.role}: {text}")
        else:
            self.complaints.warn(self.role, f"waits for the server: {text}")

    def _set(self, link: Link | None) -> None:
        self._link = link
        self._changed.set()
        self._changed = trio.Event()
