"""What the tests of this plugin share: a server on loopback that answers what its script says."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import h11
import httpx
import trio
import trio.lowlevel
from kernel_http import HttpConfig, HttpDriver

from kernel import Event
from kernel.testing import fake_context

Answer = Callable[[h11.Request, bytes], Awaitable[tuple[int, dict[str, str], bytes]]]


@attrs.define(eq=False)
class Server:
    """Answers requests, and counts connections."""

    answer: Answer
    port: int = 0
    requests: list[h11.Request] = attrs.field(factory=list)
    open: int = 0
    opened: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.open += 1
        self.opened += 1
        try:
            await self._converse(stream)
        except (trio.BrokenResourceError, h11.ProtocolError):
            pass
        finally:
            self.open -= 1

    async def _converse(self, stream: trio.abc.Stream) -> None:
        while (asked := await read(stream, http := h11.Connection(h11.SERVER))) is not None:
            self.requests.append(asked[0])
            status, headers, body = await self.answer(*asked)
            head = [*headers.items(), ("content-length", str(len(body)))]
            data = http.send(h11.Response(status_code=status, headers=head))
            data += http.send(h11.Data(data=body)) + http.send(h11.EndOfMessage())
            await stream.send_all(data)


async def read(stream: trio.abc.Stream, http: h11.Connection) -> tuple[h11.Request, bytes] | None:
    request, body = None, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await stream.receive_some()
            if not data:
                return None
            http.receive_data(data)
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            assert request is not None
            return request, body


@asynccontextmanager
async def open_server(answer: Answer, *, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Server]:
    server = Server(answer)
    listen: Any = trio.serve_tcp
    if tls is not None:
        listen = partial(trio.serve_ssl_over_tcp, ssl_context=tls)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(listen, server.serve, port, host="127.0.0.1"))
        stream = getattr(listeners[0], "transport_listener", listeners[0])
        server.port = stream.socket.getsockname()[1]
        yield server
        nursery.cancel_scope.cancel()


def driver(base_url: str, events: list[Event] | None = None, **config: Any) -> HttpDriver:
    config = {"backoff_initial": 0.001, **config}
    return HttpDriver(
        config=HttpConfig(base_url=base_url, **config), context=fake_context("driver/stock", events=events)
    )


def statuses(*script: int, **headers: str) -> Answer:
    """Answer with each of these, then with 200."""
    left = list(script)

    async def answer(request: h11.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        await trio.lowlevel.checkpoint()
        return (left.pop(0) if left else 200), {name.replace("_", "-"): text for name, text in headers.items()}, body

    return answer


async def echo(request: h11.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
    await trio.lowlevel.checkpoint()
    return 200, {}, request.target + body


async def closed(server: Server) -> None:
    with trio.fail_after(5):
        while server.open:  # noqa: ASYNC110  the other side closes
            await trio.sleep(0.005)


async def ask(client: httpx.AsyncClient) -> None:
    (await client.get("/x")).raise_for_status()
