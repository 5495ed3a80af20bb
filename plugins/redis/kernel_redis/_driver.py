"""The driver `redis`: a client for as long as it lives."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, Final, cast, final

import coredis
import trio
from coredis.connection import TCPConnection, TCPLocation, UnixDomainSocketConnection, UnixDomainSocketLocation
from coredis.exceptions import AuthenticationError, RedisError, ResponseError
from coredis.retry import NoRetryPolicy
from typing_extensions import override

from kernel.abc import Context, Driver
from kernel.errors import StartupError, UnavailableError

from ._client import RedisClient
from ._config import RedisConfig, address, problems, split
from ._pool import Pool, no_news

_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})
"""What OpenSSL says of an answer that is none of TLS: up to 3.1, and since 3.2."""


@final
class RedisDriver(Driver["coredis.Redis[Any]"]):
    """Gives workers a `coredis.Redis`, whose pool is open."""

    Config: ClassVar[type[object]] = RedisConfig
    provides: ClassVar[type[object]] = RedisClient

    def __init__(self, *, config: RedisConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def reads(cls, config: object) -> Iterable[str]:
        assert isinstance(config, RedisConfig)
        return (config.ca, config.certificate, config.key)

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        assert isinstance(config, RedisConfig)
        return problems(config)

    @override
    def open(self) -> AbstractAsyncContextManager[coredis.Redis[Any]]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[coredis.Redis[Any]]:
        # Reads files; not abandoned when cancelled, since it ends by itself.
        options = await trio.to_thread.run_sync(self._options)
        pool = Pool(owner=self._context.id, config=self._config, **options)
        client = _client(pool)
        try:
            with no_news():
                async with client, trio.open_nursery() as nursery:
                    await self._greet(client)
                    nursery.start_soon(self._watch, client, pool)
                    self._context.report_usage(pool.usage)
                    yield client
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _alone(group) from None

    async def _greet(self, client: coredis.Redis[Any]) -> None:
        limit = self._config.connect_timeout + self._config.check_interval
        try:
            with trio.fail_after(limit):
                await client.ping()
        except AuthenticationError as error:
            why = "it asks for a password: write `password`" if "HELLO must be" in str(error) else str(error)
            raise StartupError(f"{self._context.id}: the server does not let us in: {why}") from error
        except trio.TooSlowError as error:
            raise UnavailableError(f"{self._context.id}: the server does not answer within {limit:g} s") from error
        except (RedisError, OSError, ssl.SSLError, TimeoutError) as error:
            fault = next((one for one in _behind(error) if isinstance(one, ssl.SSLCertVerificationError)), None)
            if fault is not None:
                raise StartupError(f"{self._context.id}: {fault.verify_message}: {fault}") from error
            if isinstance(error, ResponseError) and "DB index" in str(error):
                raise StartupError(
                    f"{self._context.id}: the server has no such database as `dsn` names: {error}"
                ) from error
            raise UnavailableError(f"{self._context.id}: {self._reason(error)}") from error

    async def _watch(self, client: coredis.Redis[Any], pool: Pool) -> None:
        """Tell when the server does not answer, and when it does again; close what is idle."""
        was_well = True
        while True:
            await trio.sleep(self._config.check_interval)
            pool.close_idle()
            trouble = await self._look(client)
            if trouble and pool.is_exhausted:
                continue  # There was none left to ask over, which says nothing of the server.
            if trouble and was_well:
                self._context.report_degraded(trouble)
            elif not trouble and not was_well:
                self._context.report_ready()
            was_well = not trouble

    async def _look(self, client: coredis.Redis[Any]) -> str:
        """Return why the server does not answer; empty if it does."""
        try:
            with trio.fail_after(self._config.check_interval):
                await client.ping()
        except (RedisError, OSError, TimeoutError, trio.TooSlowError, UnavailableError) as error:
            return self._reason(error)  # noqa: ASYNC910  it was waited for
        return ""

    def _reason(self, error: Exception) -> str:
        """Return what has gone wrong: of a time that is over, and of TLS, coredis and ssl say nothing that helps."""
        if isinstance(error, trio.TooSlowError):
            return f"the server does not answer within check_interval = {self._config.check_interval:g} s"
        behind = list(_behind(error))
        if any(isinstance(one, ssl.SSLError) and one.reason in _NO_TLS for one in behind):
            return "the server does not speak TLS, and `dsn` begins with rediss://"
        if any(isinstance(one, ssl.SSLWantReadError) for one in behind):
            limit = f"connect_timeout = {self._config.connect_timeout:g} s"
            return f"the server does not speak TLS, as rediss:// asks for, or not within {limit}"
        return _reason(error)

    def _options(self) -> dict[str, Any]:
        config = self._config
        options = _place(address(config.dsn))
        if config.username:
            options["username"] = config.username
        if config.password is not None:
            options["password"] = config.password.reveal()
        if split(config.dsn).scheme == "rediss":
            options["ssl_context"] = self._tls()
        return options | {"decode_responses": config.decode_responses, "client_name": self._context.service}

    def _tls(self) -> ssl.SSLContext:
        config, path = self._config, self._context.path
        try:
            context = ssl.create_default_context(cafile=path(config.ca) if config.ca else None)
            if config.certificate:
                context.load_cert_chain(path(config.certificate), path(config.key) if config.key else None)
        except (OSError, ssl.SSLError) as error:
            raise StartupError(f"{self._context.id}: `ca`, `certificate` or `key` cannot be used: {error}") from error
        return context


def _place(found: dict[str, Any]) -> dict[str, Any]:
    """Return an address as a pool takes it."""
    path, host, port = (found.pop(name, None) for name in ("unix_socket_path", "host", "port"))
    if path is not None:
        return found | {"location": UnixDomainSocketLocation(path), "connection_class": UnixDomainSocketConnection}
    return found | {"location": TCPLocation(host, port), "connection_class": TCPConnection}


def _client(pool: Pool) -> coredis.Redis[Any]:
    # coredis would send a command again whose answer was lost, and count twice.
    return RedisClient(pool, retry_policy=NoRetryPolicy())


def _reason(error: BaseException) -> str:
    """Return what an error says, with what is behind it, if that says something else."""
    silent = (BaseExceptionGroup, trio.Cancelled)
    said = [text for one in _behind(error) if (text := str(one)) and not isinstance(one, silent)]
    return ": ".join(dict.fromkeys([*said[:1], *said[-1:]])) or type(error).__name__


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """Return an error, and what caused it, as far as that can be followed."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
                yield from _behind(inner)
            return
        error = error.__cause__ or error.__context__


def _alone(error: BaseException) -> BaseException:
    """Return what is alone in groups: the nurseries of coredis, and ours, are nobody's business."""
    while isinstance(error, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", error).exceptions
        if len(inner) != 1:
            break
        error = inner[0]
    return error  # pyright: ignore[reportUnknownVariableType]  of a group, when it is one
