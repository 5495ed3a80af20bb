"""The driver `websocket`, a door, and the worker behind it: whoever comes to a path of a `web` dispatcher is let in there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, cast, final

import attrs
import trio
from trio_websocket import ConnectionClosed
from typing_extensions import override

from kernel.abc import Context, Driver, NoConfig
from kernel.errors import StartupError

from ._boundary import contained
from ._config import LineConfig
from ._handshake import Asked, Socket, origins_of

if TYPE_CHECKING:
    from ._sessions import Sessions

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
_TOO_BIG: Final = 1009
"""Close code. Source: RFC 6455, 7.4.1."""
_ELSE: Final = b"this is a websocket\n"
_UPGRADE: Final = (
    (b"upgrade", b"websocket"),
    (b"content-type", b"text/plain"),
    (b"content-length", b"%d" % len(_ELSE)),
)


@final
class WebSocketDoor:
    """Leads those who come to its applications to the dispatcher that attends it."""

    def __init__(self, name: str) -> None:
        self._name: Final = name
        self._attending: tuple[Sessions, Context] | None = None

    @contextmanager
    def attended(self, sessions: Sessions, context: Context) -> Generator[None]:
        """Have a dispatcher serve who comes, while inside.

        Raises:
            StartupError: if another one does.
        """
        if self._attending is not None:
            raise StartupError(f"{self._name} leads to {self._attending[1].id}, and cannot lead to {context.id} too")
        self._attending = sessions, context
        try:
            yield
        finally:
            self._attending = None

    async def enter(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one websocket, as ASGI has it; 503 where nobody attends.

        Cancellation: Is a checkpoint.
        """
        await receive()
        if self._attending is None:
            await reject(send, 503)
            return
        sessions, context = self._attending
        with contained(context):
            await sessions.serve(_AtDoor(scope, receive, send, sessions.config))


@final
class WebSocketDoorDriver(Driver[WebSocketDoor]):
    """Gives a dispatcher `websocket` and the workers `kernel_websocket:WebSocketApp` the place where they meet."""

    Config: ClassVar[type[object]] = NoConfig
    provides: ClassVar[type[object]] = WebSocketDoor

    def __init__(self, *, config: NoConfig, context: Context) -> None:
        self._name: Final = context.id

    @override
    def open(self) -> AbstractAsyncContextManager[WebSocketDoor]:
        return nullcontext(WebSocketDoor(self._name))


@final
class WebSocketApp:
    """An ASGI application for a worker of a `web` dispatcher: its websockets are those of the door's dispatcher."""

    def __init__(self, door: WebSocketDoor) -> None:
        self._door: Final = door

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one websocket, as ASGI has it; what is none is told so."""
        match scope["type"]:
            case "websocket":
                await self._door.enter(scope, receive, send)
            case "http":
                await send({"type": "http.response.start", "status": 426, "headers": list(_UPGRADE)})
                await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else _ELSE})
            case other:
                raise NotImplementedError(other)  # as ASGI wants it of an application without a lifespan


async def reject(send: Send, status: int) -> None:
    """Refuse a websocket with an HTTP status, as ASGI has it."""
    await send({"type": "websocket.http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "websocket.http.response.body", "body": b""})


@final
class _AtDoor(Asked):
    """A peer that came to an application."""

    __slots__ = ("_scope", "_send", "_socket", "headers")

    def __init__(self, scope: Message, receive: Receive, send: Send, config: LineConfig) -> None:
        self._scope = scope
        self._send = send
        self._socket = _DoorSocket(receive, send, config)
        self.headers: Mapping[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }

    @property
    @override
    def path(self) -> str:
        below = str(self._scope["path"]).removeprefix(str(self._scope.get("root_path", ""))) or "/"
        query = self._scope["query_string"].decode("latin-1")
        return f"{below}?{query}" if query else below

    @property
    @override
    def subprotocols(self) -> Sequence[str]:
        subprotocols: Sequence[str] = self._scope.get("subprotocols", ())
        return subprotocols

    @property
    @override
    def remote(self) -> str:
        host, port = self._scope.get("client") or ("", 0)
        scheme = self._scope.get("scheme", "ws")
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}" if host else ""

    @property
    @override
    def own_origins(self) -> Sequence[str]:
        host, port = self._scope.get("server") or ("", None)
        if not isinstance(port, int):  # a unix socket, which has no pages of its own
            return ()
        return origins_of("https" if self._scope.get("scheme") in {"wss", "https"} else "http", host, port)

    @override
    async def accept(self, subprotocol: str | None) -> Socket:
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "stop": True})
        return self._socket

    @override
    async def reject(self, status: int) -> None:
        await reject(self._send, status)

    @override
    def on_stop(self, leave: Callable[[], None]) -> None:
        self._socket.leave = leave


@final
@attrs.define(eq=False, repr=False)
class _DoorSocket:
    """A websocket of an ASGI server, with the limits of the dispatcher that serves it."""

    _receive: Receive
    _send: Send
    _config: LineConfig
    leave: Callable[[], object] = bool
    """Called when the server stops."""

    async def get_message(self) -> str | bytes:
        while True:
            await trio.lowlevel.checkpoint()
            message = await self._receive()
            match message["type"]:
                case "websocket.receive":
                    body = message["bytes"] if message.get("text") is None else message["text"]
                    if _size(body) <= self._config.max_bytes:
                        return cast("str | bytes", body)
                    await self.aclose(_TOO_BIG, "the message is too big")
                    raise ConnectionClosed(None)
                case "websocket.stop":
                    self.leave()
                case _:
                    raise ConnectionClosed(None)

    async def send_message(self, message: str) -> None:
        await self._tell({"type": "websocket.send", "text": message})

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None:
        await self._tell({"type": "websocket.close", "code": code, "reason": reason or ""})

    async def _tell(self, message: Message) -> None:
        """Send; what is not taken in time, or cannot be any more, ends the connection."""
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(self._config.send_timeout), suppress(OSError):
            await self._send(message)
            return
        raise ConnectionClosed(None)


def _size(body: str | bytes) -> int:
    return len(body if isinstance(body, bytes) else body.encode())
