"""The pool below the client, which gives back the place of every request that is cancelled. Needs httpcore, and is imported late therefore."""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Iterable
from typing import Any, Final, cast, final

import httpcore
import trio
from typing_extensions import override


@final
class Pool(httpcore.AsyncConnectionPool):
    """A pool of httpcore that keeps no connection which is neither idle nor had by a request.

    A request has a connection before that is opened, and before it is written to. If it is cancelled in one of the
    waits between these, httpcore takes the request away and keeps the connection: nobody will ever use it, and its
    place is lost.
    """

    @override
    def _assign_requests_to_connections(self) -> list[httpcore.AsyncConnectionInterface]:
        # It is called whenever a request has come or gone, and closes what it returns.
        wanted = {id(request.connection) for request in self._requests}
        lost = [one for one in self._connections if id(one) not in wanted and not (one.is_idle() or one.is_closed())]
        for one in lost:
            self._connections.remove(one)
        return [*lost, *super()._assign_requests_to_connections()]


@final
class Backend(httpcore.AsyncNetworkBackend):
    """Connects as httpcore does on trio, and closes what is cancelled in its TLS handshake, which httpcore leaves open."""

    def __init__(self) -> None:
        self._inner: Final = cast("httpcore.AsyncNetworkBackend", httpcore.TrioBackend())

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return Stream(await self._inner.connect_tcp(host, port, timeout, local_address, socket_options))


@final
class Stream(httpcore.AsyncNetworkStream):
    """A connection before TLS, or without."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner: Final = inner

    @override
    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._inner.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            with trio.CancelScope(shield=True):  # to close a socket waits for nothing
                await self._inner.aclose()
            raise

    @override
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._inner.read(max_bytes, timeout)

    @override
    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, timeout)

    @override
    async def aclose(self) -> None:
        await self._inner.aclose()

    @override
    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def session_class() -> type[object]:
    """Return the session of aiobotocore, on such a pool."""
    known: Any = importlib.import_module("aiobotocore.httpxsession").HttpxSession  # it has no types

    def make(session: Any) -> Any:  # noqa: ANN401  as above
        client = known._make_async_client(session)  # noqa: SLF001  where it makes one; the next, too, takes no pool
        below, limits = client._transport, session._limits  # noqa: SLF001
        below._pool = Pool(  # noqa: SLF001
            ssl_context=below._pool._ssl_context,  # noqa: SLF001
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=Backend(),
        )
        return client

    return type("Session", (known,), {"_make_async_client": make})
