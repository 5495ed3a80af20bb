"""A service of two processes, and clients of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from . import _service
from ._service import Service, launched

CLEAN, FAILED, INVALID, CUT = 0, 1, 2, 3
PATIENCE = 60.0
"""Seconds after which a test has failed: several processes start on a machine that may be busy."""
TWO = ("--processes", "2")
RUN = "async def run() -> None:\n    say(f'at {os.getpid()}')\n    await trio.sleep_forever()\n"
WEB = """
[dispatchers.web]
plugin = "web"
bind = "127.0.0.1:0"
stop_timeout = 0.15
[workers.site]
use = "workers:Site"
dispatcher = "web"
stop_timeout = 0.05
"""
SITE = """
class Site:
    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body = str(os.getpid()).encode()
        head = [(b"content-length", str(len(body)).encode())]
        await trio.sleep(0.002)
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_service, "PATIENCE", PATIENCE)


def pids(service: Service) -> list[int]:
    """The processes that have become ready, in order."""
    return [int(pid) for pid in re.findall(r"process/\d: ready pid=(\d+)", service.err)]


def pid_of(service: Service, number: int) -> int:
    """The process with a number, which need not have become ready in that order; the last one that has."""
    return int(re.findall(rf"process/{number}: ready pid=(\d+)", service.err)[-1])


async def wait_ready(service: Service, count: int) -> list[int]:
    """Wait until so many processes have become ready, one after the other; return them."""
    with trio.move_on_after(PATIENCE):
        while len(pids(service)) < count:  # noqa: ASYNC110  what it writes is read meanwhile
            await trio.sleep(0.01)
    assert len(pids(service)) >= count, service.err
    return pids(service)


@asynccontextmanager
async def pair(directory: Path, manifest: str, code: str, *options: str) -> AsyncIterator[Service]:
    """A service of two processes, ready; none of them is there afterwards. Coverage sees them: no stop is timed here."""
    async with launched(directory, manifest, code, *TWO, *options, is_measured=True) as service:
        await service.wait_said("e2e is ready after", where="out")
        yield service
        if service.process.returncode is None:
            await service.stop()  # killed, it could not save what coverage has seen
    await wait_gone(pids(service))


async def wait_gone(processes: list[int]) -> None:
    with trio.fail_after(PATIENCE):
        while any(map(runs, processes)):  # noqa: ASYNC110  they are no children of this one
            await trio.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def port_of(service: Service) -> int:
    return int(service.err.partition("http://127.0.0.1:")[2].split()[0])


# --- ports ----------------------------------------------------------------------------------------------------------


async def answers(port: int) -> bool:
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            with trio.fail_after(PATIENCE):
                return b"".join([piece async for piece in stream]).startswith(b"HTTP/1.1 200")
    except (OSError, trio.BrokenResourceError):  # the second one has waited in the queue of what was closed
        return False


async def until_refused(port: int) -> None:
    with trio.fail_after(PATIENCE):
        while await answers(port):  # noqa: ASYNC110  it happens in other processes
            await trio.sleep(0.01)


# --- clients --------------------------------------------------------------------------------------------------------


@attrs.define
class Load:
    """Clients that ask again and again: on a new connection each time, or on one that they keep."""

    port: int
    answers: dict[str, int] = attrs.field(factory=dict[str, int])
    lost: int = 0
    refused: int = 0
    is_over: bool = False

    async def ask_again_and_again(self, keep: bool) -> None:
        while not self.is_over:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", self.port)
            except OSError:
                self.refused += 1
                return
            async with stream:
                while await self._ask(stream) and keep and not self.is_over:
                    pass

    async def _ask(self, stream: trio.SocketStream) -> bool:
        answer = b""
        try:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            while not (match := re.search(rb"\r\n\r\n(\d+)$", answer)):
                piece = await stream.receive_some()
                if not piece:
                    break
                answer += piece
        except trio.BrokenResourceError:
            match = None
        if match is None:
            self.lost += 1
            return False
        pid = match.group(1).decode()
        self.answers[pid] = self.answers.get(pid, 0) + 1
        return b"connection: close" not in answer.lower()

    async def wait_answers(self, count: int) -> None:
        """Wait until so many more have been given."""
        wanted = sum(self.answers.values()) + count
        with trio.fail_after(PATIENCE):
            while sum(self.answers.values()) < wanted:  # noqa: ASYNC110  counted by others
                await trio.sleep(0.01)


@asynccontextmanager
async def load(port: int, clients: int = 12) -> AsyncIterator[Load]:
    one = Load(port)
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(one.ask_again_and_again, bool(number % 3))
        yield one
        one.is_over = True
