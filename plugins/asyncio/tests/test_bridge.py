"""An application of asyncio behind the dispatcher `web`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from kernel import Listening
from kernel.testing import OpenKernel


async def loop_of(request: Request) -> Response:
    await asyncio.sleep(0.01)
    body = await request.body()
    return PlainTextResponse(f"{type(asyncio.get_running_loop()).__name__} {request.state.opened} {body.decode()}")


async def stream(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            await asyncio.sleep(0)
            yield b"%d" % number

    return StreamingResponse(parts())


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[dict[str, Any]]:
    await asyncio.sleep(0)
    yield {"opened": "in asyncio"}
    await asyncio.sleep(0)


app = Starlette(routes=[Route("/loop", loop_of, methods=["POST"]), Route("/stream", stream)], lifespan=lifespan)
MANIFEST = {
    "kernel": {"name": "test"},
    "dispatchers": {"http": {"plugin": "web", "bind": "127.0.0.1:0"}},
    "workers": {"api": {"use": f"{__name__}:app", "dispatcher": "http", "options": {"asyncio": True}}},
}


async def test_an_application_runs_in_asyncio_behind_the_dispatcher_web(open_kernel: OpenKernel) -> None:
    async with open_kernel(MANIFEST) as service:
        address = (await service.wait_event(Listening)).address
        async with (
            httpx.AsyncClient(trust_env=False, base_url=address) as client,
            trio.open_nursery() as nursery,
        ):

            async def ask(number: int) -> None:
                answer = await client.post("/loop", content=str(number))
                assert answer.text == f"TrioEventLoop in asyncio {number}"

            for number in range(5):
                nursery.start_soon(ask, number)
            assert (await client.get("/stream")).text == "012"
