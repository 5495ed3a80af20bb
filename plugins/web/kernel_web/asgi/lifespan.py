"""The lifespan of an application: startup before its worker is ready, shutdown after its last request."""

from __future__ import annotations

import enum
import logging
import traceback
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Final, final

import attrs
import trio
from typing_extensions import override

from kernel.abc import Drains, Work
from kernel.errors import StartupError

from .._application import EXPECTED, Application, ASGIMessage, find_application, find_router
from ..wire.lot import Lot
from .bridge import bridged
from .routers import Routing

_LOG: Final = logging.getLogger("kernel_web")
CUT_TIMEOUT: Final = 1.0
"""Seconds in which cancelled requests may end before the lifespan does."""


@final
@attrs.define(eq=False, repr=False)
class Hosted(Drains):
    """An application that is running."""

    app: Application
    state: dict[str, Any]
    """What its startup left for the requests; each gets a shallow copy."""
    routing: Routing | None = None
    """What its router serves; None if it is an application that says so only when it is called."""
    is_over: bool = attrs.field(default=False, init=False)
    _works: set[Work] = attrs.field(factory=set[Work], init=False)
    _lasting: set[Work] = attrs.field(factory=set[Work], init=False)
    """Those of them that end when somebody ends them, as websockets do."""
    _is_draining: bool = attrs.field(default=False, init=False)
    _idle: Lot = attrs.field(factory=Lot, init=False)

    def begin(self, work: Work, *, lasts: bool = False) -> None:
        """Take note of a request, or of a websocket, which `lasts`: `finish` cuts it."""
        self._works.add(work)
        if lasts:
            self._lasting.add(work)
            if self._is_draining:
                work.cut()

    def end(self, work: Work) -> None:
        """Take note that a request has ended."""
        self._works.discard(work)
        if self._lasting:
            self._lasting.discard(work)
        if self._idle.tasks and not self._works:
            self._idle.unpark_all()

    @property
    @override
    def is_busy(self) -> bool:
        return bool(self._works)

    @override
    async def drain(self) -> None:
        self._is_draining = True
        for work in list(self._lasting):
            work.cut()
        await trio.lowlevel.checkpoint()
        while self._works:
            await self._idle.park()

    async def finish(self) -> None:
        """Cut what it works on and wait for the end of it: the worker ends first. Bounded by `CUT_TIMEOUT`."""
        self.is_over = True
        for work in list(self._works):
            work.cut()
        with trio.move_on_after(CUT_TIMEOUT, shield=True):
            await trio.lowlevel.checkpoint()
            while self._works:
                await self._idle.park()


class _Stage(enum.Enum):
    STARTING = "startup"
    RUNNING = "running"
    STOPPING = "shutdown"
    ENDED = "ended"


@asynccontextmanager
async def hosting(instance: object, *, asyncio: bool = False) -> AsyncGenerator[Hosted]:
    """Run the lifespan of a worker's application, or of that which is made of its router, around the body.

    An application that does not know the lifespan protocol is left alone.

    Args:
        instance: The worker.
        asyncio: Whether the application runs over a bridge.

    Raises:
        StartupError: if the instance has no application, it cannot be made of its router, its startup failed, or there
            is no bridge.
        RuntimeError: if its shutdown failed.
        Exception: what the lifespan raised after its startup; the body is cancelled then.

    Cancellation: Is a checkpoint.
    """
    app, routing = _application_of(instance)
    async with bridged(app) if asyncio else nullcontext(app) as running, _hosting(running, routing) as hosted:
        yield hosted


def _application_of(instance: object) -> tuple[Application, Routing | None]:
    app = find_application(instance)
    if app is not None:
        return app, None
    router = find_router(instance)
    if router is None:
        raise StartupError(f"the worker built an object of the type {type(instance).__qualname__}, which {EXPECTED}")
    routing = Routing(router)
    return routing.app, routing


