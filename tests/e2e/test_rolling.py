"""A crew whose processes are replaced, or read their manifest again, under load."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import uuid
from pathlib import Path

import pytest
import trio

from kernel.testing import free_port

from ..amqp.conftest import mark, rabbitmq
from ._crew import (
    CLEAN,
    PATIENCE,
    RUN,
    SITE,
    WEB,
    answers,
    load,
    pair,
    patient,
    pid_of,
    pids,
    port_of,
    runs,
    until_refused,
    wait_gone,
    wait_ready,
)
from ._service import LOOP, Service, launched

__all__ = ["mark", "patient", "rabbitmq"]

pytestmark = pytest.mark.slow


async def test_two_processes_have_one_port_and_share_the_clients(tmp_path: Path) -> None:
    async with pair(tmp_path, WEB, SITE) as service, load(port_of(service)) as clients:
        with trio.fail_after(PATIENCE):
            while len(clients.answers) < 2:  # noqa: ASYNC110  counted by others
                await trio.sleep(0.01)
        service_pids = await wait_ready(service, 2)

    assert {int(pid) for pid in clients.answers} == set(service_pids)
    assert (clients.lost, clients.refused) == (0, 0)


async def test_a_rolling_restart_drops_no_request(tmp_path: Path) -> None:
    async with pair(tmp_path, WEB, SITE) as service:
        async with load(port_of(service)) as clients:
            await clients.wait_answers(50)
            service.send(signal.SIGHUP)
            await service.wait_said("all processes have been replaced")
            await clients.wait_answers(50)
        old, new = pids(service)[:2], pids(service)[2:]
        await wait_gone(old)

        status, _ = await service.stop()

    assert (clients.lost, clients.refused) == (0, 0)
    assert len(new) == 2
    assert status == CLEAN


async def test_others_go_on_when_one_is_killed_and_it_is_back(tmp_path: Path) -> None:
    async with pair(tmp_path, WEB, SITE) as service:
        async with load(port_of(service)) as clients:
            await clients.wait_answers(50)
            os.kill(pids(service)[0], signal.SIGKILL)
            await clients.wait_answers(50)
            back = (await wait_ready(service, 3))[2]
            with trio.fail_after(PATIENCE):
                while str(back) not in clients.answers:  # noqa: ASYNC110  counted by others
                    await trio.sleep(0.01)

        status, _ = await service.stop()

    assert clients.refused == 0
    assert clients.lost <= 12  # those whose request it had
    assert "was killed by SIGKILL" in service.err
    assert status == CLEAN


@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
async def test_a_rolling_restart_under_wrk_drops_no_request(tmp_path: Path) -> None:
    async with pair(tmp_path, WEB, SITE) as service:
        command = ["wrk", "-t1", "-c16", "-d8", f"http://127.0.0.1:{port_of(service)}/"]
        async with trio.open_nursery() as nursery:
            said: list[bytes] = []

            async def ask() -> None:
                said.append((await trio.run_process(command, capture_stdout=True)).stdout)

            nursery.start_soon(ask)
            await trio.sleep(1)
            service.send(signal.SIGHUP)
        await service.wait_said("all processes have been replaced")

    assert b"requests in" in said[0]
    assert b"Socket errors" not in said[0]
    assert b"Non-2xx" not in said[0]


# --- messages -------------------------------------------------------------------------------------------------------

RABBIT = """
[drivers.queue]
plugin = "amqp"
stop_timeout = 0.1
[drivers.events]
plugin = "publisher"
driver = "queue"
protocol = "json"
stop_timeout = 0.05
[dispatchers.work]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "{queue}"
bindings = ["{queue}.#"]
stop_timeout = 0.1
[workers.subject]
use = "workers:Subject"
dispatcher = "work"
stop_timeout = 0.05
[workers.feed]
use = "workers:feed"
depends = ["dispatcher/work"]
stop_timeout = 0.05
"""
HANDLED = """
from kernel.abc import Context
def write(name: str, number: int) -> None:
    with open(name, "a") as file:
        file.write(f"{number} {os.getpid()}\\n")
