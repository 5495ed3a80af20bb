"""The pool: whatever is cancelled gives its place back."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from kernel_s3 import ObjectStore, S3Config, S3Driver

from kernel import Secret
from kernel.testing import fake_context

AT_ONCE = 3


@attrs.define(eq=False)
class Silence:
    """A server that never answers, and counts who asks for `counted`."""

    url: str = ""
    counted: int = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        try:
            async for data in stream:
                self.counted += b"/scans/counted " in data
        except trio.BrokenResourceError:
            pass


@asynccontextmanager
async def open_silence() -> AsyncGenerator[Silence]:
    silence = Silence()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, silence.serve, 0)
        silence.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield silence
        nursery.cancel_scope.cancel()


def driver(silence: Silence) -> S3Driver:
    config = S3Config(
        endpoint_url=silence.url,
        bucket="scans",
        check=False,
        addressing="path",
        access_key="test",
        secret_key=Secret("correct-horse"),
        max_connections=AT_ONCE,
    )
    return S3Driver(config=config, context=fake_context("driver/archive"))


@pytest.mark.slow
async def test_200_requests_that_are_cancelled_while_they_wait_or_connect_leave_the_pool_whole() -> None:
    chance = random.Random(1)

    async def cut(store: ObjectStore) -> None:
        for _ in range(50):
            with trio.move_on_after(chance.choice([0.0, 0.002, 0.004, 0.008, 0.016])):
                await store.get("held")

    async with open_silence() as silence, driver(silence).open() as store, trio.open_nursery() as nursery:
        async with trio.open_nursery() as cutting:
            for _ in range(4):
                cutting.start_soon(cut, store)

        for _ in range(AT_ONCE):
            nursery.start_soon(store.get, "counted")
        with trio.fail_after(10):
            while silence.counted < AT_ONCE:  # noqa: ASYNC110  they connect in their own time
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
