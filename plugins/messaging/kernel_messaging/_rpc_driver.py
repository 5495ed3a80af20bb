"""The driver `rpc_client`: keeps the queue of answers, through breaks of the connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, final

import trio
from typing_extensions import override

from kernel import Ack, new_id
from kernel.abc import Binding, Broker, Capability, Context, Driver, Exchange, Queue, Subscription, Topology
from kernel.errors import SendError, UnavailableError

from ._calls import Calls
from ._cancellation import Teller
from ._rpc import RpcClient, RpcClientConfig

_DONE: Final = Ack()
_RECONNECT_WAIT: Final = 1.0
"""Seconds between a break and the next try; a broker that is known to be gone is restarted by its supervisor."""


@final
class RpcClientDriver(Driver[RpcClient]):
    """Gives workers an `RpcClient`.

    When the subscription to the answers breaks, the calls under way fail, the driver is degraded, and it subscribes
    to a new queue until that succeeds: what was meant for the old one cannot be mistaken for an answer.
    """

    Config: ClassVar[type[object]] = RpcClientConfig
    needs: ClassVar[type[object] | None] = Broker
    speaks: ClassVar[bool] = True
    sends: ClassVar[bool] = True
    intercepts: ClassVar[bool] = True
    provides: ClassVar[type[object]] = RpcClient

    def __init__(self, *, config: RpcClientConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def requires(cls, config: object) -> frozenset[Capability]:
        return frozenset({Capability.REQUEST_REPLY})

    @override
    def open(self) -> AbstractAsyncContextManager[RpcClient]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[RpcClient]:
        config, broker = self._config, self._context.broker
        names = dict.fromkeys(name for name in (config.exchange, config.cancellations) if name and config.declare)
        await broker.declare(Topology(exchanges=[Exchange(name=name) for name in names]))
        teller = Teller(broker, config.cancellations) if config.cancellations else None
        calls = Calls(broker, config.exchange, trio.CapacityLimiter(config.max_in_flight), teller)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._serve, calls)
            if teller is not None:
                nursery.start_soon(teller.run)
            try:
                yield RpcClient(calls, self._context.protocol, config.timeout, config.exchange, self._context)
            finally:
                calls.close()
                await _close(nursery, teller)  # noqa: ASYNC102  bounded by itself, and by the deadline of the close

    async def _serve(self, calls: Calls, *, task_status: trio.TaskStatus[None]) -> None:
        starting: list[trio.TaskStatus[None]] = [task_status]
        while True:
            try:
                await self._receive(calls, starting)
            except (UnavailableError, SendError) as error:
                calls.disconnect(error)
                if not starting:
                    self._context.report_degraded(f"no answers come in: {error}")
            await trio.sleep(_RECONNECT_WAIT)

    async def _receive(self, calls: Calls, starting: list[trio.TaskStatus[None]]) -> None:
        # Where answers are bound by it, a first word that is the service's own would bring them to `service.#` as well.
        address = f"answers.{self._context.service}.{self._context.name}.{new_id()}"
        queue = Queue(name=address, durable=False, exclusive=True)
        binding = Binding(queue=address, exchange=self._config.exchange, pattern=address)
        bindings = [binding] if self._config.bind_replies else []
        await self._context.broker.declare(Topology(queues=[queue], bindings=bindings))
        subscription = Subscription(queue=address, prefetch=self._config.max_in_flight)
        async with self._context.broker.subscribe(subscription) as replies:
            calls.connect(address)
            if starting:
                starting.pop().started()
            else:
                self._context.report_ready()
            async for reply in replies:
                calls.accept(reply.envelope)
                if not reply.settle_nowait(_DONE):
                    await reply.settle(_DONE)
        raise UnavailableError(f'the subscription to "{address}" has ended')


async def _close(nursery: trio.Nursery, teller: Teller | None) -> None:  # noqa: ASYNC910  there may be nothing to wait for
    """End the tasks of the driver; those who cancelled just before have their callees told."""
    try:
        if teller is not None:
            await teller.finish()
    finally:
        nursery.cancel_scope.cancel()
