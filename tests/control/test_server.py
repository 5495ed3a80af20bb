"""A control socket answers its user, refuses everybody else in bounded time, and costs the service nothing."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import outcome
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from kernel._control import places, server, wire
from kernel._control.bridge import Bridge
from kernel._control.client import RefusedError, UnansweredError, ask
from kernel._control.orders import LOCATED, ORDERS, Nothing, Order
from kernel._control.places import Place, listed
from kernel._supervise.why import Cause

from ._shop import CANARY, lines, looking

NOBODY = 65534


async def pack(payload: Any) -> None:
    await trio.lowlevel.checkpoint()


def refused(text: str) -> bytes:
    return wire.line_of(wire.refusal(text))


async def test_a_thread_that_begins_when_its_service_has_ended_has_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service has closed what it listens on, and the descriptor may be something else's."""
    gate, ended, run = threading.Event(), list[Any](), server._Server.run

    def late(self: Any) -> None:
        gate.wait()
        ended.append(outcome.capture(run, self))

    monkeypatch.setattr(server._Server, "run", late)
    async with looking(tmp_path, pack):
        await trio.testing.wait_all_tasks_blocked()
        [thread] = [thread for thread in threading.enumerate() if thread.name == "kernel-control"]
    gate.set()
    await trio.to_thread.run_sync(thread.join)

    assert ended == [outcome.Value(None)]


async def test_the_socket_is_its_users_alone(tmp_path: Path) -> None:
    async with looking(tmp_path, pack) as look:
        socket_mode, folder_mode = look.place.path.stat().st_mode, look.place.path.parent.stat().st_mode

    assert stat.S_IMODE(socket_mode) == 0o600
    assert stat.S_IMODE(folder_mode) == 0o700
    assert not look.place.path.exists()


def test_a_folder_that_somebody_else_can_write_to_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o777)
    (tmp_path / "run").chmod(0o777)
    place = Place.of("shop", {"KERNEL_CONTROL_DIR": str(tmp_path / "run")})
    told: list[Any] = []

    class Log:
        def warning(self, event: str, **fields: Any) -> None:
            told.append((event, fields["error"]))

    assert server.open_socket(place, Log()) is None  # type: ignore[arg-type]

    assert not place.path.exists()
    assert told[0][0] == "no control socket"


def test_a_path_that_is_too_long_costs_the_socket_alone(tmp_path: Path) -> None:
    place = Place.of("shop", {"KERNEL_CONTROL_DIR": str(tmp_path / ("x" * 100))})
    told: list[Any] = []

    class Log:
        def warning(self, event: str, **fields: Any) -> None:
            told.append(fields["error"])

    assert server.open_socket(place, Log()) is None  # type: ignore[arg-type]

    assert "KERNEL_CONTROL_DIR" in told[0]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others can come to; pytest's are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
async def test_another_user_is_refused(open_folder: Path) -> None:
    code = f"import os, socket, sys\nos.setuid({NOBODY})\ns = socket.socket(socket.AF_UNIX)\n"
    code += "s.connect(sys.argv[1])\nprint(s.recv(1000).decode())"
    async with looking(open_folder, pack) as look:

        def as_nobody() -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", code, str(look.place.path)]
            return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

        look.place.path.parent.chmod(0o755)
        shut_out = await trio.to_thread.run_sync(as_nobody)
        look.place.path.chmod(0o666)  # what the mode keeps out, the credentials do
        refused_ = await trio.to_thread.run_sync(as_nobody)
        assert (await look.ask("ps"))["service"] == "shop"

    assert "PermissionError" in shut_out.stderr
    assert "this service belongs to another user" in refused_.stdout


GARBAGE = {
    "no-json": b"GET / HTTP/1.1\n",
    "binary": bytes(range(11, 256)) + b"\n",
    "no-object": b"[1]\n",
    "deep": b'{"a":' * 100 + b"1" + b"}" * 100 + b"\n",
    "no-order": b"{}\n",
    "unknown-order": b'{"order": "destroy"}\n',
    "order-of-another-type": b'{"order": ["ps"]}\n',
    "unknown-argument": b'{"order": "ps", "x": 1}\n',
    "wrong-argument": b'{"order": "tap", "dispatcher": 7}\n',
    "out-of-range": b'{"order": "tap", "dispatcher": "work", "per_second": 1000000}\n',
    "duplicate-key": b'{"order": "ps", "order": "stop"}\n',
    "nan": b'{"order": NaN}\n',
    "cut-off": b'{"order": "ps"}',
    "empty": b"",
}


