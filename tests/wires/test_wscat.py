"""JSON-RPC by hand: wscat, a program of npm's that knows nothing but websockets, in front of both kinds of listener."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from kernel import Listening, answers
from kernel._manifest.registry import Registry, discover
from kernel.abc import Delivery
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
