"""One request or websocket, whatever carries it: a slot, its application, and what is to be said in its place.

Everything that an application may do wrong ends here, and costs nobody but its own client.
"""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from math import inf
from typing import Any, Final, cast

import trio
from typing_extensions import override

from kernel.abc import Work
from kernel.errors import QueueFullError, StorageError, UnavailableError, UnknownOutcomeError

from .._application import ASGIMessage
from ..wire.channel import ClientGoneError
from .events import RequestBegan, RequestFailed
from .lifespan import Hosted
from .routes import Route
from .shared import Shared
from .whose import parted

PATIENCE: Final = 2.0
"""Seconds in which a client must send, or take, something, if its request keeps others from a slot."""
_NOTHING: Final = (inf, 0.0)
ANSWERED: Final = 0
"""The status of a request whose client has, or cannot get, what its application says."""


class Call(Work):
    """One request or websocket."""

    __slots__ = (
        "_awaited",
        "_has_slot",
        "_is_cut",
        "began",
        "gone",
        "route",
        "scope",
        "shared",
        "told_gone",
        "until",
        "waiting",
    )

    is_websocket: bool = False

    def __init__(self, shared: Shared, scope: dict[str, Any], route: Route) -> None:
        self.shared = shared
        self.scope = scope
        self.route = route
        self.began = time.perf_counter()
        self.gone = False
        """The client gets nothing more from the application: it has left, or got another answer."""
        self.told_gone = False
        """The application knows."""
        self.until = 0.0
        """When the application must be done; 0 sets no limit."""
        self.waiting: trio.CancelScope | None = None
        """Around the wait for a slot: to cancel it is to leave the queue."""
        self._is_cut: int = 0
        self._has_slot = False
        self._awaited = _NOTHING
        """When its client must have done something, and since when that is so."""

    @property
    @override
    def label(self) -> str:
        return f"{self.scope.get('method', 'websocket')} {self.scope['path']}"

    @property
    @override
    def worker(self) -> str:
        return self.route.worker

    @property
    @override
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    @override
    def cut(self) -> None:
        self.stop(HTTPStatus.SERVICE_UNAVAILABLE)

    def stop(self, status: int) -> None:
        """Cancel the application; the client gets the status if it has no answer yet. May be called again."""
        self._is_cut = self._is_cut or status
        self.cancel()

    @abstractmethod
    def cancel(self) -> None:
        """Cancel the task of the application."""

    @abstractmethod
    async def receive(self) -> ASGIMessage:
        """Return what the client sent next, as ASGI has it."""

    @abstractmethod
    async def send(self, message: ASGIMessage) -> None:
        """Send what the application says, as ASGI has it.

        Raises:
            ClientGoneError: if the client will not get it.
        """

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """Whether the application has said everything."""

    def serve(self) -> Coroutine[object, object, int]:
        """Wait for a slot and run the application.

        Returns:
            The status that the client is to get instead of an answer, `ANSWERED` if there is nothing to say.

        Cancellation: What `stop` cancels ends in `trio.Cancelled`; ask `status_of_stop` what to say then.
        """
        # One coroutine less for each request, of those that all that it waits for is woken through.
        places = self.route.places
        return self._serve_in_slot() if places is None or self.is_websocket else self._serve_in_place(places)

    async def _serve_in_place(self, places: trio.CapacityLimiter) -> int:
        try:
            places.acquire_on_behalf_of_nowait(self)
        except trio.WouldBlock:
            if not await self._wait_to_enter(places.acquire_on_behalf_of):
                return HTTPStatus.SERVICE_UNAVAILABLE
        try:
            return await self._serve_in_slot()
        finally:
            places.release_on_behalf_of(self)

    async def _serve_in_slot(self) -> int:
        shared = self.shared
        try:
            shared.intake.enter_nowait(self, counts=not self.is_websocket)
        except trio.WouldBlock:
            shared.tell_full()
            if not await self._wait_to_enter(shared.intake.enter):
                return HTTPStatus.SERVICE_UNAVAILABLE
        else:
            shared.tell_free()
        self._has_slot = True
        try:
            return await self._run()
        finally:
            shared.intake.leave(self)
            if not self._has_slot:
                shared.apart -= 1

    def awaits_client(self, until: float, now: float) -> bool:
        """Let others have the slot of a request that does nothing but wait for its client: called every tick.

        Args:
            until: When the client must have sent, or taken, something; `inf` if nothing is waited for.
            now: The time.

        Returns:
            Whether it is to be ended: too many are such, and others wait for their slots.
        """
        if until != self._awaited[0]:
            self._awaited = until, now
        elif until < inf and self._has_slot:
            return self._give_up_slot(now - self._awaited[1])
        return False

    def _give_up_slot(self, waited: float) -> bool:
        shared = self.shared
        if shared.apart >= shared.intake.concurrency:
            return bool(shared.waiting) and waited >= PATIENCE
        if shared.intake.give_up_slot(self):
            self._has_slot = False
            shared.apart += 1
        return False

    def was_stopped(self) -> bool:
        """Whether somebody has stopped it."""
        return self._is_cut > 0

    @property
    def status_of_stop(self) -> int:
        """The status for the client of what was stopped."""
        return self._is_cut or HTTPStatus.SERVICE_UNAVAILABLE

    async def _wait_to_enter(self, enter: Callable[[Call], Awaitable[None]]) -> bool:
        """Wait for a slot, or for a place at the worker; return whether there was one in time."""
        shared = self.shared
        if shared.stopping or self.gone or len(shared.waiting) >= shared.config.max_waiting:
            await trio.lowlevel.checkpoint()
            return False
        with trio.move_on_after(shared.config.slot_timeout) as self.waiting:
            shared.waiting.add(self.waiting)
            try:
                await enter(self)
            finally:
                shared.waiting.discard(self.waiting)
            return True
        return False

    async def _wait_for_worker(self) -> Hosted | None:
        """Wait for a worker that is being replaced by a reload, as for a slot; None if there is none in time."""
        found: list[Hosted] = []

        async def enter(_call: Call) -> None:
            found.append(cast("Hosted", await self.route.target.wait_hosted()))

        try:
            await self._wait_to_enter(enter)
        except UnavailableError:
            await trio.lowlevel.checkpoint()
        return found[0] if found else None

    async def _run(self) -> int:  # noqa: ASYNC910  an application is a checkpoint, or its own fault
        if self._is_cut:
            return self._is_cut  # noqa: ASYNC910  suspends only to wait
        try:
            hosted = cast("Hosted", self.route.target.hosted())
        except UnavailableError:
            waited = await self._wait_for_worker()
            if waited is None:
                return HTTPStatus.SERVICE_UNAVAILABLE
            hosted = waited
        if self.gone:
            return ANSWERED  # noqa: ASYNC910  suspends only to wait
        self.scope["state"] = hosted.state.copy()
        if self.route.timeout and not self.is_websocket:
            self.until = self.shared.clock.now + self.route.timeout
        hosted.begin(self, lasts=self.is_websocket)
        if self.shared.context.hears(RequestBegan):
            self._tell_begin()
        try:
            await hosted.app(self.scope, self.receive, self.send)
        except BaseException as error:  # whatever an application raises costs only its own client  # noqa: ASYNC103, BLE001  what was cancelled is raised again
            passing, failure = parted(error)
            if failure is not None:
                self._judge(failure)
            if passing is not None:
                raise passing  # noqa: B904  it is what was raised, or a part of it
            return self.status_of_stop if self.was_stopped() else _status_of(error)  # noqa: ASYNC910  suspends only to wait
        finally:
            self.until = 0.0
            hosted.end(self)
        return self._returned()

    def _tell_begin(self) -> None:
        """Tell those who want to know that the application is called next, in the task that it is called in."""
        context = self.shared.context
        context.emit(
            RequestBegan(
                component=context.id,
                worker=f"worker/{self.route.worker}",
                method=self.scope.get("method", "websocket"),
                path=self.scope["raw_path"].decode("latin-1"),
                headers=self.scope["headers"],
                request=self.scope,
            )
        )

    def _judge(self, error: BaseException) -> None:
        if only_gone(error):
            return
        if self.told_gone:  # whatever it was about, nobody waits for it
            self.shared.context.log.debug("the application failed without its client", exc_info=error)
            return
        self._tell_failure(error)
        if _needs_asyncio(error):
            self.log_error(
                "an endpoint needs asyncio, and endpoints run on trio: see the README of the plugin",
                error,
                endpoint=_endpoint_of(self.scope),
            )
        else:
            self.log_error("the application failed", error)

    def _tell_failure(self, error: BaseException) -> None:
        context = self.shared.context
        if context.hears(RequestFailed):
            context.emit(
                RequestFailed(
                    component=context.id,
                    worker=f"worker/{self.route.worker}",
                    method=self.scope.get("method", "websocket"),
                    path=self.scope["raw_path"].decode("latin-1"),
                    error=error,
                    request=self.scope,
                )
            )

    def _returned(self) -> int:
        if self.is_complete or self.gone or self.told_gone:
            return ANSWERED
        if not self.was_stopped():
            self.log_error("the application returned without a complete answer")
        return self.status_of_stop if self.was_stopped() else HTTPStatus.INTERNAL_SERVER_ERROR

    def log_error(self, what: str, error: BaseException | None = None, **more: object) -> None:
        """Report what an application did wrong."""
        log = self.shared.context.log
        log.error(what, worker=f"worker/{self.route.worker}", path=self.scope["path"], **more, exc_info=error)


