"""Through the real kernel: a whole service, and the command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
import trio
import trio.testing
from kernel_web import SlotsTaken, WebDispatcher

from kernel import ComponentFailed, Listening
from kernel.errors import PlanError

APP = """
import trio
import trio.testing

class Api:
    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if scope["path"] == "/slow":
            print("in flight", flush=True)
            await trio.sleep(0.3)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})
"""
MANIFEST = """
[kernel]
name = "test"
[dispatchers.web]
plugin = "web"
bind = "127.0.0.1:0"
[workers.api]
use = "webapp:Api"
dispatcher = "web"
"""


class Api:
    release = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if scope["path"] == "/slow":
            await Api.release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})


class Failing:
    """Its lifespan fails when the test says so."""

    fail = trio.Event()
    ended: ClassVar[list[str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            Failing.fail = trio.Event()
            await Failing.fail.wait()
            raise ValueError("lost")
        if scope["path"] == "/hold":
            try:
                await trio.sleep_forever()
            finally:
                Failing.ended.append("held")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


def tables(**dispatcher: Any) -> dict[str, Any]:
    return {
        "kernel": {"name": "test", "drain_timeout": 0.1},
        "dispatchers": {"web": {"plugin": "web", "bind": "127.0.0.1:0", **dispatcher}},
        "workers": {"api": {"use": f"{__name__}:Api", "dispatcher": "web", "options": {"prefix": "/"}}},
    }


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Api.__module__])


async def test_a_service_answers_and_stops(open_kernel: Any, importable: None) -> None:
    async with open_kernel(tables()) as service:
        address = (await service.wait_event(Listening)).address
        async with httpx.AsyncClient(base_url=address) as client:
            response = await client.get("/x")
        result = await service.stop()

    assert response.text == "/x"
    assert result.status == 0


async def test_a_paused_dispatcher_lets_requests_wait_and_refuses_websockets(
    open_kernel: Any, importable: None
) -> None:
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    statuses: list[int] = []
    async with open_kernel(tables()) as service:
        address = (await service.wait_event(Listening)).address
        service.kernel.pause("dispatcher/web")
        async with httpx.AsyncClient(base_url=address) as client, trio.open_nursery() as nursery:

            async def ask() -> None:
                statuses.append((await client.get("/x")).status_code)

            nursery.start_soon(ask)
            refused = await client.get("/", headers={**upgrade, "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="})
            await trio.testing.wait_all_tasks_blocked(0.01)
            during = list(statuses)
            service.kernel.resume("dispatcher/web")
        slots = [event for event in service.events if isinstance(event, SlotsTaken)]
        await service.stop()

    assert refused.status_code == 503
    assert (during, statuses) == ([], [200])
    assert slots == []


@pytest.mark.slow
async def test_a_request_at_the_drain_deadline_is_cut(open_kernel: Any, importable: None) -> None:
    answers: list[int] = []
    async with open_kernel(tables()) as service:
        address = (await service.wait_event(Listening)).address
        async with httpx.AsyncClient(base_url=address) as client, trio.open_nursery() as nursery:

            async def ask() -> None:
                answers.append((await client.get("/slow")).status_code)

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.05)
            result = await service.stop()

    assert answers == [503]
    assert result.status == 3


@pytest.mark.slow
async def test_a_request_that_waits_for_a_slot_is_sent_away_at_the_stop(open_kernel: Any, importable: None) -> None:
    answers: dict[str, int] = {}
    async with open_kernel(tables(concurrency=1)) as service:
        address = (await service.wait_event(Listening)).address
        async with httpx.AsyncClient(base_url=address) as client, trio.open_nursery() as nursery:

            async def ask(path: str) -> None:
                answers[path] = (await client.get(path)).status_code

            nursery.start_soon(ask, "/slow")
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.start_soon(ask, "/waiting")
            await trio.testing.wait_all_tasks_blocked(0.05)
            result = await service.stop()

    assert list(answers.items()) == [("/waiting", 503), ("/slow", 503)]
    assert result.status == 3


@pytest.mark.slow
async def test_a_worker_that_restarts_under_load_ends_its_requests_and_sends_new_ones_away(
    open_kernel: Any, importable: None
) -> None:
    Failing.ended.clear()
    service_tables = tables(concurrency=20)
    service_tables["workers"]["api"] |= {
        "use": f"{__name__}:Failing",
        "restart": {"policy": "always", "backoff_initial": 0.3, "jitter": 0.0},
    }
    held: list[httpx.Response] = []
    during: list[int] = []
    async with open_kernel(service_tables, expected=ValueError) as service:
        address = (await service.wait_event(Listening)).address
        async with httpx.AsyncClient(base_url=address) as client, trio.open_nursery() as nursery:

            async def hold() -> None:
                held.append(await client.get("/hold"))

            async def load() -> None:
                while 503 not in during or during[-1] != 200:
                    during.append((await client.get("/")).status_code)

            for _ in range(5):
                nursery.start_soon(hold)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.start_soon(load)
            Failing.fail.set()
            failed = await service.wait_event(ComponentFailed)
            with trio.fail_after(5):
                while len(held) < 5 or during[-1:] != [200] or 503 not in during:  # noqa: ASYNC110  nothing tells
                    await trio.sleep(0.01)

    assert failed.component == "worker/api"
    assert [response.status_code for response in held] == [503] * 5
    assert all(response.headers["retry-after"] for response in held)
    assert Failing.ended == ["held"] * 5
    assert set(during) == {200, 503}


async def test_plaintext_for_other_machines_is_found_by_the_plan(open_kernel: Any, importable: None) -> None:
    with pytest.raises(PlanError, match="insecure = true"):
        async with open_kernel(tables(bind="0.0.0.0:0")):
            raise AssertionError


@pytest.mark.slow
async def test_the_command_serves_drains_and_exits(tmp_path: Path) -> None:
    (tmp_path / "webapp.py").write_text(APP)
    (tmp_path / "kernel.toml").write_text(MANIFEST)
    command = [sys.executable, "-m", "kernel", "run", "kernel.toml"]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    process = await trio.lowlevel.open_process(
        command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    stdout = process.stdout
    assert stdout is not None
    output = bytearray()

    async def until(text: bytes) -> bytes:
        with trio.fail_after(10):
            while text not in output:
                chunk = await stdout.receive_some()
                assert chunk, output.decode()
                output.extend(chunk)
        return bytes(output)

    try:
        seen = await until(b"http://127.0.0.1:")
        while b"\n" not in seen.partition(b"http://127.0.0.1:")[2]:
            seen += await stdout.receive_some()
        digits = seen.partition(b"http://127.0.0.1:")[2]
        port = int(b"".join(digits[at : at + 1] for at in range(5) if digits[: at + 1].isdigit()))
        answers: list[httpx.Response] = []
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client, trio.open_nursery() as nursery:

            async def ask() -> None:
                answers.append(await client.get("/slow"))

            nursery.start_soon(ask)
            await until(b"in flight")
            process.send_signal(signal.SIGTERM)
        with trio.fail_after(5):
            status = await process.wait()
    finally:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await process.wait()
            await stdout.aclose()

    assert answers[0].text == "/slow"
    assert status == 0


@pytest.mark.slow
def test_a_port_in_use_is_one_line_that_says_who_where_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "webapp.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "kernel.toml").write_text(MANIFEST.replace(":0", f":{port}"))
        command = [sys.executable, "-m", "kernel", "run", "kernel.toml"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)
    lines = [line for line in done.stderr.splitlines() if "StartupError" in line]
    line = MANIFEST.splitlines().index("[dispatchers.web]") + 1

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(lines) == 2
    assert lines[1].startswith(
        f"kernel: failed: StartupError: 127.0.0.1:{port}: address already in use (pid {os.getpid()}"
    )
    assert lines[1].endswith(f"stop who listens there, or bind another port (dispatcher/web, kernel.toml:{line})")


@pytest.mark.slow
def test_importing_the_plugin_is_cheap() -> None:
    """`kernel check` imports it, and must not pay for hypercorn."""
    code = "import sys, kernel.abc; before = set(sys.modules); import kernel_web; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()

    assert not {name.partition(".")[0] for name in loaded} & {"hypercorn", "h2", "h11", "wsproto", "trio", "ssl"}
    assert WebDispatcher.Config
