"""The pool: whatever is cancelled gives its place back, and whoever finds none free is told so."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import h11
import httpx
import pytest
import trio
import trustme

from kernel import Event, StateChanged

from .conftest import closed, driver, echo, open_server

AT_ONCE = 3


@attrs.define(eq=False)
class Hall:
    """A server that answers `/held` and `/counted` only when all are let go, and counts the latter."""

    url: str = ""
    counted: int = 0
    released: trio.Event = attrs.field(factory=trio.Event)

    async def answer(self, request: h11.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        self.counted += request.target == b"/counted"
        if request.target in {b"/held", b"/counted"}:
            await self.released.wait()
        return await echo(request, body)


@asynccontextmanager
async def open_hall(tls: ssl.SSLContext | None = None) -> AsyncGenerator[Hall]:
    hall = Hall()
    async with open_server(hall.answer, tls=tls) as server:
        hall.url = f"https://localhost:{server.port}" if tls else server.url
        try:
            yield hall
        finally:
            hall.released.set()
        await closed(server)


async def hold(client: httpx.AsyncClient) -> None:
    await client.get("/held")


async def count(client: httpx.AsyncClient) -> None:
    await client.get("/counted")


async def stream(client: httpx.AsyncClient) -> None:
    async with client.stream("GET", "/streamed"):
        await trio.sleep_forever()


async def check_whole(hall: Hall, client: httpx.AsyncClient) -> None:
    """Check that as many requests can be under way at once as there may be connections."""
    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(count, client)
        with trio.fail_after(10):
            while hall.counted < AT_ONCE:  # noqa: ASYNC110  they connect in their own time
                await trio.sleep(0.005)
        hall.released.set()
    assert (await client.get("/whole")).text == "/whole"


@pytest.mark.slow
@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("ask", [hold, stream])
async def test_200_requests_that_are_cancelled_while_they_wait_or_connect_leave_the_pool_whole(
    ask: Callable[[httpx.AsyncClient], Awaitable[None]], encrypted: bool, tmp_path: Path
) -> None:
    chance = random.Random(1)
    authority, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("localhost").configure_cert(tls)
    ca = str(tmp_path / "ca.pem") if encrypted else ""

    async def cut(client: httpx.AsyncClient) -> None:
        for _ in range(50):
            with trio.move_on_after(chance.choice([0.0, 0.001, 0.003, 0.006, 0.01])):
                await ask(client)

    async with (
        open_hall(tls if encrypted else None) as hall,
        driver(hall.url, max_connections=AT_ONCE, ca=ca).open() as client,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(cut, client)

        await check_whole(hall, client)


async def test_an_exhausted_pool_says_so_and_nothing_of_the_service() -> None:
    events: list[Event] = []
    async with (
        open_hall() as hall,
        driver(hall.url, events, max_connections=1, timeout=0.05, attempts=1).open() as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(lambda: client.get("/counted", timeout=30))
        with trio.fail_after(5):
            while not hall.counted:  # noqa: ASYNC110  as above
                await trio.sleep(0.005)
        with pytest.raises(httpx.PoolTimeout) as raised:
            await client.get("/x")
        hall.released.set()

    said = "driver/stock: no connection became free within timeout = 0.05 s; all of max_connections = 1 are in use"
    assert said in str(raised.value)
    assert not [event for event in events if isinstance(event, StateChanged)]