class Subject:
    @handles("#")
    async def on(self, payload: Any) -> None:
        await trio.sleep(0.002)
        write("handled", payload)
async def feed(events: Any, context: Context) -> None:
    await context.crew.wait_leading()
    number = os.getpid() << 32
    while not os.path.exists("enough"):
        number += 1
        await events.publish("QUEUE.one", number)
        write("sent", number)
    open("fed", "w").close()
    await trio.sleep_forever()
"""


def lines(path: Path) -> list[list[str]]:
    """What processes have written; a line that is not whole yet is left out."""
    return [line.split() for line in path.read_text().rpartition("\n")[0].splitlines()] if path.exists() else []


def writers(path: Path) -> set[str]:
    return {pid for _, pid in lines(path)}


def numbers(path: Path) -> set[str]:
    return {number for number, _ in lines(path)}


@pytest.fixture
def rabbit(mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a queue that is nobody else's; in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    return f"{mark}crew{uuid.uuid4().hex[:4]}"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=["killed", "replaced"])
async def test_every_message_is_handled_while_processes_are_killed_or_replaced(
    tmp_path: Path, rabbit: str, number: signal.Signals
) -> None:
    handled, sent = tmp_path / "handled", tmp_path / "sent"
    code = HANDLED.replace("QUEUE", rabbit)
    async with pair(tmp_path, RABBIT.format(queue=rabbit), code, "--set", "kernel.grace_period=5") as service:
        with trio.fail_after(PATIENCE):
            while len(writers(handled)) < 2:  # noqa: ASYNC110  written by other processes
                await trio.sleep(0.05)
        if number == signal.SIGKILL:
            follower = pids(service)[1]
            os.kill(follower, number)
            await wait_ready(service, 3)
        else:
            service.send(number)
            await service.wait_said("all processes have been replaced")
        (tmp_path / "enough").touch()
        with trio.fail_after(PATIENCE):
            while not (tmp_path / "fed").exists() or numbers(sent) - numbers(handled):  # noqa: ASYNC110  as above
                await trio.sleep(0.05)

    assert numbers(sent) <= numbers(handled)


NEVER_READY = """
[drivers.slow]
use = "workers:Slow"
start_timeout = 0.3
stop_timeout = 0.1
[drivers.slow.restart]
max_restarts = 1
backoff_initial = 0
"""
SLOW = """
from contextlib import asynccontextmanager
from kernel.abc import Driver
class Slow(Driver):
    def __init__(self, *, config: Any, context: Any) -> None:
        pass
    @asynccontextmanager
    async def open(self) -> Any:
        if os.path.exists(os.path.join(os.path.dirname(__file__), "broken")):
            await trio.sleep_forever()
        yield
"""


@pytest.mark.parametrize("what", ["never ready", "cannot be imported"])
async def test_the_old_processes_go_on_if_a_new_one_does_not_become_ready(tmp_path: Path, what: str) -> None:
    async with pair(tmp_path, LOOP + NEVER_READY, SLOW + RUN) as service:
        (tmp_path / "broken").touch()
        if what == "cannot be imported":
            (tmp_path / "workers.py").write_text("import nothing_of_that_name\n")
        service.send(signal.SIGHUP)
        await service.wait_said("the old processes go on")

        assert all(map(runs, pids(service)))
        assert len(pids(service)) == 2


FAILS = """
IS_BROKEN = os.path.exists(os.path.join(os.path.dirname(__file__), "broken"))
async def run() -> None:
    say(f"at {os.getpid()}")
    await trio.sleep(0.05)
    if IS_BROKEN:
        HOW
    await trio.sleep_forever()
