"""Stopping at random moments while clients ask: what came before the stop is answered, and nobody is refused too early."""

from __future__ import annotations

import random
import socket
from typing import Any

import attrs
import pytest
import trio

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    for _ in range(scope["raw_path"].count(b"/") * 3):
        await trio.lowlevel.checkpoint()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2000")]})
    await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
    await trio.lowlevel.checkpoint()
    await send({"type": "http.response.body", "body": b"y" * 1000})


@attrs.define
class Load:
    """Clients that ask again and again, half of them on a new connection each time."""

    service: Any
    is_stopping: bool = False
    answered: int = 0
    refused: int = 0
    dropped: list[bytes] = attrs.field(factory=list[bytes])

    async def ask_again_and_again(self, per_connection: int) -> None:
        while not self.is_stopping:
            try:
                stream = await self.service.connect()
            except OSError:
                self.refused += not self.is_stopping
                return
            async with stream:
                for _ in range(per_connection):
                    if not await self.ask(stream):
                        break

    async def ask(self, stream: trio.SocketStream) -> bool:
        answer, was_in_time = b"", False
        try:
            await stream.send_all(GET)
            was_in_time = not self.is_stopping
            while not answer.endswith(b"y" * 1000):
                piece = await stream.receive_some()
                if not piece:
                    break
                answer += piece
        except trio.BrokenResourceError:
            pass
        is_whole = answer.endswith(b"y" * 1000) and answer.startswith(b"HTTP/1.1 200 ")
        self.answered += is_whole
        if was_in_time and not is_whole:
            self.dropped.append(answer)
        return is_whole and b"connection: close" not in answer


@pytest.mark.parametrize("seed", range(8))
async def test_no_request_that_came_before_the_stop_is_dropped(web: Any, seed: int) -> None:
    chance = random.Random(seed)
    asked = chance.randrange(5, 120)
    async with web(app, concurrency=1000) as service:
        load = Load(service)
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(load.ask_again_and_again, 1 if number % 2 else 1000)
            while load.answered < asked:
                await trio.lowlevel.checkpoint()
            for _ in range(chance.randrange(8)):
                await trio.lowlevel.checkpoint()
            load.is_stopping = True
            await service.stop(drain=2.0)

    assert load.dropped == []
    assert load.refused == 0
    assert load.answered >= asked


async def test_who_waits_to_be_accepted_at_the_stop_is_served(web: Any) -> None:
    """More of them than are accepted in a turn; with all slots free, since those who wait for one are sent away."""
    async with web(app, concurrency=1000, backlog=256) as service:
        clients = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(200)]  # nobody runs meanwhile
        for client in clients:
            client.sendall(GET)
        await service.stop(drain=2.0)
        answers = [b"".join(iter(lambda each=client: each.recv(4096), b"")) for client in clients]  # type: ignore[misc]
        for client in clients:
            client.close()

    assert service.at_return == 200
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 200
