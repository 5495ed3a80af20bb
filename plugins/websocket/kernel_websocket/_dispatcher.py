"""The dispatcher `websocket`: listens at a port of its own, or is given whoever comes to a door."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import ClassVar, Final, cast, final

import trio
from trio_websocket import WebSocketRequest, wrap_server_stream
from typing_extensions import override

from kernel import Listening
from kernel.abc import Context, Dispatcher, Endpoint, Intake, why_not_listening
from kernel.errors import StartupError, UnavailableError

from ._boundary import BoundedStream, contained
from ._config import WebSocketConfig
from ._door import WebSocketDoor
from ._format import Format
from ._handshake import HANDSHAKE_TIMEOUT, Asked, Socket, origins_of
from ._sessions import Sessions


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
        self._sessions: Sessions | None = None
        self._nursery: trio.Nursery | None = None
        """In which the connections of a port live."""
        self._shaking: Final = dict[BoundedStream, None]()
        """Of those that have not said yet what they want, the oldest first."""

    driver_fix: ClassVar[str] = "take out `port` to be served at the door"

    @classmethod
    @override
    def needs_with(cls, config: object) -> type[object] | None:
        return WebSocketDoor if cast("WebSocketConfig", config).port is None else None

    @classmethod
    @override
    def listens(cls, config: object) -> Iterable[Endpoint]:
        table = cast("WebSocketConfig", config)
        return () if table.port is None else (Endpoint(host=table.host, port=table.port),)

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
        context = self._context
        if not isinstance(context.protocol, Format):
            raise StartupError(f'{context.id}: `protocol` must be "jsonrpc" or "ufw_websocket"')
        sessions = self._sessions = Sessions(self._config, context)
        async with trio.open_nursery() as self._nursery:
            try:
                yield
            finally:
                await sessions.end()  # noqa: ASYNC102  bounded, and cuts off if cancelled
            self._nursery.cancel_scope.cancel()

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        assert self._sessions is not None  # `accept` is inside of `open`
        listeners = [] if self._config.port is None else await self._listeners(self._config.port)
        async with trio.open_nursery() as waiting:
            self._sessions.take(intake, waiting)
            try:
                await self._accept_from(listeners, task_status)
            finally:
                self._sessions.refuse()

    async def _accept_from(self, listeners: list[trio.SocketListener], status: trio.TaskStatus[None]) -> None:
        assert self._sessions is not None  # as above
        if self._config.port is not None:
            await trio.serve_listeners(
                self._contain, listeners, handler_nursery=self._nursery, task_status=_Started(status)
            )
        door = cast("WebSocketDoor", self._context.driver)
        with door.attended(self._sessions, self._context):
            status.started()
            await trio.sleep_forever()

    async def _listeners(self, port: int) -> list[trio.SocketListener]:
        context, config = self._context, self._config
        try:
            listeners = await context.crew.open_tcp_listeners(context.id, port, host=config.host)
        except OSError as error:
            failure = error
        else:
            for listener in listeners:
                host, bound = listener.socket.getsockname()[:2]
                address = f"ws://{f'[{host}]' if ':' in host else host}:{bound}{config.path}"
                context.emit(Listening(component=context.id, address=address))
            return listeners
        where = Endpoint(host=config.host, port=port)
        reason = await trio.to_thread.run_sync(why_not_listening, failure, where, abandon_on_cancel=True)
        raise UnavailableError(f"{context.id} cannot listen at {config.host}:{port}: {reason}") from failure

    async def _contain(self, raw: trio.SocketStream) -> None:
        """Serve a connection from its first byte to its last: whatever goes wrong with it stays here."""
        assert self._sessions is not None  # as above
        stream = BoundedStream(raw, send_timeout=self._config.send_timeout)
        with contained(self._context):
            try:
                async with trio.open_nursery() as nursery:
                    with self._place_for(stream), stream.shaking_hands(seconds=HANDSHAKE_TIMEOUT):
                        request = await wrap_server_stream(nursery, stream, max_message_size=self._config.max_bytes)
                    await self._sessions.serve(_AtPort(request, stream))
                    nursery.cancel_scope.cancel()
            finally:
                await stream.part()  # noqa: ASYNC102  it is bounded, and closes the socket if cancelled

    @contextmanager
    def _place_for(self, stream: BoundedStream) -> Generator[None]:
        """Let so many shake hands as may be connected: of more, who has taken the longest makes place."""
        if len(self._shaking) >= self._config.max_connections:
            next(iter(self._shaking)).give_up()
        self._shaking[stream] = None
        try:
            yield
        finally:
            del self._shaking[stream]


@final
class _AtPort(Asked):
    """A peer that came to a port of our own."""

    __slots__ = ("_request", "_stream", "headers")

    def __init__(self, request: WebSocketRequest, stream: BoundedStream) -> None:
        self._request = request
        self._stream = stream
        self.headers: Mapping[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers
        }

    @property
    @override
    def path(self) -> str:
        return self._request.path

    @property
    @override
    def subprotocols(self) -> Sequence[str]:
        return self._request.proposed_subprotocols

    @property
    @override
    def remote(self) -> str:
        return self._stream.remote.url

    @property
    @override
    def own_origins(self) -> Sequence[str]:
        local = self._stream.local
        return origins_of("http", str(local.address), local.port)

    @override
    async def accept(self, subprotocol: str | None) -> Socket:
        self._stream.socket = await self._request.accept(subprotocol=subprotocol)
        return self._stream.socket

    @override
    async def reject(self, status: int) -> None:
        await self._request.reject(status)


@final
class _Started(trio.TaskStatus[object]):
    """Says that it has started, without what the server would say."""

    def __init__(self, status: trio.TaskStatus[None]) -> None:
        self._status = status

    @override
    def started(self, value: object = None) -> None:
        self._status.started()