"""


@pytest.mark.parametrize("how", ["raise RuntimeError('no boxes')", "os.kill(os.getpid(), 9)"])
async def test_the_old_processes_go_on_if_a_new_one_fails_in_its_first_moment(tmp_path: Path, how: str) -> None:
    async with pair(tmp_path, LOOP, FAILS.replace("HOW", how)) as service:
        old = pids(service)
        (tmp_path / "broken").touch()
        service.send(signal.SIGHUP)
        await service.wait_said("the old processes go on")

        assert all(map(runs, old)), service.err
        assert len(pids(service)) == 3


async def test_a_roll_ends_if_the_system_has_no_room_for_a_new_process(tmp_path: Path) -> None:
    async with pair(tmp_path, LOOP, RUN) as service:
        pid, old = service.process.pid, pids(service)
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        service.send(signal.SIGHUP)
        await service.wait_said("the old processes go on")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)

        assert all(map(runs, old)), service.err
        service.send(signal.SIGHUP)
        await service.wait_said("all processes have been replaced")

    assert "how=Too many open files" in service.err.replace('"', "").replace("[Errno 24] ", "")


HELD = """
HOLD = os.path.join(os.path.dirname(__file__), "hold")
IS_NEW = os.path.exists(HOLD)
class Held:
    async def __aenter__(self) -> None:
        while IS_NEW and os.path.exists(HOLD):
            await trio.sleep(0.01)
    async def __aexit__(self, *_: object) -> None: ...
    async def run(self) -> None:
        await trio.sleep_forever()