@asynccontextmanager
async def _hosting(app: Application, routing: Routing | None) -> AsyncGenerator[Hosted]:
    lifespan = _Lifespan(app)
    try:
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            nursery.start_soon(lifespan.run)
            await lifespan.starts()
            hosted = Hosted(app, lifespan.state, routing)
            try:
                yield hosted
            finally:
                await hosted.finish()  # noqa: ASYNC102  it shields itself
                await lifespan.stops()  # noqa: ASYNC102  not shielded: the deadline of the worker's life is the bound
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1 and isinstance(group.exceptions[0], Exception):
            error = group.exceptions[0]
            raise error from error.__cause__
        raise


@final
@attrs.define(eq=False, repr=False)
class _Lifespan:
    app: Application
    state: dict[str, Any] = attrs.field(factory=dict[str, Any], init=False)
    _stage: _Stage = attrs.field(default=_Stage.STARTING, init=False)
    _failure: str | None = attrs.field(default=None, init=False)
    _heard: bool = attrs.field(default=False, init=False)
    """Whether the application answered, and so knows the protocol."""
    _told: bool = attrs.field(default=False, init=False)
    """Whether the application asked what to do, and so may know the protocol."""
    _moved: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set at the next move; each move makes a new one."""

    async def run(self) -> None:  # noqa: ASYNC910  an application is a checkpoint, or its own fault
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        told = iter(({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))

        async def receive() -> ASGIMessage:
            message = next(told, None)
            self._told = True
            await trio.lowlevel.checkpoint()
            if message is None:
                await trio.sleep_forever()
            if message == {"type": "lifespan.shutdown"}:
                await self._until(_Stage.STOPPING)
            return dict(message or {})

        try:
            await self.app(scope, receive, self._send)
        except Exception as error:
            # Before any answer it means that the protocol is not known; after "failed" it says the same once more.
            if self._heard and self._failure is None:
                raise
            if self._told and not self._heard:
                _LOG.warning("an application is served without its lifespan, in which it raised %s", _shown(error))
        finally:
            self._move(_Stage.ENDED)

    async def starts(self) -> None:
        await self._until(_Stage.RUNNING)
        if self._failure is not None:
            raise StartupError(f"the application's startup failed: {_last_line(self._failure)}")

    async def stops(self) -> None:
        if self._stage is _Stage.RUNNING:
            self._move(_Stage.STOPPING)
        await self._until(_Stage.ENDED)
        if self._failure is not None:
            raise RuntimeError(f"the application's shutdown failed: {_last_line(self._failure)}")

    async def _send(self, message: ASGIMessage) -> None:
        await trio.lowlevel.checkpoint()
        kind = message["type"]
        if not kind.startswith("lifespan."):  # it answers whatever it is asked, as if it were a request
            raise RuntimeError(f"{kind} is no message of the lifespan")
        self._heard = True
        if kind in {"lifespan.startup.failed", "lifespan.shutdown.failed"}:
            self._failure = str(message.get("message") or "it gave no message")
            self._move(_Stage.ENDED)
        elif kind == "lifespan.startup.complete" and self._stage is _Stage.STARTING:
            self._move(_Stage.RUNNING)
        elif kind == "lifespan.shutdown.complete":
            self._move(_Stage.ENDED)
        else:
            raise RuntimeError(f"unexpected {kind} in the lifespan")

    def _move(self, stage: _Stage) -> None:
        self._stage = stage
        self._moved.set()
        self._moved = trio.Event()

    async def _until(self, stage: _Stage) -> None:
        """Wait until the lifespan is that far, or has ended."""
        await trio.lowlevel.checkpoint()
        order = list(_Stage)
        while order.index(self._stage) < order.index(stage):
            await self._moved.wait()


def _last_line(message: str) -> str:
    """Return what a message says: Starlette sends a whole traceback, whose last line is the error."""
    return message.strip().splitlines()[-1].strip() if message.strip() else message


def _shown(error: Exception) -> str:
    """Return an exception and the place it comes from, in one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {_last_line(str(error))} ({last.filename}:{last.lineno})"
