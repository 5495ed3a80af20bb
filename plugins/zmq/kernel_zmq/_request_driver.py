"""The driver `zmq_request`: a DEALER that speaks as REQ does, without being locked by an answer that does not come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, cast, final

import trio
import zmq
from typing_extensions import override

from kernel.abc import Context, Driver, Endpoint

from ._config import RequestConfig, not_shared, places, problems
from ._monitor import CONNECTED, DISCONNECTED, Monitor, open_monitor
from ._opening import open_socket
from ._request import ZmqClient
from ._socket import Socket


@final
class RequestDriver(Driver[ZmqClient]):
    """Gives workers a `ZmqClient`.

    libzmq connects again by itself, and requests wait for that. When the only connection breaks, the calls under way
    fail, and the driver is degraded until there is one again.
    """

    Config: ClassVar[type[object]] = RequestConfig
    speaks: ClassVar[bool] = True
    sends: ClassVar[bool] = True
    intercepts: ClassVar[bool] = True
    provides: ClassVar[type[object]] = ZmqClient

    def __init__(self, *, config: RequestConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        return problems(cast("RequestConfig", config))

    @classmethod
    @override
    def listens(cls, config: object) -> Iterable[Endpoint]:
        return places(cast("RequestConfig", config).bind)

    @classmethod
    @override
    def check_shared(cls, config: object) -> Iterable[str]:
        return not_shared(cast("RequestConfig", config).bind)

    @override
    def open(self) -> AbstractAsyncContextManager[ZmqClient]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[ZmqClient]:
        config = self._config
        # A request for a peer that is not there would lie in a queue of libzmq, out of reach of its deadline.
        options = {zmq.IMMEDIATE: 1}
        async with (
            open_socket(
                zmq.DEALER, config, self._context, bind=config.bind, connect=config.connect, options=options
            ) as socket,
            trio.open_nursery() as nursery,
        ):
            client = ZmqClient(socket, self._context, config)
            nursery.start_soon(client.receive)
            nursery.start_soon(self._watch, client, socket)
            try:
                yield client
            finally:
                client.close()
            nursery.cancel_scope.cancel()

    async def _watch(self, client: ZmqClient, socket: Socket) -> None:
        with open_monitor(socket) as monitor:
            await self._hear(client, monitor)

    async def _hear(self, client: ZmqClient, monitor: Monitor) -> None:
        while True:
            change = await monitor.next()
            if change == CONNECTED:
                client.connected()
                self._context.report_ready()
                continue
            if change == DISCONNECTED and self._config.is_single:
                client.disconnected()
            reason = "a connection broke" if change == DISCONNECTED else "a server does not know our key"
            self._context.report_degraded(reason)
