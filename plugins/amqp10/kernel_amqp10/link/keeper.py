"""Keeps one connection: opens it, notices its loss, and connects again until that succeeds."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import final

import attrs
import trio

from kernel.abc import Complaints
from kernel.errors import StartupError, UnavailableError

from .._errors import LinkError
from .connect import LinkSettings, join
from .proton import Proton
from .wire import Wire, driving


@final
@attrs.define(eq=False, repr=False)
class Keeper:
    """One connection that heals; `wire` waits for it."""

    role: str
    """What it is for, in complaints."""
    _proton: Proton
    _settings: Callable[[], LinkSettings]
    """Asked for each connection, so that certificates that were changed count."""
    _complaints: Complaints
    _restore: Callable[[], Awaitable[None]]
    """Makes exist again what was declared, before anybody uses a connection."""
    _backoff_initial: float
    _backoff_max: float
    _wire: Wire | None = attrs.field(default=None, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    @property
    def current(self) -> Wire | None:
        """The connection, if there is one at the moment."""
        wire = self._wire
        return wire if wire is not None and wire.lost is None else None

    async def wire(self) -> Wire:
        """Return the connection, once there is one.

        Raises:
            UnavailableError: if the driver is closed.

        Cancellation: A checkpoint if it has to wait.
        """
        while True:
            if self._closed:
                raise UnavailableError("the connection to the broker is closed")
            if (wire := self.current) is not None:
                return wire  # noqa: ASYNC910  each message asks
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
        was_up, failures = False, 0
        while True:
            began = trio.current_time()
            try:
                await self._keep_one(task_status.started if not was_up else _nothing)
                was_up = True
            except (LinkError, StartupError) as error:  # a broker that is starting refuses logins, too
                if not was_up and isinstance(error, StartupError):
                    raise
                self._tell(str(error), was_up=was_up)
            # A broker that takes every connection and drops it at once has not healed.
            failures = 0 if trio.current_time() - began > self._backoff_max else failures + 1
            await trio.sleep(self._wait(failures))

    async def _keep_one(self, connected: Callable[[], None]) -> None:
        """Open a connection and keep it until it is lost."""
        settings = self._settings()
        joined = await join(self._proton, settings)
        try:
            async with driving(joined.engine, joined.stream, joined.bell, close_timeout=settings.close_timeout) as wire:
                await self._restore()
                self._set(wire)
                self._complaints.recover(self.role)
                connected()
                try:
                    self._complaints.complain(self.role, f"{self.role}: {await wire.wait_lost()}")
                finally:
                    self._set(None)
        finally:
            await trio.aclose_forcefully(joined.stream)  # noqa: ASYNC102  it does not wait

    def _tell(self, text: str, *, was_up: bool) -> None:
        if was_up:
            self._complaints.complain(self.role, f"{self.role}: {text}")
        else:
            self._complaints.warn(self.role, f"waits for the broker: {text}")

    def _set(self, wire: Wire | None) -> None:
        self._wire = wire
        self._changed.set()
        self._changed = trio.Event()

    def _wait(self, failures: int) -> float:
        """Return seconds before the next try: exponential backoff with full jitter."""
        limit = min(self._backoff_max, self._backoff_initial * 2 ** min(max(failures - 1, 0), 30))
        return random.uniform(0, limit)


def _nothing() -> None:
    """There is nobody to tell."""
