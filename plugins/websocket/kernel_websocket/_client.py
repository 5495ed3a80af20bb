"""The driver `websocket_client`: one connection, made again whenever it is lost."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import ClassVar, Final, TypeVar, cast, final, overload
from urllib.parse import SplitResult, urlsplit

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream
from typing_extensions import override

from kernel import NO_HEADERS, Outgoing
from kernel.abc import Caller, Context, Contract, Driver, Intercept
from kernel.errors import CallTimeoutError, StartupError, UnavailableError

from ._boundary import OF_THE_PEER, BoundedStream, RawStream, reason_in
from ._config import WebSocketClientConfig
from ._format import Answer, Format, Request
from ._line import Line

ReturnT = TypeVar("ReturnT")
_CONNECT_TIMEOUT: Final = 10.0


@final
class WebSocketClient(Caller):
    """Calls handlers behind a websocket. Safe to share between tasks."""

    def __init__(
        self, config: WebSocketClientConfig, contract: Contract | None = None, intercept: Intercept | None = None
    ) -> None:
        self._config: Final = config
        self._contract: Final = contract
        self._intercept: Final = intercept
        self._limiter: Final = trio.CapacityLimiter(config.max_in_flight)
        self._line: Line | None = None
        self._changed: Final = trio.lowlevel.ParkingLot()
        self._is_closed = False

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._line is not None

    @overload
    async def call(
        self, subject: str, payload: object, *, headers: Mapping[str, object] = ..., returns: type[ReturnT]
    ) -> ReturnT: ...
    @overload
    async def call(
        self, subject: str, payload: object, *, headers: Mapping[str, object] = ..., returns: object = ...
    ) -> object: ...
    @override
    async def call(
        self, subject: str, payload: object, *, headers: Mapping[str, object] = NO_HEADERS, returns: object = object
    ) -> object:
        """Send a request and return what the answer carries.

        It waits for a connection inside its deadline. Deadline and headers reach peers that know them.

        Raises:
            RemoteError: if the other side answered with an error.
            CallTimeoutError: if no answer came within `timeout`.
            UnavailableError: if there was no connection in that time, or the driver is closed.
            UnknownOutcomeError: if the connection broke while the answer was awaited.
            EncodeError: if the protocol cannot write the payload; `ContractError` if it is not what the driver's
                contract promises. Nothing was sent.
            DecodeError: if the answer means nothing; `ConversionError` if it is no `returns`.

        Cancellation: Is a checkpoint. If cancelled, the other side is told if it knows what that is.
        """
        convert = None
        if self._contract is not None:
            promised = self._contract.sending(subject, payload)
            convert = promised if returns is object else None
        line: Line | None = None
        outgoing = Outgoing(subject, payload, dict(headers), is_call=True)

        async def call() -> object:
            nonlocal line
            async with self._limiter:
                line = await self._connected()
                answer = await line.call(subject, payload, headers=outgoing.headers, returns=returns)
                return answer if convert is None else convert(answer)

        with trio.move_on_after(self._config.timeout):
            return await (call() if self._intercept is None else self._intercept(outgoing, call))
        if line is None:
            raise UnavailableError(f'there was no connection for "{subject}"')
        raise CallTimeoutError(subject, seconds=self._config.timeout)

    async def notify(self, subject: str, payload: object, *, headers: Mapping[str, object] = NO_HEADERS) -> None:
        """Tell the other side something, as soon as there is a connection.

        Raises:
            EncodeError: if the payload cannot be written.
            UnavailableError: if the driver is closed.

        Cancellation: Is a checkpoint.

        Delivery: At most once.
        """
        if self._contract is not None:
            self._contract.sending(subject, payload)
        outgoing = Outgoing(subject, payload, dict(headers))

        async def notify() -> None:
            (await self._connected()).notify(subject, payload, headers=outgoing.headers)

        await (notify() if self._intercept is None else self._intercept(outgoing, notify))

    async def _connected(self) -> Line:
        await trio.lowlevel.checkpoint()
        while self._line is None or not self._line.is_open:
            if self._is_closed:
                raise UnavailableError("the websocket client is closed")
            await self._changed.park()
        return self._line

    def use(self, line: Line | None) -> None:
        """Have calls made over a connection; None has them wait."""
        self._line = line
        self._changed.unpark_all()

    def close(self) -> None:
        """End the calls that wait for a connection."""
        self._is_closed = True
        self.use(None)


@final
class WebSocketClientDriver(Driver[WebSocketClient]):
    """Gives workers a `WebSocketClient`.

    What the other side asks or tells of its own accord is answered with an error, or dropped.
    """

    Config: ClassVar[type[object]] = WebSocketClientConfig
    speaks: ClassVar[bool] = True
    sends: ClassVar[bool] = True
    intercepts: ClassVar[bool] = True
    provides: ClassVar[type[object]] = WebSocketClient

    def __init__(self, *, config: WebSocketClientConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @override
    def open(self) -> AbstractAsyncContextManager[WebSocketClient]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[WebSocketClient]:
        if not isinstance(self._context.protocol, Format):
            raise StartupError(f'{self._context.id}: `protocol` must be "jsonrpc" or "ufw_websocket"')
        client = WebSocketClient(self._config, self._context.contract, self._context.intercept)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep, client)
            try:
                yield client
            finally:
                client.close()
            nursery.cancel_scope.cancel()

    async def _keep(self, client: WebSocketClient) -> None:
        """Connect, and connect again, for ever; whatever a server does, or we do wrong with it, ends a connection only."""
        wait = self._config.reconnect_first
        while True:
            reason = "the connection ended"
            try:
                async with self._connect() as socket:
                    wait = self._config.reconnect_first
                    await self._converse(client, socket)
            except* OF_THE_PEER as group:
                error = reason_in(group)
                reason = f"it cannot be connected: {type(error).__name__}: {error}"
            except* Exception as group:
                self._context.log.exception("connection_failed")
                reason = f"the connection failed: {reason_in(group)!r}"
            self._context.report_degraded(reason)
            await trio.sleep(wait)
            wait = min(2 * wait, self._config.reconnect_most)

    @asynccontextmanager
    async def _connect(self) -> AsyncGenerator[WebSocketConnection]:
        """Open a connection; its stream is ours, so that a cancelled handshake leaves none open."""
        config, url = self._config, urlsplit(self._config.url)
        host, is_safe = url.hostname or "", url.scheme == "wss"
        with trio.fail_after(_CONNECT_TIMEOUT):
            raw = await _open_stream(host, url.port or (443 if is_safe else 80), is_safe=is_safe)
        stream = BoundedStream(raw, send_timeout=config.send_timeout)
        try:
            async with trio.open_nursery() as nursery:
                with stream.shaking_hands(seconds=_CONNECT_TIMEOUT):
                    stream.socket = await self._shake_hands(nursery, stream, url, config)
                yield stream.socket
                nursery.cancel_scope.cancel()
        finally:
            await stream.part()  # noqa: ASYNC102  it is bounded, and closes the socket if cancelled

    async def _shake_hands(
        self, nursery: trio.Nursery, stream: BoundedStream, url: SplitResult, config: WebSocketClientConfig
    ) -> WebSocketConnection:
        token = [] if config.token is None else [(b"Authorization", f"Bearer {config.token.reveal()}".encode())]
        # Ours last: many a server takes the first of whatever it is offered, and knows no extensions.
        offered = list(reversed(cast("Format", self._context.protocol).subprotocols))
        return await wrap_client_stream(
            nursery,
            cast("RawStream", stream),  # any stream will do, as `wrap_server_stream` says
            url.netloc.rpartition("@")[2],
            (url.path or "/") + (f"?{url.query}" if url.query else ""),
            subprotocols=offered,
            extra_headers=token,
            max_message_size=config.max_bytes,
        )

    async def _converse(self, client: WebSocketClient, socket: WebSocketConnection) -> None:
        protocol = cast("Format", self._context.protocol)
        extends = bool(protocol.subprotocols) and socket.subprotocol == protocol.subprotocols[0]
        line = Line(socket, protocol, self._config, extends=extends)
        self._context.report_ready()
        client.use(line)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.write, nursery.cancel_scope)
            try:
                with suppress(ConnectionClosed):
                    while True:
                        text = await socket.get_message()
                        self._take(line, protocol, text.encode() if isinstance(text, str) else text)
            finally:
                client.use(None)
                line.end()

    def _take(self, line: Line, protocol: Format, body: bytes) -> None:
        for item in protocol.read(body, now=trio.current_time())[0]:
            match item:
                case Answer():
                    line.answered(item)
                case Request(key=key) if key:
                    reply = protocol.encode_error(item.envelope, UnavailableError("this client answers no calls"))
                    if reply is not None:
                        line.send(reply.body)
                case _:
                    self._context.log.debug("unasked_message")


async def _open_stream(host: str, port: int, *, is_safe: bool) -> RawStream:
    stream = await trio.open_tcp_stream(host, port)
    return trio.SSLStream(stream, ssl.create_default_context(), server_hostname=host) if is_safe else stream
