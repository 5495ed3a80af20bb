"""The dispatcher `zmq_subscribe`: what publishers send."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, cast, final

import attrs
import trio
import zmq
from typing_extensions import override

from kernel import Ack, DeadLetter, Envelope, Outcome, Pace, Retry, Return
from kernel.abc import Context, Delivery, Dispatcher, Endpoint, Intake
from kernel.errors import SettledError

from ._config import SubscribeConfig, not_shared, places, problems
from ._events import MessageLost
from ._opening import open_socket
from ._socket import Socket
from ._wire import read_publication, topic_filter


@final
@attrs.define(eq=False, repr=False)
class Publication(Delivery):
    """One attempt at a message that was published."""

    _envelope: Envelope
    _attempt: int
    _finish: Callable[[Envelope, int, Outcome], None]
    _settled: bool = attrs.field(default=False, init=False)

    @property
    @override
    def envelope(self) -> Envelope:
        return self._envelope

    @property
    @override
    def attempt(self) -> int:
        return self._attempt

    @property
    @override
    def redelivered(self) -> bool:
        return self._attempt > 1

    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint()
        self.settle_nowait(outcome)

    @override
    def settle_nowait(self, outcome: Outcome) -> bool:
        if self._settled:
            raise SettledError(f"message {self._envelope.id} was settled twice")
        self._settled = True
        self._finish(self._envelope, self._attempt, outcome)
        return True


@final
class SubscribeDispatcher(Dispatcher):
    """Brings in what is published.

    Nothing behind the socket keeps a message: what is to be tried again waits in memory, and what is put aside, or has
    not been handled when accepting ends, is lost, which `MessageLost` and the log tell.
    """

    Config: ClassVar[type[object]] = SubscribeConfig
    speaks: ClassVar[bool] = True

    def __init__(self, *, config: SubscribeConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context
        self._socket: Socket | None = None
        self._intake: Intake | None = None
        self._retries: trio.Nursery | None = None
        """Where messages wait for their next attempt; None when accepting has ended."""

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        return problems(cast("SubscribeConfig", config))

    @classmethod
    @override
    def listens(cls, config: object) -> Iterable[Endpoint]:
        return places(cast("SubscribeConfig", config).bind)

    @classmethod
    @override
    def check_shared(cls, config: object) -> Iterable[str]:
        return not_shared(cast("SubscribeConfig", config).bind)

    @override
    def open(self) -> AbstractAsyncContextManager[None]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        config = self._config
        async with open_socket(
            zmq.SUB, config, self._context, bind=config.bind, connect=config.connect
        ) as self._socket:
            yield

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        assert self._socket is not None  # accepting is within open
        self._intake = intake
        for topic in self._config.topics:
            self._socket.raw.subscribe(topic_filter(topic, self._config.framing))
        async with trio.open_nursery() as retries:
            self._retries = retries
            try:
                await self._bring_in(self._socket, intake, task_status)
            finally:
                self._retries = None

    async def _bring_in(self, socket: Socket, intake: Intake, task_status: trio.TaskStatus[None]) -> None:
        subject = self._config.subject or self._context.name
        task_status.started()
        pace = Pace()
        while True:
            envelope = read_publication(await socket.next(pace), self._config.framing, subject=subject)
            if envelope is None:
                self._context.log.debug("malformed_publication")
            else:
                await intake.submit(Publication(envelope, 1, self._finish))

    def _finish(self, envelope: Envelope, attempt: int, outcome: Outcome) -> None:
        match outcome:
            case Ack():
                return
            case Retry(after) if self._retries is not None and self._has_room(self._retries):
                self._retries.start_soon(self._again, envelope, attempt + 1, after)
            case Retry():
                self._lose(envelope, "it was to be tried again, and there is no room to wait, or no time")
            case DeadLetter(reason):
                self._lose(envelope, reason)
            case Return():
                self._lose(envelope, "it was not handled when accepting ended")

    def _has_room(self, retries: trio.Nursery) -> bool:
        return len(retries.child_tasks) < self._config.max_retrying

    async def _again(self, envelope: Envelope, attempt: int, after: float) -> None:
        assert self._intake is not None  # what is tried again was submitted
        try:
            await trio.sleep(after)
        except trio.Cancelled:
            self._lose(envelope, "it waited for its next attempt when accepting ended")
            raise
        await self._intake.submit(Publication(envelope, attempt, self._finish))

    def _lose(self, envelope: Envelope, reason: str) -> None:
        lost = MessageLost(component=self._context.id, subject=envelope.subject, id=envelope.id, reason=reason)
        self._context.emit(lost)
        self._context.log.error("message_lost", subject=envelope.subject, reason=reason)
