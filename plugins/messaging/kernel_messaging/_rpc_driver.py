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
from ._rpc import RpcClient, RpcClientConfig

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
        exchanges = [Exchange(name=self._config.exchange)] if self._config.declare else []
        await self._context.broker.declare(Topology(exchanges=exchanges))
        limiter = trio.CapacityLimiter(self._config.max_in_flight)
        calls = Calls(self._context.broker, self._config.exchange, limiter)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._serve, calls)
            try:
                yield RpcClient(calls, self._context.protocol, self._config.timeout)
            finally:
                calls.close()
                nursery.cancel_scope.cancel()

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
        address = f"{self._context.service}.{self._context.name}.{new_id()}"
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
                await reply.settle(Ack())
        raise UnavailableError(f'the subscription to "{address}" has ended')
