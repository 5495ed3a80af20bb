"""One request of HTTP/1.1 and its answer, bounded in size and time."""

from __future__ import annotations

import base64
import ssl
from typing import Final, final
from urllib.parse import SplitResult

import attrs
import h11
import trio

from .._errors import ManagementError

_LARGEST: Final = 16 * 1024 * 1024
_CHUNK: Final = 64 * 1024


@final
@attrs.frozen(kw_only=True, repr=False)
class Api:
    """Where an HTTP API is, and who asks."""

    url: SplitResult
    username: str
    password: str
    timeout: float
    """Seconds for one request."""
    tls: ssl.SSLContext | None = None

    async def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body of the answer.

        Raises:
            ManagementError: if there is none in time, or it is no answer of HTTP.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been done.
        """
        with trio.move_on_after(self.timeout):
            try:
                return await self._ask(method, path, body)
            except (OSError, trio.BrokenResourceError, h11.ProtocolError) as error:
                raise ManagementError(f"{self._where} does not answer: {str(error) or type(error).__name__}") from error
        raise ManagementError(f"{self._where} has not answered within {self.timeout:g} s")

    @property
    def _where(self) -> str:
        return f"the HTTP API at {self.url.hostname}:{self._port}, which `management` names,"

    @property
    def _port(self) -> int:
        return self.url.port or (443 if self.tls is not None else 80)

    async def _ask(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        host = self.url.hostname or ""
        stream: trio.abc.Stream = await trio.open_tcp_stream(host, self._port)
        try:
            if self.tls is not None:
                stream = trio.SSLStream(stream, self.tls, server_hostname=host, https_compatible=True)
            return await self._exchange(stream, method, path, body or b"")
        finally:
            await trio.aclose_forcefully(stream)  # noqa: ASYNC102  it does not wait

    async def _exchange(self, stream: trio.abc.Stream, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        connection = h11.Connection(h11.CLIENT)
        token = base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")
        headers = [
            ("host", f"{self.url.hostname}:{self._port}"),
            ("authorization", f"Basic {token}"),
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        head = connection.send(h11.Request(method=method, target=self.url.path.rstrip("/") + path, headers=headers))
        data = connection.send(h11.Data(data=body)) if body else b""
        await stream.send_all((head or b"") + (data or b"") + (connection.send(h11.EndOfMessage()) or b""))
        return await self._answer(stream, connection)

    async def _answer(self, stream: trio.abc.Stream, connection: h11.Connection) -> tuple[int, bytes]:
        status, parts, size = 0, list[bytes](), 0
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(_CHUNK)))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
                size += len(event.data)
                if size > _LARGEST:
                    raise ManagementError(f"{self._where} answered with more than {_LARGEST} bytes")
            elif isinstance(event, h11.EndOfMessage):
                await trio.lowlevel.checkpoint()
                return status, b"".join(parts)
