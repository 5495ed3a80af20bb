"""The driver `http`: a client for one service, for as long as the driver lives."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import ClassVar, Final, final

import httpx
import trio
from typing_extensions import override

from kernel.abc import Context, Driver
from kernel.errors import StartupError, UnavailableError

from ._config import HttpConfig, problems
from ._pool import make_transport
from ._transport import RetryTransport


@final
class HttpDriver(Driver[httpx.AsyncClient]):
    """Gives workers an `httpx.AsyncClient` whose paths follow `base_url`.

    What the table gives for the service, which is its headers and its certificate, goes to the origin of `base_url` only.
    TLS is verified, always. Proxies, passwords and certificates that the environment names are not used.
    """

    Config: ClassVar[type[object]] = HttpConfig
    provides: ClassVar[type[object]] = httpx.AsyncClient

    def __init__(self, *, config: HttpConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def reads(cls, config: object) -> Iterable[str]:
        assert isinstance(config, HttpConfig)
        return (config.ca, config.certificate, config.key)

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
        inner = await self._inner(with_certificate=True)
        # Our certificate, too, is for the service alone.
        elsewhere = await self._inner(with_certificate=False) if self._config.certificate else inner
        transport = RetryTransport(inner, elsewhere, self._config, self._context)
        client = httpx.AsyncClient(
            base_url=self._config.base_url,
            timeout=httpx.Timeout(self._config.timeout, connect=self._config.connect_timeout),
            transport=transport,
            trust_env=False,
        )
        transport.replace_defaults(client.headers)
        try:
            if self._config.probe:
                await self._probe(client)
            self._context.report_usage(transport.usage)
            yield client
        finally:
            with trio.move_on_after(self._context.stop_timeout / 2, shield=True):
                await client.aclose()

    async def _probe(self, client: httpx.AsyncClient) -> None:
        answer = await client.get(self._config.probe)
        if answer.is_server_error:
            raise UnavailableError(f"{self._context.id}: {answer.url} answers {answer.status_code}")

    async def _inner(self, *, with_certificate: bool) -> httpx.AsyncBaseTransport:
        if self._config.mock is not None:
            await trio.lowlevel.checkpoint()
            return httpx.MockTransport(self._config.mock)
        # Reads files, and takes some 20 ms; not abandoned when cancelled, since it ends by itself.
        context = await trio.to_thread.run_sync(partial(self._tls, with_certificate=with_certificate))
        limits = httpx.Limits(
            max_connections=self._config.max_connections,
            max_keepalive_connections=self._config.max_connections,
            keepalive_expiry=self._config.keepalive_expiry,
        )
        return make_transport(context, limits)

    def _tls(self, *, with_certificate: bool) -> ssl.SSLContext:
        config, path = self._config, self._context.path
        try:
            context = (
                ssl.create_default_context(cafile=path(config.ca))
                if config.ca
                else httpx.create_ssl_context(trust_env=False)
            )
            if config.certificate and with_certificate:
                context.load_cert_chain(path(config.certificate), path(config.key) if config.key else None)
        except (OSError, ssl.SSLError) as error:
            raise StartupError(f"{self._context.id}: `ca`, `certificate` or `key` cannot be used: {error}") from error
        return context
