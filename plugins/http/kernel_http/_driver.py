"""The driver `http`: a client for one service, for as long as the driver lives."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, final

import httpx
import trio
from typing_extensions import override

from kernel import Secret
from kernel.abc import Context, Driver
from kernel.errors import StartupError, UnavailableError

from ._config import HttpConfig, problems
from ._transport import RetryTransport


@final
class HttpDriver(Driver[httpx.AsyncClient]):
    """Gives workers an `httpx.AsyncClient` whose paths follow `base_url`.

    TLS is verified, always. Proxies, passwords and certificates that the environment names are not used.
    """

    Config: ClassVar[type[object]] = HttpConfig
    provides: ClassVar[type[object]] = httpx.AsyncClient

    def __init__(self, *, config: HttpConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        assert isinstance(config, HttpConfig)
        return problems(config)

    @override
    def open(self) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[httpx.AsyncClient]:
        inner = await self._inner()
        client = httpx.AsyncClient(
            base_url=self._config.base_url,
            headers={name: _revealed(value) for name, value in self._config.headers.items()},
            timeout=httpx.Timeout(self._config.timeout, connect=self._config.connect_timeout),
            transport=RetryTransport(inner, self._config, self._context),
            trust_env=False,
        )
        try:
            if self._config.probe:
                await self._probe(client)
            yield client
        finally:
            with trio.move_on_after(self._context.stop_timeout / 2, shield=True):
                await client.aclose()

    async def _probe(self, client: httpx.AsyncClient) -> None:
        answer = await client.get(self._config.probe)
        if answer.is_server_error:
            raise UnavailableError(f"{self._context.id}: {answer.url} answers {answer.status_code}")

    async def _inner(self) -> httpx.AsyncBaseTransport:
        if self._config.mock is not None:
            await trio.lowlevel.checkpoint()
            return httpx.MockTransport(self._config.mock)
        # Reads files, and takes some 20 ms; not abandoned when cancelled, since it ends by itself.
        context = await trio.to_thread.run_sync(self._tls)
        limits = httpx.Limits(
            max_connections=self._config.max_connections,
            max_keepalive_connections=self._config.max_connections,
            keepalive_expiry=self._config.keepalive_expiry,
        )
        return httpx.AsyncHTTPTransport(verify=context, limits=limits, trust_env=False)

    def _tls(self) -> ssl.SSLContext:
        config, path = self._config, self._context.path
        try:
            context = (
                ssl.create_default_context(cafile=path(config.ca))
                if config.ca
                else httpx.create_ssl_context(trust_env=False)
            )
            if config.certificate:
                context.load_cert_chain(path(config.certificate), path(config.key) if config.key else None)
        except (OSError, ssl.SSLError) as error:
            raise StartupError(f"{self._context.id}: `ca`, `certificate` or `key` cannot be used: {error}") from error
        return context


def _revealed(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value
