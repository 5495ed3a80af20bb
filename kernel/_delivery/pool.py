"""The instances of one worker that are ready, and taking turns on them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import final

import attrs
import trio
from typing_extensions import override

from .._core.broker import Delivery
from .._core.spec import WorkerSpec
from ..abc import Drains, Target
from ..errors import UnavailableError
from .kill_switch import KillSwitch


@final
@attrs.define(eq=False, repr=False)
class Instance:
    """One ready object of a worker."""

    worker: object
    hosted: object
    """What the dispatcher's `host` yielded for it."""
    free: int
    """Calls that it may take on."""
    calls: dict[trio.CancelScope, Delivery] = attrs.field(factory=dict[trio.CancelScope, Delivery], init=False)
    leaving: bool = attrs.field(default=False, init=False)
    is_withheld: bool = attrs.field(default=False, init=False)
    """Whether it is given no more calls, and finishes those that it has."""


@final
@attrs.define(eq=False, repr=False)
class Pool(Target):
    """The ready instances of one worker."""

    spec: WorkerSpec
    concurrency: int
    """Calls at a time in one instance."""
    switch: KillSwitch | None = None
    """Holds back calls; the pipeline asks it, where there is one."""
    _ready: list[Instance] = attrs.field(factory=list[Instance], init=False)
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _turn: int = attrs.field(default=0, init=False)
    closed: str = attrs.field(default="", init=False)
    """Why there will be no instance any more; empty while there may be one."""
    edition: int = attrs.field(default=0, init=False)
    """How often the worker became another one: what was made for an earlier one is not for this."""
    returns: bool = attrs.field(default=False, init=False)
    """Whether it is being replaced, so that it is worth to wait for an instance."""
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    """Where those wait who want no place: what an instance is hosted as, or its last call to end. Each looks itself."""

    @property
    def name(self) -> str:
        """The worker's name."""
        return self.spec.name

    @property
    def options(self) -> object:
        """The worker's options for its dispatcher."""
        return self.spec.options

    @property
    @override
    def worker(self) -> object:
        return self.spec.use

    def hosted(self) -> object:
        """Return what a ready instance is hosted as; instances take turns."""
        if not self._ready:
            raise UnavailableError(f"{self.spec.id} is not ready{': ' if self.closed else ''}{self.closed}")
        self._turn += 1
        return self._ready[self._turn % len(self._ready)].hosted

    @override
    async def wait_hosted(self) -> object:
        await trio.lowlevel.checkpoint()
        while self.returns and not (self._ready or self.closed):
            await self._changed.park()
        return self.hosted()

    def close(self, reason: str) -> None:
        """Say that no instance will come any more; who waits for one is told."""
        self.closed = reason
        if self.switch is not None:
            self.switch.void()
        self._waiting.unpark_all()
        self._changed.unpark_all()

    # --- a worker that becomes another one ------------------------------------------------------------------------

    def withhold(self, worker: object) -> Awaitable[None] | None:
        """Give no more calls to the instance of a worker's object; return what waits for those that it has, if any."""
        instance = next((one for one in self._ready if one.worker is worker), None)
        if instance is None:
            return None
        self._ready.remove(instance)
        instance.is_withheld = True
        has_more = isinstance(instance.hosted, Drains) and instance.hosted.is_busy
        return self._wait_until_idle(instance) if instance.calls or has_more else None

    async def _wait_until_idle(self, instance: Instance) -> None:
        await trio.lowlevel.checkpoint()
        while instance.calls:
            await self._changed.park()
        if isinstance(instance.hosted, Drains):
            await instance.hosted.drain()

    def become(self, spec: WorkerSpec, *, switch: KillSwitch | None) -> None:
        """Be the instances of another worker from now on, of which none is ready yet; who waits goes on waiting."""
        if self.switch is not None:
            self.switch.void()
        self.spec, self.switch, self.closed = spec, switch, ""
        self.edition += 1

    def resize(self, concurrency: int) -> None:
        """Set how many calls an instance is given at a time; those that it has go on."""
        for instance in self._ready:
            instance.free += concurrency - self.concurrency
        if concurrency > self.concurrency:
            self._waiting.unpark_all()
        self.concurrency = concurrency

    def settle(self, *, returns: bool) -> None:
        """Say whether it is being replaced; who waits for that alone is told."""
        self.returns = returns
        self._changed.unpark_all()

    @asynccontextmanager
    async def offering(self, instance: Instance) -> AsyncGenerator[None]:
        """Give calls to an instance while inside; on the way out cancel and await those that still run."""
        self._ready.append(instance)
        self._waiting.unpark_all()
        self._changed.unpark_all()
        try:
            yield
        finally:
            if not instance.is_withheld:
                self._ready.remove(instance)
            instance.leaving = True
            for call in instance.calls:
                call.cancel()
            while instance.calls:
                await self._changed.park()  # noqa: ASYNC102  not shielded: the deadline of the life is the bound

    def calls(self) -> list[tuple[trio.CancelScope, Delivery]]:
        """Return the calls that are under way. May be called from any thread."""
        return [call for instance in list(self._ready) for call in list(instance.calls.items())]

    def take_nowait(self) -> Instance | None:
        """Take a place in the instance with most room, or return None."""
        ready = self._ready
        best = ready[0] if len(ready) == 1 else max(ready, key=_room, default=None)
        if best is None or best.free <= 0:
            return None
        best.free -= 1
        return best

    async def take(self) -> Instance | None:
        """Wait for a place in an instance; None if no instance will come any more.

        Cancellation: Is a checkpoint. If cancelled, no place was taken.
        """
        await trio.lowlevel.checkpoint()
        while not self.closed:
            instance = self.take_nowait()
            if instance is not None:
                return instance
            await self._waiting.park()
            await self._heed_cancellation()
        return None

    async def _heed_cancellation(self) -> None:
        """Have who was let in and cancelled in one turn call nothing, and let the next in instead.

        Cancellation: Is a checkpoint only if cancelled.
        """
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            if self._waiting:
                self._waiting.unpark()
            raise

    def give_back(self, instance: Instance, call: trio.CancelScope) -> None:
        """Give a place back after a call."""
        instance.calls.pop(call, None)  # none if there was no call
        instance.free += 1
        if self._waiting:
            self._waiting.unpark()
        if (instance.leaving or instance.is_withheld) and not instance.calls:
            self._changed.unpark_all()


def _room(instance: Instance) -> int:
    return instance.free
