"""The dispatcher `zmq_reply`: requests of REQ and DEALER sockets, many at a time, each answered to who asked."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, cast, final

import attrs
import trio
import zmq
from typing_extensions import override

from kernel import Ack, DeadLetter, Envelope, Outcome, Pace
from kernel.abc import Context, Delivery, Dispatcher, Endpoint, Intake, Seldom
from kernel.errors import DecodeError, EncodeError, KernelError, SettledError, UnavailableError

from ._config import ReplyConfig, not_shared, places, problems
from ._opening import open_socket
from ._socket import Socket
from ._wire import Cancellation, Malformed, Request, read_request, write_greeting, write_reply

_MAX_GREETED: Final = 10_000


@final
@attrs.define(eq=False, repr=False)
class RequestDelivery(Delivery):
    """A request on its way to a handler."""

    request: Request
    _finish: Callable[[Request, Outcome], None]
    _settled: bool = attrs.field(default=False, init=False)

    @property
    @override
    def envelope(self) -> Envelope:
        return self.request.envelope

    @property
    @override
    def attempt(self) -> int:
        return 1

    @property
    @override
    def redelivered(self) -> bool:
        return False

    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint()
        self.settle_nowait(outcome)

    @override
    def settle_nowait(self, outcome: Outcome) -> bool:
        if self._settled:
            raise SettledError(f"request {self.envelope.id} was settled twice")
        self._settled = True
        self._finish(self.request, outcome)
        return True


@final
class ReplyDispatcher(Dispatcher):
    """Brings in requests, and answers each when its handler has ended.

    Its socket is a ROUTER, which serves REQ as REP does: with `concurrency = 1` one after the other. What has come is
    read ahead, up to `receive_high_water`, so that a cancellation is heard while all slots are taken. When accepting
    ends, what waits is refused with an error, and so is what comes later.
    """

    Config: ClassVar[type[object]] = ReplyConfig
    speaks: ClassVar[bool] = True

    def __init__(self, *, config: ReplyConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context
        self._waiting: Final = deque[Request]()
        self._has_come: Final = trio.lowlevel.ParkingLot()
        self._has_room: Final = trio.lowlevel.ParkingLot()
        self._intake: Intake | None = None
        self._is_submitting = False
        """Whether a request waits in the intake, which others must not overtake."""
        self._is_over = False
        self._seldom: Final = Seldom(context)
        self._greeted: Final = dict[tuple[bytes, ...], None]()
        """Peers that know that we hear cancellations; the oldest is forgotten first, and greeted again."""
        self._socket: Socket | None = None

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        return problems(cast("ReplyConfig", config))

    @classmethod
    @override
    def listens(cls, config: object) -> Iterable[Endpoint]:
        return places(cast("ReplyConfig", config).bind)

    @classmethod
    @override
    def check_shared(cls, config: object) -> Iterable[str]:
        return not_shared(cast("ReplyConfig", config).bind)

    @override
    def open(self) -> AbstractAsyncContextManager[None]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        config = self._config
        async with open_socket(
            zmq.ROUTER,
            config,
            self._context,
            bind=config.bind,
            connect=config.connect,
            options={zmq.ROUTER_HANDOVER: 1},
        ) as socket:
            self._socket = socket
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, socket)
                yield
                nursery.cancel_scope.cancel()

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        self._intake = intake
        task_status.started()
        pace = Pace()
        try:
            while True:
                await pace.step()
                while not self._waiting:
                    await self._has_come.park()
                request = self._waiting.popleft()
                self._has_room.unpark_all()
                self._is_submitting = True
                await intake.submit(RequestDelivery(request, self._finish), revocable_as=request.name)
                self._is_submitting = False
        finally:
            self._is_over = True
            while self._waiting:
                self._refuse(self._waiting.popleft())

    # --- what comes in ------------------------------------------------------------------------------------------

    async def _read(self, socket: Socket) -> None:
        """Take what comes, as long as there is room for it."""
        subject = self._config.subject or self._context.name
        pace = Pace()
        while True:
            came = read_request(await socket.next(pace), subject=subject, now=trio.current_time())
            if isinstance(came, Request):
                self._greet(socket, tuple(came.peer))
            self._take(came)
            while len(self._waiting) >= self._config.receive_high_water:
                await self._has_room.park()

    def _greet(self, socket: Socket, peer: tuple[bytes, ...]) -> None:
        if not peer or peer in self._greeted:
            return
        self._greeted[peer] = None
        if len(self._greeted) > _MAX_GREETED:
            del self._greeted[next(iter(self._greeted))]
        socket.send_nowait(write_greeting(peer))

    def _take(self, came: Request | Cancellation | Malformed) -> None:
        match came:
            case Request() if self._is_over:
                self._refuse(came)
            case Request():
                self._bring_in(came)
            case Cancellation():
                self._cancel(came.name)
            case Malformed(reason, request):
                if request is None or not self._answer_error(request, DecodeError(reason)):
                    self._seldom.warn("malformed_request", reason=reason)

    def _bring_in(self, request: Request) -> None:
        """Have a request handled at once if nothing stands before it; else it waits for `accept`."""
        if self._intake is not None and not self._waiting and not self._is_submitting:
            try:
                self._intake.submit_nowait(RequestDelivery(request, self._finish), revocable_as=request.name)
            except trio.WouldBlock:
                pass
            else:
                return
        self._waiting.append(request)
        self._has_come.unpark()

    def _cancel(self, name: str) -> None:
        if self._intake is None or not self._intake.revoke(name):
            for request in [request for request in self._waiting if request.name == name]:
                self._waiting.remove(request)

    # --- what goes out ------------------------------------------------------------------------------------------

    def _finish(self, request: Request, outcome: Outcome) -> None:
        match outcome:
            case Ack(reply):
                if reply is not None:  # of one that was cancelled there is none
                    self._send(request, reply)
            case DeadLetter(reason):  # the protocol can tell no errors
                self._context.log.error("request_not_answered", subject=request.envelope.subject, reason=reason)
            case _:
                self._refuse(request)

    def _refuse(self, request: Request) -> None:
        """Say that it will not be handled, if the protocol can tell that."""
        self._answer_error(
            request, UnavailableError(f"{self._context.service} stops; the request was not handled to its end")
        )

    def _answer_error(self, request: Request, error: KernelError) -> bool:
        """Return whether the protocol can tell an error, which has been sent then."""
        try:
            reply = self._context.protocol.encode_error(request.envelope, error)
        except EncodeError:
            reply = None
        if reply is not None:
            self._send(request, reply)
        return reply is not None

    def _send(self, request: Request, reply: Envelope) -> None:
        assert self._socket is not None  # it is open as long as anything is in flight
        self._socket.send_nowait(write_reply(request, reply))  # a ROUTER drops what it has no room or no peer for