def _status_of(error: BaseException) -> int:
    """Return what a client is told of an application's error: a broker or driver that is away comes back."""
    heals = isinstance(error, UnavailableError | UnknownOutcomeError | QueueFullError | StorageError)
    return HTTPStatus.SERVICE_UNAVAILABLE if heals else HTTPStatus.INTERNAL_SERVER_ERROR


def _needs_asyncio(error: BaseException) -> bool:
    """Return whether it failed because a library looked for asyncio's event loop."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(_needs_asyncio, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    return isinstance(error, RuntimeError | TypeError) and _NO_LOOP(str(error)) is not None


_NO_LOOP: Final = re.compile(
    r"no running event loop|There is no current event loop in thread|trio\.run received unrecognized "
).match
"""What asyncio says where no loop of its own runs, and trio when it is handed one of asyncio's futures."""


def _endpoint_of(scope: dict[str, Any]) -> str:
    """Return the function that a framework had chosen for a request; empty if it does not say."""
    endpoint = scope.get("endpoint")
    name = getattr(endpoint, "__qualname__", "") or type(endpoint).__qualname__
    return f"{getattr(endpoint, '__module__', '')}.{name}" if endpoint is not None else ""


def only_gone(error: BaseException | None) -> bool:
    """Return whether an application only failed because its client was gone: frameworks wrap what `send` raises."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(only_gone, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, ClientGoneError):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
