"""The driver `zmq_proxy`: a fixed address for publishers and subscribers that come and go."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import ClassVar, Final, cast, final

import attrs
import trio
import zmq
from typing_extensions import override

from kernel import Pace
from kernel.abc import Context, Driver, Endpoint

from ._config import ProxyConfig, not_shared, places, problems
from ._opening import last_endpoint, open_socket
from ._socket import Socket


@final
@attrs.define(eq=False, repr=False)
class ZmqProxy:
    """A proxy that runs."""

    publishers: str
    """Where publishers connect to."""
    subscribers: str
    """Where subscribers connect to."""
    forwarded: int = attrs.field(default=0, init=False)
    """Messages that went from publishers to subscribers."""

    async def forward(self, source: Socket, sink: Socket, *, counts: bool) -> None:
        """Send what comes from one side to the other, for ever.

        Cancellation: Is a checkpoint. A message that is on its way then may be lost.
        """
        pace = Pace()
        while True:
            await sink.send(await source.next(pace))
            self.forwarded += counts


@final
class ProxyDriver(Driver[ZmqProxy]):
    """Forwards what is published to those who are subscribed, and subscriptions to those who publish (XSUB and XPUB).

    A subscriber that is `send_high_water` behind does not get what is more.
    """

    Config: ClassVar[type[object]] = ProxyConfig
    provides: ClassVar[type[object]] = ZmqProxy

    def __init__(self, *, config: ProxyConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        return problems(cast("ProxyConfig", config))

    @classmethod
    @override
    def listens(cls, config: object) -> Iterable[Endpoint]:
        return places((cast("ProxyConfig", config).publishers, cast("ProxyConfig", config).subscribers))

    @classmethod
    @override
    def check_shared(cls, config: object) -> Iterable[str]:
        return not_shared((cast("ProxyConfig", config).publishers, cast("ProxyConfig", config).subscribers))

    @override
    def open(self) -> AbstractAsyncContextManager[ZmqProxy]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[ZmqProxy]:
        config, context = self._config, self._context
        async with (
            open_socket(zmq.XSUB, config, context, bind=(config.publishers,), connect=()) as publishers,
            open_socket(zmq.XPUB, config, context, bind=(config.subscribers,), connect=()) as subscribers,
            trio.open_nursery() as nursery,
        ):
            proxy = ZmqProxy(last_endpoint(publishers.raw), last_endpoint(subscribers.raw))
            nursery.start_soon(partial(proxy.forward, publishers, subscribers, counts=True))
            nursery.start_soon(partial(proxy.forward, subscribers, publishers, counts=False))
            yield proxy
            nursery.cancel_scope.cancel()
