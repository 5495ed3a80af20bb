"""The driver `s3`: a client of aiobotocore on trio, for as long as it lives."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, ClassVar, Final, final

import trio
from typing_extensions import override

from kernel import Secret
from kernel.abc import Context, Driver
from kernel.errors import StartupError

from ._config import S3Config, problems
from ._errors import ObjectMissingError, S3Error
from ._health import Health
from ._store import ObjectStore


@final
class S3Driver(Driver[ObjectStore]):
    """Gives workers an `ObjectStore`."""

    Config: ClassVar[type[object]] = S3Config
    provides: ClassVar[type[object]] = ObjectStore

    def __init__(self, *, config: S3Config, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def reads(cls, config: object) -> Iterable[str]:
        assert isinstance(config, S3Config)
        return (config.ca,)

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        assert isinstance(config, S3Config)
        return problems(config)

    @classmethod
    @override
    def preload(cls) -> None:
        _library("session")
        with warnings.catch_warnings():
            # It says, once, that it prefers a fork of httpx; both do the same (see the decision on stores).
            warnings.simplefilter("ignore", DeprecationWarning)
            _library("httpxsession").HttpxSession()

    @override
    def open(self) -> AbstractAsyncContextManager[ObjectStore]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[ObjectStore]:
        self.preload()
        make = await self._maker()
        async with make() as client:
            store = ObjectStore(client, self._config, Health(self._context))
            if self._config.bucket and self._config.check:
                await self._greet(store)
            self._context.report_usage(store.usage)
            yield store

    async def _greet(self, store: ObjectStore) -> None:
        try:
            await store.probe()
        except ObjectMissingError as error:
            raise StartupError(f'{self._context.id}: there is no bucket "{self._config.bucket}"') from error
        except S3Error as error:
            raise StartupError(f"{self._context.id}: the service does not let us in: {error}") from error

    async def _maker(self) -> Any:  # noqa: ANN401  aiobotocore's
        """Return what makes a client; what it reads for the first time it reads in a thread."""
        config = self._config
        settings = _library("config").AioConfig(
            http_session_cls=_session_class(),
            connect_timeout=config.connect_timeout,
            connector_args={"pool_timeout": config.connect_timeout},
            read_timeout=config.read_timeout,
            max_pool_connections=config.max_connections,
            retries={"mode": "standard", "total_max_attempts": config.attempts},
            s3={"addressing_style": config.addressing},
            proxies={},  # none that the environment names, as in every driver
            user_agent_extra=self._context.service,
        )
        session = _library("session").get_session()
        session.register_component("data_loader", _descriptions())
        make = partial(session.create_client, "s3", config=settings, **self._account())
        # Not abandoned when cancelled, since it ends by itself.
        await trio.to_thread.run_sync(_read_descriptions)
        return make

    def _account(self) -> dict[str, object]:
        config = self._config
        return {
            "region_name": config.region,
            "endpoint_url": config.endpoint_url or None,
            "aws_access_key_id": _revealed(config.access_key) or None,
            "aws_secret_access_key": _revealed(config.secret_key) or None,
            "aws_session_token": _revealed(config.session_token) or None,
            "verify": str(self._context.path(config.ca)) if config.ca else True,
        }


def _session_class() -> type[object]:
    from ._session import session_class  # noqa: PLC0415  heavy: `kernel check` needs none of it

    return session_class()


def _library(part: str) -> Any:  # noqa: ANN401  it has no types
    """Return a part of aiobotocore, which is heavy, and of which `kernel check` needs nothing."""
    return importlib.import_module(f"aiobotocore.{part}")


@functools.cache
def _descriptions() -> Any:  # noqa: ANN401  botocore's
    """Return what keeps the descriptions of the service once they have been read."""
    return importlib.import_module("botocore.loaders").create_loader()


@functools.cache
def _read_descriptions() -> None:
    """Read them: it takes the better part of a second, and is done once in a process."""
    loader = _descriptions()
    for name in ("endpoints", "partitions", "_retry", "sdk-default-configuration"):
        loader.load_data(name)
    for kind in ("service-2", "paginators-1", "endpoint-rule-set-1"):
        loader.load_service_model("s3", kind)


def _revealed(value: str | Secret | None) -> str:
    return value.reveal() if isinstance(value, Secret) else value or ""