async def test_garbage_is_refused_and_the_next_one_is_served(tmp_path: Path) -> None:
    def send(garbage: bytes) -> Any:
        def talk(connection: socket.socket) -> Any:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            return [json.loads(line) for line in lines(connection)]

        return talk

    async with looking(tmp_path, pack) as look:
        answers = {name: await look.raw(send(garbage)) for name, garbage in GARBAGE.items()}
        assert (await look.ask("ps"))["service"] == "shop"

    for name, [answer] in answers.items():
        assert answer["ok"] is False, name
        assert 0 < len(answer["error"]) < 1000, name


async def test_a_request_without_end_is_cut_at_its_bound(tmp_path: Path) -> None:
    sent = 0

    def flood(connection: socket.socket) -> bytes:
        nonlocal sent
        with suppress(OSError):  # it hangs up
            while sent < 1 << 30:
                sent += connection.send(b"x" * 65_536)
        return connection.recv(1000)

    async with looking(tmp_path, pack) as look:
        answer = await look.raw(flood)

    assert answer == refused("no request: it has more than 65536 bytes")
    assert sent < 2 << 20  # what the system keeps, and no more


async def test_who_sends_nothing_is_refused_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "WITHIN", 0.1)
    async with looking(tmp_path, pack) as look:
        answer = await look.raw(lambda connection: connection.recv(1000))

    assert answer == refused("no request within 0.1 s")


async def test_who_never_reads_is_left_when_its_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WITHIN", 0.1)
    ended = trio.Event()

    async def flood(desk: Any, arguments: Any, tell: Any) -> None:
        try:
            while True:
                await tell("x" * 65_536)
        finally:
            here.run_sync_soon(ended.set)

    monkeypatch.setitem(ORDERS, "flood", Order(Nothing, flood))  # type: ignore[arg-type]
    here = trio.lowlevel.current_trio_token()
    async with looking(tmp_path, pack) as look:
        connection = socket.socket(socket.AF_UNIX)
        with connection:
            connection.connect(str(look.place.path))
            connection.sendall(b'{"order": "flood"}\n')
            with trio.fail_after(20):
                await ended.wait()
        monkeypatch.undo()
        assert (await look.ask("ps"))["service"] == "shop"


async def test_clients_beyond_the_bound_are_told_and_make_room_when_they_leave(tmp_path: Path) -> None:
    async with looking(tmp_path, pack) as look:
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(wire.CLIENTS)]
        for one in crowd:
            one.connect(str(look.place.path))
        refusal: str = ""
        with trio.fail_after(20):
            while not refusal:  # until all of them have been let in
                try:
                    await look.ask("ps")
                except (RefusedError, UnansweredError) as error:
                    refusal = str(error)
        for one in crowd:
            one.close()
        with trio.fail_after(20):
            while True:
                with suppress(RefusedError, UnansweredError):
                    await look.ask("ps")
                    break

    assert "8 clients are served already" in refusal


async def test_a_defect_in_an_order_is_told_and_the_next_one_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(desk: Any, arguments: Any, tell: Any) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setitem(ORDERS, "broken", Order(Nothing, broken))  # type: ignore[arg-type]
    async with looking(tmp_path, pack) as look:
        with pytest.raises(RefusedError, match="it failed: ZeroDivisionError: oh"):
            await look.ask("broken")
        assert (await look.ask("ps"))["service"] == "shop"


async def test_an_order_may_wait_in_the_event_loop_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(number: int) -> int:
        await trio.sleep(0.01)
        if number < 0:
            raise RefusedError("too small")
        return number + 1

    async def waits(desk: Any, arguments: Any, tell: Any) -> None:
        await tell(await desk.bridge.run(work, 1))
        await desk.bridge.run(work, -1)

    monkeypatch.setitem(ORDERS, "waits", Order(Nothing, waits))  # type: ignore[arg-type]
    async with looking(tmp_path, pack) as look:
        assert await look.raw(lambda connection: say(connection, b'{"order": "waits"}\n')) == [
            {"ok": True, "answer": 2},
            {"ok": False, "error": "too small"},
        ]


def say(connection: socket.socket, request: bytes) -> list[Any]:
    connection.sendall(request)
    return [json.loads(line) for line in lines(connection)]


async def test_no_answer_shows_a_secret(tmp_path: Path) -> None:
    async def fails() -> None:
        await trio.lowlevel.checkpoint()
        raise ConnectionError(f"refused by redis://shop:{CANARY}@cache")

    workers = {"fails": {"use": "fails", "essential": False, "restart": {"policy": "never"}}}
    more = {"workers": workers, "classes": {"workers": {"fails": fails}}, "expected": ConnectionError}
    async with looking(tmp_path, pack, **more) as look:
        said = [await look.ask(order) for order in ("ps", "tree", "why")]
        with pytest.raises(RefusedError) as caught:
            await look.ask("restart", component=CANARY)

    assert "redis://" in repr(said)
    assert CANARY not in repr(said) + str(caught.value)


