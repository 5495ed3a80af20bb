"""The dispatcher: `open` holds listeners and connections, `accept` lets clients in, `host` runs an application.

Only the standard library, attrs and the kernel are imported here: `kernel check` imports this module, and must not pay
for trio, ssl, h2 and wsproto, which the modules that do the work bring in when the service starts.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import chain
from typing import TYPE_CHECKING, ClassVar, TypeVar, final

import attrs
from typing_extensions import override

from kernel.abc import Candidate, Context, Dispatcher, Endpoint, Intake, Renews

from ._application import brings_router, shape_problem
from ._config import CertificateConfig, TlsConfig, WebConfig, WebOptions

if TYPE_CHECKING:
    import trio

    from .server.renewal import Certificates
    from .server.server import Server
    from .wire.listen import Listener


Files = TypeVar("Files", TlsConfig, CertificateConfig)


@final
@attrs.define(eq=False)
class WebDispatcher(Dispatcher, Renews):
    """Serves the ASGI applications of its workers over HTTP/1.1, HTTP/2 and websockets.

    A request waits for one of `concurrency` slots before its application sees it; a websocket holds one while it is
    open. A stop closes the listeners and idle connections at once, closes websockets with code 1001, answers 503 to
    requests that wait for a slot, and lets those that run finish until the kernel cuts them.
    """

    Config: ClassVar[type[object]] = WebConfig
    WorkerOptions: ClassVar[type[object] | None] = WebOptions
    delivers: ClassVar[bool] = False
    default_concurrency: ClassVar[int] = 1000

    config: WebConfig = attrs.field(repr=False)
    context: Context
    _listeners: Sequence[Listener] = attrs.field(default=(), init=False)
    _server: Server | None = attrs.field(default=None, init=False)

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        if isinstance(config, WebConfig):
            yield from config.problems()

    @classmethod
    @override
    def files(cls, config: object) -> Iterable[str]:
        tls = config.tls if isinstance(config, WebConfig) else None
        return () if tls is None else [*_paths(tls), tls.ca, *chain.from_iterable(map(_paths, tls.names.values()))]

    @classmethod
    @override
    def appends(cls, config: object) -> Iterable[str]:
        return (config.access_log_file,) if isinstance(config, WebConfig) and config.access_log != "off" else ()

    @classmethod
    @override
    def listens(cls, config: object) -> Iterable[Endpoint]:
        if isinstance(config, WebConfig) and not config.reuse_port:
            for address in config.addresses:
                yield Endpoint(host=address.host, port=address.port, path=address.path)

    @classmethod
    @override
    def check_worker(cls, worker: object, options: object) -> Iterable[str]:
        problem = shape_problem(worker)
        if problem:
            yield problem
        if isinstance(options, WebOptions) and options.asyncio:
            from .asgi.bridge import MISSING, find_bridge  # noqa: PLC0415  lazy, see above

            if find_bridge() is None:
                yield MISSING

    @classmethod
    @override
    def check_workers(cls, config: object, workers: Mapping[str, Candidate]) -> Iterable[str]:
        owners: dict[str, str] = {}
        for name, candidate in workers.items():
            prefix = candidate.options.prefix if isinstance(candidate.options, WebOptions) else "/"
            owner = owners.setdefault(prefix.rstrip("/"), name)
            both = (workers[owner].worker, candidate.worker)
            if owner != name and not all(map(brings_router, both)):
                yield (
                    f'worker/{owner} and worker/{name} both have the prefix "{prefix}", '
                    "which only those may that bring a router"
                )

    @classmethod
    @override
    def host(cls, instance: object, options: object) -> AbstractAsyncContextManager[object]:
        """Run the lifespan of the worker's application, or of its router, and yield a `Hosted`.

        Raises:
            StartupError: if the worker has neither, its startup failed, or it needs a bridge that is not installed.
        """
        from .asgi.lifespan import hosting  # noqa: PLC0415  lazy, see above

        return hosting(instance, asyncio=isinstance(options, WebOptions) and options.asyncio)

    @classmethod
    @override
    def preload(cls) -> None:
        importlib.import_module(".server.server", __package__)

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Bind every address or none, and hold the connections.

        Raises:
            StartupError: if an address is in use, not allowed or not of this machine, or a TLS file is no good.

        Cancellation: Is a checkpoint. The exit closes what is still open after half of `stop_timeout`.
        """
        from .server.server import serving  # noqa: PLC0415  lazy, see above
        from .wire.listen import binding  # noqa: PLC0415  as above

        certificates = await self._certificates(self.config.tls) if self.config.tls else None
        async with (
            binding(self.config, self.context) as self._listeners,
            serving(self.config, self.context, certificates) as self._server,
        ):
            yield

    async def _certificates(self, tls: TlsConfig) -> Certificates:
        from .server.renewal import Certificates  # noqa: PLC0415  as above

        certificates = Certificates(self._files_of(tls), self.config.h2, self.context.log)
        await certificates.open()
        return certificates

    @override
    async def renew(self) -> Sequence[str]:
        """Read all certificates again."""
        certificates = self._server and self._server.certificates
        return await certificates.renew() if certificates else ()  # noqa: ASYNC910  there is nothing to wait for

    def _files_of(self, tls: TlsConfig) -> TlsConfig:
        path = self.context.path

        def located(files: Files) -> Files:
            return attrs.evolve(files, cert=str(path(files.cert)), key=str(path(files.key)))

        names = {name: located(files) for name, files in tls.names.items()}
        return attrs.evolve(located(tls), ca=tls.ca and str(path(tls.ca)), names=names)

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        """Let clients in until cancelled.

        Raises:
            RuntimeError: if the dispatcher is not open.
        """
        if self._server is None:
            raise RuntimeError(f"{self.context.id} is not open")
        await self._server.accept(self._listeners, intake, task_status)


def _paths(files: TlsConfig | CertificateConfig) -> tuple[str, str]:
    return files.cert, files.key
