"""The dispatcher `websocket`: listens at a port of its own."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import ClassVar, Final, cast, final

import trio
from trio_websocket import WebSocketRequest, wrap_server_stream
from typing_extensions import override

from kernel import Listening
from kernel.abc import Context, Dispatcher, Intake
from kernel.errors import StartupError, UnavailableError

from ._boundary import BoundedStream, contained
from ._config import WebSocketConfig
from ._format import Format
from ._handshake import admitted
from ._line import Line
from ._session import Session

_GOING_AWAY: Final = 1001
_HANDSHAKE_TIMEOUT: Final = 10.0
_FAREWELL: Final = 0.5
"""Seconds for the last answers and the closing of all connections."""


@final
class WebSocketDispatcher(Dispatcher):
    """Brings in the requests of websockets; each is handled when it comes, as far as there are slots.

    When accepting ends, connections stay until everything in flight is settled, and new requests are refused.
    """

    Config: ClassVar[type[object]] = WebSocketConfig
    speaks: ClassVar[bool] = True

    def __init__(self, *, config: WebSocketConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context
        self._intake: Intake | None = None
        self._is_over = False
        self._numbers: Final = count(1)
        self._sessions: Final = dict[Session, None]()
        self._nursery: trio.Nursery | None = None
        self._waiting: trio.Nursery | None = None
        """Where requests wait for their slot, while accepting."""

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        authenticate = cast("WebSocketConfig", config).authenticate
        if authenticate is not None and len(inspect.signature(authenticate).parameters) != 1:
            yield "`authenticate` must name a function with one parameter, the handshake"

    @override
    def open(self) -> AbstractAsyncContextManager[None]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        if not isinstance(self._context.protocol, Format):
            raise StartupError(f'{self._context.id}: `protocol` must be "jsonrpc" or "ufw_websocket"')
        async with trio.open_nursery() as self._nursery:
            yield
            for session in list(self._sessions):
                session.line.close(_GOING_AWAY, "the service stops")
            self._nursery.cancel_scope.deadline = trio.current_time() + _FAREWELL

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        config = self._config
        try:
            listeners = await self._context.crew.open_tcp_listeners(self._context.id, config.port, host=config.host)
        except OSError as error:
            raise UnavailableError(
                f"{self._context.id} cannot listen at {config.host}:{config.port}: {error}"
            ) from error
        self._intake = intake
        for listener in listeners:
            host, port = listener.socket.getsockname()[:2]
            address = f"ws://{f'[{host}]' if ':' in host else host}:{port}{config.path}"
            self._context.emit(Listening(component=self._context.id, address=address))
        async with trio.open_nursery() as self._waiting:
            try:
                await trio.serve_listeners(
                    self._contain, listeners, handler_nursery=self._nursery, task_status=_Started(task_status)
                )
            finally:
                self._is_over = True

    async def _contain(self, raw: trio.SocketStream) -> None:
        """Serve a connection from its first byte to its last: whatever goes wrong with it stays here."""
        stream = BoundedStream(raw, send_timeout=self._config.send_timeout)
        with contained(self._context):
            try:
                async with trio.open_nursery() as nursery:
                    with stream.shaking_hands(seconds=_HANDSHAKE_TIMEOUT):
                        request = await wrap_server_stream(nursery, stream, max_message_size=self._config.max_bytes)
                    await self._serve(request, stream)
                    nursery.cancel_scope.cancel()
            finally:
                await stream.part()  # noqa: ASYNC102  it is bounded, and closes the socket if cancelled

    async def _serve(self, request: WebSocketRequest, stream: BoundedStream) -> None:
        if self._is_over or len(self._sessions) >= self._config.max_connections:
            await request.reject(503)
            return
        try:
            identity = await admitted(request, stream, self._config)
        except Exception:
            self._context.log.exception("authenticate_failed")
            identity = 500
        if isinstance(identity, int):
            await request.reject(identity)
            return
        await self._converse(request, identity, stream)

    async def _converse(self, request: WebSocketRequest, identity: str, stream: BoundedStream) -> None:
        protocol, config = cast("Format", self._context.protocol), self._config
        chosen = next((name for name in protocol.subprotocols if name in request.proposed_subprotocols), None)
        socket = stream.socket = await request.accept(subprotocol=chosen)
        extends = chosen is not None and chosen == protocol.subprotocols[0]
        line = Line(socket, protocol, config, extends=extends, identity=identity)
        session = Session(
            socket,
            line,
            protocol,
            number=next(self._numbers),
            max_pending=config.max_pending,
            service=self._context.service,
        )
        self._sessions[session] = None
        try:
            await session.run(self._place)
        finally:
            del self._sessions[session]

    def _place(self) -> tuple[Intake, trio.Nursery] | None:
        """Return where requests go, and where they wait for it; None if no more are taken."""
        if self._is_over or self._intake is None or self._waiting is None:
            return None
        return self._intake, self._waiting


@final
class _Started(trio.TaskStatus[object]):
    """Says that it has started, without what the server would say."""

    def __init__(self, status: trio.TaskStatus[None]) -> None:
        self._status = status

    @override
    def started(self, value: object = None) -> None:
        self._status.started()