@pytest.mark.slow
async def test_it_answers_while_the_event_loop_is_blocked(tmp_path: Path) -> None:
    async with looking(tmp_path, pack) as look:
        await look.ask("ps")
        code = "import sys, json; from pathlib import Path; from kernel._control import client, places\n"
        code += "place = places.at(Path(sys.argv[1]))\n"
        code += "print(json.dumps([client.ask(place, 'why'), client.ask(place, 'ps')]))"
        command = [sys.executable, "-c", code, str(look.place.path)]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)  # noqa: ASYNC221  it is to block

    why, ps = json.loads(asked.stdout)
    assert ps["state"] == "blocked"
    assert why["causes"][0]["what"] == "the event loop is blocked, so nothing else goes on"
    assert why["blocked_at"].startswith(__file__) or "subprocess" in why["blocked_at"]


async def test_what_a_blocked_loop_did_not_get_to_is_not_done_later() -> None:
    called: list[str] = []
    async with trio.open_nursery() as nursery:
        bridge = Bridge(trio.lowlevel.current_trio_token(), nursery)

        def ask() -> None:
            with pytest.raises(RefusedError, match="blocked"):
                trio.run(bridge.ask, called.append, "late", clock=MockClock(autojump_threshold=0))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()  # which blocks this loop
        await trio.testing.wait_all_tasks_blocked()

    assert called == []


@pytest.mark.slow
async def test_to_look_at_ten_thousand_tasks_holds_the_event_loop_for_fifty_milliseconds_at_most() -> None:
    """What is done in the loop is to find lines of code: of so many tasks, each with all of them below it."""
    async with trio.open_nursery() as nursery:
        for _ in range(10_000):
            nursery.start_soon(trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        causes = [Cause(component="dispatcher/work", what="drains", task=trio.lowlevel.current_task())] * LOCATED
        began = time.thread_time()
        where = {cause.located().where for cause in causes}
        held = time.thread_time() - began
        nursery.cancel_scope.cancel()

    assert held < 0.05
    assert len(where) == 1


# --- places -----------------------------------------------------------------------------------------------------------


def test_what_a_killed_process_has_left_is_not_listed(tmp_path: Path, gone: int) -> None:
    (tmp_path / f"shop-{gone}.sock").touch()
    (tmp_path / f"shop-{os.getpid()}.sock").touch()
    (tmp_path / "other.file").touch()

    assert [place.pid for place in listed({"KERNEL_CONTROL_DIR": str(tmp_path)}) if place.service == "shop"] == [
        os.getpid()
    ]


@pytest.fixture
def gone() -> int:
    """The id of a process that there is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


async def test_what_a_killed_process_has_left_is_deleted_by_the_next_one(tmp_path: Path, gone: int) -> None:
    left = tmp_path / "run" / f"shop-{gone}.sock"
    left.parent.mkdir(mode=0o700)
    left.touch()
    async with looking(tmp_path, pack):
        assert not left.exists()


def test_sockets_in_a_folder_that_somebody_else_has_made_are_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"shop-{os.getpid()}.sock").touch()
    monkeypatch.setattr(places, "_fallback", lambda: tmp_path)
    ours = places.listed({})
    monkeypatch.setattr(places.os, "geteuid", lambda: tmp_path.stat().st_uid + 1)

    assert [place.service for place in ours] == ["shop"]
    assert places.listed({}) == []


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"KERNEL_CONTROL_DIR": "/a", "RUNTIME_DIRECTORY": "/b", "XDG_RUNTIME_DIR": "/c"}, "/a"),
        ({"RUNTIME_DIRECTORY": "/b:/d", "XDG_RUNTIME_DIR": "/c"}, "/b"),
        ({"XDG_RUNTIME_DIR": "/c"}, "/c/kernel"),
        ({}, f"/tmp/kernel-{os.geteuid()}"),
    ],
)
def test_a_socket_is_where_the_environment_says(environ: dict[str, str], folder: str) -> None:
    assert str(Place.of("shop", environ).path) == f"{folder}/shop-{os.getpid()}.sock"


async def test_who_hangs_up_without_an_answer_is_named(tmp_path: Path) -> None:
    place = Place("shop", os.getpid(), tmp_path / f"shop-{os.getpid()}.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.path))
        listener.listen()

        def hang_up() -> None:
            listener.accept()[0].close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, hang_up)
            with pytest.raises(UnansweredError):
                await trio.to_thread.run_sync(ask, place, "ps")


def test_nobody_at_a_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnansweredError, match="does not answer"):
        ask(Place("shop", 1, tmp_path / "shop-1.sock"), "ps")
