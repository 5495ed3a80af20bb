"""The dispatcher: counts, listens, and answers scrapes; it surrounds the service."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, final

import attrs
from typing_extensions import override

from kernel.abc import Context, Dispatcher, Endpoint, Intake, why_not_listening
from kernel.errors import StartupError

from ._config import PrometheusConfig, split_address

if TYPE_CHECKING:
    import trio

    from ._metrics import Metrics


@final
@attrs.define(eq=False)
class PrometheusDispatcher(Dispatcher):
    """Answers `/metrics`, from before the first start until after the last close."""

    Config: ClassVar[type[object]] = PrometheusConfig
    delivers: ClassVar[bool] = False
    surrounds: ClassVar[bool] = True

    config: PrometheusConfig
    context: Context
    _listeners: list[trio.SocketListener] = attrs.field(factory=list["trio.SocketListener"], init=False, repr=False)
    _metrics: Metrics | None = attrs.field(default=None, init=False)

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        if isinstance(config, PrometheusConfig):
            yield from config.problems()

    @classmethod
    @override
    def listens(cls, config: object) -> Iterable[Endpoint]:
        if isinstance(config, PrometheusConfig):
            host, port = split_address(config.bind)
            yield Endpoint(host=host, port=port)

    @classmethod
    @override
    def check_workers(cls, config: object, workers: Mapping[str, object]) -> Iterable[str]:
        yield from (f"takes no workers, and worker/{name} names it" for name in workers)

    @classmethod
    @override
    def preload(cls) -> None:
        importlib.import_module("._scrape", __package__)

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Count and listen.

        Raises:
            StartupError: if the address is in use, not allowed or not of this machine.

        Cancellation: Is a checkpoint.
        """
        from ._families import offer  # noqa: PLC0415  as above
        from ._metrics import Metrics  # noqa: PLC0415  as above

        host, port = split_address(self.config.bind)
        async with AsyncExitStack() as stack:
            self._metrics = Metrics(self.context, self.config)
            stack.enter_context(self._metrics.counting())
            stack.callback(offer(self._metrics))
            self._listeners = await self._listening(host, port)
            for listener in self._listeners:
                await stack.enter_async_context(listener)
            yield

    async def _listening(self, host: str, port: int) -> list[trio.SocketListener]:
        import trio  # noqa: PLC0415  `kernel check` imports this module, and runs nothing

        try:
            return await self.context.crew.open_tcp_listeners(self.context.id, port, host=host)
        except OSError as error:
            failure = error
        where = Endpoint(host=host, port=port)
        reason = await trio.to_thread.run_sync(why_not_listening, failure, where, abandon_on_cancel=True)
        raise StartupError(f'cannot listen at "{self.config.bind}": {reason}') from failure

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        from kernel import Listening  # noqa: PLC0415  as above

        from ._scrape import serve_scrapes  # noqa: PLC0415  as above

        if self._metrics is None:
            raise RuntimeError(f"{self.context.id} is not open")
        for listener in self._listeners:
            name = listener.socket.getsockname()
            host = f"[{name[0]}]" if ":" in name[0] else name[0]
            self.context.emit(Listening(component=self.context.id, address=f"http://{host}:{name[1]}"))
        task_status.started()
        await serve_scrapes(self._listeners, self._metrics, self.config)
