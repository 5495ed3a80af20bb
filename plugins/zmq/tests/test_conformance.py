"""The promises of `kernel.abc`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
import zmq
from kernel_json import JsonProtocol
from kernel_zmq import (
    ProxyConfig,
    ProxyDriver,
    PublishConfig,
    PublishDriver,
    ReplyConfig,
    ReplyDispatcher,
    RequestConfig,
    RequestDriver,
    SubscribeConfig,
    SubscribeDispatcher,
    ZmqClient,
    ZmqProxy,
    ZmqPublisher,
)
from kernel_zmq._socket import Socket

from kernel import Event, Listening
from kernel.abc import Dispatcher
from kernel.testing import Feed, check_dispatcher, check_driver, fake_context

from .raw import LOCAL, open_raw


@asynccontextmanager
async def replying() -> AsyncGenerator[tuple[Dispatcher, Feed]]:
    events: list[Event] = []
    context = fake_context("dispatcher/desk", events=events, protocol=JsonProtocol())
    dispatcher = ReplyDispatcher(config=ReplyConfig(bind=(LOCAL,)), context=context)

    async def feed(count: int) -> None:
        [address] = [event.address for event in events if isinstance(event, Listening)]
        async with open_raw(zmq.DEALER, connect=address) as peer:
            for _ in range(count):
                await peer.send([b"", b"1"])
            await trio.sleep_forever()

    yield dispatcher, feed


@asynccontextmanager
async def subscribing() -> AsyncGenerator[tuple[Dispatcher, Feed]]:
    async with open_raw(zmq.XPUB, bind=LOCAL) as publisher:
        context = fake_context("dispatcher/ear", protocol=JsonProtocol())
        address = publisher.raw.LAST_ENDPOINT.decode()
        subscribed = trio.Event()

        async def feed(count: int) -> None:
            if not subscribed.is_set():
                await publisher.recv()
                subscribed.set()
            for _ in range(count):
                await publisher.send([b"news", b"1"])

        yield SubscribeDispatcher(config=SubscribeConfig(connect=(address,)), context=context), feed


async def test_zmq_reply_keeps_the_promises_of_a_dispatcher() -> None:
    await check_dispatcher(replying, waiting=1, patience=0.05)


async def test_zmq_subscribe_keeps_the_promises_of_a_dispatcher() -> None:
    await check_dispatcher(subscribing, waiting=1, patience=0.05)


async def test_zmq_request_keeps_the_promises_of_a_driver() -> None:
    async with open_raw(zmq.REP, bind=LOCAL) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(answer, peer)
        config = RequestConfig(connect=(peer.raw.LAST_ENDPOINT.decode(),))

        async def use(client: ZmqClient) -> None:
            assert await client.call("double", 1) == 2

        await check_driver(
            lambda: RequestDriver(config=config, context=fake_context("driver/calls", protocol=JsonProtocol())),
            use=use,
        )
        nursery.cancel_scope.cancel()


async def answer(peer: Socket) -> None:
    while True:
        [body] = await peer.recv()
        await peer.send([b'{"result": %d}' % (int(body) * 2)])


async def test_zmq_publish_keeps_the_promises_of_a_driver() -> None:
    async def use(publisher: ZmqPublisher) -> None:
        await publisher.publish("news", 1)

    await check_driver(
        lambda: PublishDriver(
            config=PublishConfig(bind=(LOCAL,)), context=fake_context("driver/news", protocol=JsonProtocol())
        ),
        use=use,
    )


async def test_zmq_proxy_keeps_the_promises_of_a_driver() -> None:
    async def use(proxy: ZmqProxy) -> None:
        await trio.lowlevel.checkpoint()
        assert proxy.publishers != proxy.subscribers

    await check_driver(
        lambda: ProxyDriver(
            config=ProxyConfig(publishers=LOCAL, subscribers=LOCAL), context=fake_context("driver/proxy")
        ),
        use=use,
    )