"""


async def test_a_reload_in_a_roll_reaches_those_that_are_being_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNEL_CONTROL_DIR", str(tmp_path / "run"))
    async with pair(tmp_path, LOOP.replace("workers:run", "workers:Held"), HELD) as service:
        (tmp_path / "hold").touch()  # the roll cannot be over before the reload is there, however slow the machine is
        service.send(signal.SIGHUP)
        await service.wait_said("each process is replaced by a new one")
        rewrite(service, "stop_timeout = 0.05", "stop_timeout = 0.04")
        await trio.run_process([sys.executable, "-m", "kernel", "reload"], capture_stdout=True)
        (tmp_path / "hold").unlink()
        with trio.fail_after(PATIENCE):
            while service.err.count("all processes have been replaced") < 2:  # noqa: ASYNC110  read meanwhile
                await trio.sleep(0.01)

    assert len(pids(service)) == 6


# --- ports that are moved -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["reload", "restart"])
async def test_nobody_waits_at_a_port_that_was_left(
    tmp_path: Path, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNEL_CONTROL_DIR", str(tmp_path / "run"))
    old, new = free_port(), free_port()
    async with pair(tmp_path, WEB.replace("127.0.0.1:0", f"127.0.0.1:{old}"), SITE) as service:
        assert await answers(old)
        manifest = tmp_path / "kernel.toml"
        manifest.write_text(manifest.read_text().replace(f":{old}", f":{new}"))
        await trio.run_process([sys.executable, "-m", "kernel", order], capture_stdout=True)
        if order == "restart":
            await service.wait_said("all processes have been replaced")
        await until_refused(old)

        assert await answers(new)


async def test_nobody_waits_at_the_port_of_what_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_CONTROL_DIR", str(tmp_path / "run"))
    async with pair(tmp_path, LOOP + WEB, RUN + SITE) as service:
        port = port_of(service)
        assert await answers(port)
        manifest = tmp_path / "kernel.toml"
        manifest.write_text(manifest.read_text().replace(WEB, ""))
        await trio.run_process([sys.executable, "-m", "kernel", "reload"], capture_stdout=True)

        await until_refused(port)


async def test_a_component_that_restarts_keeps_its_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_CONTROL_DIR", str(tmp_path / "run"))
    async with pair(tmp_path, WEB, SITE) as service:
        port = port_of(service)
        async with load(port, 4) as clients:
            await trio.run_process([sys.executable, "-m", "kernel", "restart", "web"], capture_stdout=True)
            await clients.wait_answers(20)

    assert clients.refused == 0


# --- what belongs to the whole ------------------------------------------------------------------------------------


async def kernel(*words: str) -> str:
    """Return what a command prints, on both streams."""
    command = [sys.executable, "-m", "kernel", *words]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    return (done.stdout + done.stderr).decode()


def rewrite(service: Service, old: str, new: str) -> None:
    manifest = service.directory / "kernel.toml"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))


async def names() -> list[str]:
    return [one["service"] for one in json.loads(await kernel("ps", "--json"))]


async def test_one_that_is_called_otherwise_is_so_when_it_has_rolled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNEL_CONTROL_DIR", str(tmp_path / "run"))
    async with pair(tmp_path, LOOP, RUN) as service:
        rewrite(service, '"e2e"', '"other"')
        refused = await kernel("reload")
        before = await names()
        told = await kernel("restart")
        assert "all processes have been replaced" in service.err
        after = await names()
        tree = json.loads(await kernel("tree", "--json"))
        stopped = await kernel("stop", "--service", "other")

    assert "[kernel].name: cannot change while the service runs" in refused
    assert before == ["e2e", "e2e.0", "e2e.1"]
    assert after == ["other", "other.0", "other.1"]
    assert told == "restarted: process 0, process 1\n"
    assert [len(one["components"]) for one in tree["processes"]] == [1, 1]
    assert "stopped" in stopped


async def test_while_some_are_called_otherwise_all_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_CONTROL_DIR", str(tmp_path / "run"))
    async with pair(tmp_path, LOOP, RUN) as service:
        rewrite(service, '"e2e"', '"other"')
        os.kill(pid_of(service, 0), signal.SIGKILL)
        await wait_ready(service, 3)
        seen = await names()
        tree = json.loads(await kernel("tree", "--service", "other", "--json"))

    assert seen == ["e2e.1", "other", "other.0"]
    assert [one["state"] for one in tree["processes"]] == ["ready", "ready"]


async def test_one_that_does_not_become_ready_changes_nothing_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNEL_CONTROL_DIR", str(tmp_path / "run"))
    async with pair(tmp_path, LOOP, RUN) as service:
        rewrite(service, '"e2e"', '"other"')
        (tmp_path / "workers.py").write_text("async def run() -> None:\n    raise ValueError('it fell')\n")
        rewrite(service, "[workers.subject]", "[workers.subject]\nrestart = { max_restarts = 0 }")
        told = await kernel("restart")
        await service.wait_said("the old processes go on")
        await wait_gone(pids(service)[2:])

        assert await names() == ["e2e", "e2e.0", "e2e.1"]
        unawaited = await kernel("restart", "--no-wait")
    assert told == (
        "kernel: not all were replaced: what was to take the place of process 0 ended with status 1; "
        "the old processes go on, and the log says more\n"
    )
    assert unawaited == "restarting: process 0, process 1\n"


async def test_a_grace_period_that_was_reloaded_is_that_of_the_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNEL_CONTROL_DIR", str(tmp_path / "run"))
    code = """
    class Slow:
        async def __aenter__(self) -> Any:
            return self
        async def __aexit__(self, *_: object) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(2.5 if os.path.exists(os.path.join(os.path.dirname(__file__), "slow")) else 0)
            say("left")
        async def run(self) -> None:
            await trio.sleep_forever()
    """
    async with pair(tmp_path, LOOP.replace("workers:run", "workers:Slow"), code) as service:
        rewrite(service, "grace_period = 1.5", "grace_period = 9.0")
        rewrite(service, "stop_timeout = 0.05", "stop_timeout = 6.0")
        await kernel("reload")
        (tmp_path / "slow").touch()

        status, _ = await service.stop()

    assert service.out.count("left") == 4  # two by the reload, and two at the end
    assert "is killed" not in service.err
    assert status == CLEAN


async def test_another_number_of_processes_is_refused_by_a_reload_and_told_of_by_a_roll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNEL_CONTROL_DIR", str(tmp_path / "run"))
    async with launched(tmp_path, f"processes = 2\n{LOOP}", RUN, is_measured=True) as service:
        await service.wait_said("e2e is ready after", where="out")
        rewrite(service, "processes = 2", "processes = 3")
        refused = await kernel("reload")
        await kernel("restart")
        await service.wait_said("all processes have been replaced")

        status, _ = await service.stop()

    assert "[kernel].processes: is read when the service starts: stop it and start it" in refused
    assert service.err.count("how many processes there are is read at the start") == 1
    assert len(pids(service)) == 4
    assert status == CLEAN
