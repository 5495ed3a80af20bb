"""JSON-RPC by hand: wscat, a program of npm's that knows nothing but websockets, in front of both kinds of listener.

And as a server that our client calls: the test reads what wscat prints, and types the answers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

import attrs
import pytest
import trio

from kernel import Listening, answers
from kernel._manifest.registry import Registry, discover
from kernel.abc import Delivery
from kernel.errors import RemoteError, UnknownOutcomeError
from kernel.testing import open_kernel

pytestmark = pytest.mark.slow
WSCAT = Path(__file__).parent / "peers" / "wscat"


@pytest.fixture(scope="module")
def wscat(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, installed as its lock file says."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("wscat")
    shutil.copytree(WSCAT, folder, dirs_exist_ok=True)
    subprocess.run([npm, "ci", "--silent", "--ignore-scripts", "--prefer-offline"], cwd=folder, check=True)
    return str(folder / "node_modules" / ".bin" / "wscat")


class Desk:
    """What it calls."""

    @answers("add")
    async def add(self, a: int, b: int = 1) -> int:
        await trio.lowlevel.checkpoint()
        return a + b

    @answers("watch")
    async def watch(self, delivery: Delivery) -> str:
        await trio.lowlevel.checkpoint()
        line: Any = delivery
        line.line.notify("news", [1])
        return str(line.line.identity)


def admit(handshake: Any) -> str | None:
    """Know one token."""
    return "ada" if handshake.headers.get("authorization") == "Bearer sesame" else None


@asynccontextmanager
async def served(*, at_a_door: bool) -> AsyncGenerator[str]:
    table = {"plugin": "websocket", "protocol": "jsonrpc", "authenticate": f"{__name__}:admit"}
    manifest: dict[str, Any] = {
        "kernel": {"name": "ours"},
        "dispatchers": {"calls": {**table, "port": 0}},
        "workers": {"desk": {"use": "desk", "dispatcher": "calls"}},
    }
    if at_a_door:
        manifest["drivers"] = {"door": {"plugin": "websocket"}}
        manifest["dispatchers"] = {
            "calls": {**table, "driver": "door"},
            "web": {"plugin": "web", "bind": "127.0.0.1:0"},
        }
        manifest["workers"]["gate"] = {"use": "kernel_websocket:WebSocketApp", "dispatcher": "web"}
    plugins = (*discover().plugins, *Registry.of({"workers": {"desk": Desk}}).plugins)
    async with open_kernel(manifest, registry=Registry(plugins)) as service:
        yield (await service.wait_event(Listening)).address.replace("http:", "ws:")


async def said_by(program: str, url: str, *options: str, lines: int) -> list[str]:
    """Return what it prints, until it has printed so many lines or ends."""
    command = [program, "--no-color", "--connect", url, "--wait", "-1", *options]
    pipe = subprocess.PIPE  # it ends with its input
    process = await trio.lowlevel.open_process(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
    assert process.stdin is not None
    assert process.stdout is not None
    said = b""
    with trio.fail_after(20):
        async with process.stdin, process.stdout:
            try:
                while said.count(b"\n") < lines and (part := await process.stdout.receive_some()):
                    said += part
            finally:
                process.kill()
        await process.wait()
    return said.decode().splitlines()


@pytest.mark.parametrize("at_a_door", [False, True], ids=["port", "door"])
async def test_what_is_typed_is_answered_and_told(wscat: str, at_a_door: bool) -> None:
    calls = [
        {"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1},
        {"jsonrpc": "2.0", "method": "watch", "id": "2"},
    ]
    typed = [part for call in calls for part in ("--execute", json.dumps(call))]
    async with served(at_a_door=at_a_door) as url:
        said = await said_by(wscat, url, "--header", "Authorization: Bearer sesame", *typed, lines=3)

    told = [json.loads(line.removeprefix("< ")) for line in said]
    assert {"jsonrpc": "2.0", "result": 3, "id": 1} in told
    assert {"jsonrpc": "2.0", "result": "ada", "id": "2"} in told
    assert {"jsonrpc": "2.0", "method": "news", "params": [1]} in told


@pytest.mark.parametrize("at_a_door", [False, True], ids=["port", "door"])
async def test_who_is_refused_is_told_the_status(wscat: str, at_a_door: bool) -> None:
    async with served(at_a_door=at_a_door) as url:
        said = await said_by(wscat, url, lines=100)

    assert "Unexpected server response: 403" in " ".join(said)


@final
@attrs.frozen
class Hand:
    """Who sits in front of a wscat that listens."""

    process: trio.Process
    _read: bytearray = attrs.field(factory=bytearray, init=False)

    async def read(self) -> dict[str, Any]:
        """Return the next message that it prints."""
        assert self.process.stdout is not None
        while b"\n" not in self._read:
            part = await self.process.stdout.receive_some()
            assert part, "wscat has ended"
            self._read.extend(part)
        line, _, rest = bytes(self._read).partition(b"\n")
        self._read[:] = rest
        told: dict[str, Any] = json.loads(line.lstrip(b"> "))
        return told

    async def type(self, message: object) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps(message).encode() + b"\n")


@asynccontextmanager
async def listening(program: str, port: int) -> AsyncGenerator[Hand]:
    pipe = subprocess.PIPE
    process = await trio.lowlevel.open_process(
        [program, "--no-color", "--listen", str(port)], stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT
    )
    try:
        with trio.fail_after(30):
            yield Hand(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def calling(port: int) -> Any:
    driver = {"plugin": "websocket_client", "url": f"ws://127.0.0.1:{port}/", "protocol": "jsonrpc"}
    return open_kernel({"kernel": {"name": "ours"}, "drivers": {"rpc": driver}})


async def test_we_call_it_as_a_server_and_get_what_is_typed_in_any_order(wscat: str, port: int) -> None:
    got: dict[str, Any] = {}
    async with listening(wscat, port) as hand, calling(port) as service:
        rpc = service.resource("driver/rpc")

        async def ask(name: str) -> None:
            got[name] = await rpc.call("quote", {"sku": name})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "tea")
            first = await hand.read()
            nursery.start_soon(ask, "salt")
            second = await hand.read()
            await hand.type({"jsonrpc": "2.0", "result": 2, "id": second["id"]})
            await hand.type({"jsonrpc": "2.0", "result": 1, "id": first["id"]})

    assert got == {"tea": 1, "salt": 2}
    assert {**first, "id": 0} == {"jsonrpc": "2.0", "method": "quote", "params": {"sku": "tea"}, "id": 0}
    assert {**second, "id": 0} == {"jsonrpc": "2.0", "method": "quote", "params": {"sku": "salt"}, "id": 0}


async def test_an_error_that_is_typed_is_raised_and_an_end_leaves_the_outcome_unknown(wscat: str, port: int) -> None:
    async with listening(wscat, port) as hand, calling(port) as service:
        rpc = service.resource("driver/rpc")
        async with trio.open_nursery() as nursery:

            async def ask(kind: type[Exception], text: str) -> None:
                with pytest.raises(kind, match=text):
                    await rpc.quote("tea")

            nursery.start_soon(ask, RemoteError, "no tea")
            asked = await hand.read()
            await hand.type({"jsonrpc": "2.0", "error": {"code": 7, "message": "no tea"}, "id": asked["id"]})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, UnknownOutcomeError, "connection")
            await hand.read()
            hand.process.kill()

    assert asked["params"] == ["tea"]
