"""`kernel run --processes`: real processes that are killed, replaced and stopped, under load."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from ..amqp.conftest import mark, rabbitmq
from . import _service
from ._service import GRACE, LOOP, MARGIN, Service, launched

__all__ = ["mark", "rabbitmq"]

pytestmark = pytest.mark.slow

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
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_service, "PATIENCE", PATIENCE)


def pids(service: Service) -> list[int]:
    """The processes that have become ready, in order."""
    return [int(pid) for pid in re.findall(r"process/\d: ready pid=(\d+)", service.err)]


async def wait_ready(service: Service, count: int) -> list[int]:
    """Wait until so many processes have become ready, one after the other; return them."""
    with trio.move_on_after(PATIENCE):
        while len(pids(service)) < count:  # noqa: ASYNC110  what it writes is read meanwhile
            await trio.sleep(0.01)
    assert len(pids(service)) >= count, service.err
    return pids(service)


@asynccontextmanager
async def pair(directory: Path, manifest: str, code: str, *options: str) -> AsyncIterator[Service]:
    """A service of two processes, ready; none of them is there afterwards."""
    async with launched(directory, manifest, code, *TWO, *options) as service:
        await service.wait_said("e2e is ready after", where="out")
        yield service
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
class Subject:
    @handles("#")
    async def on(self, payload: Any) -> None:
        await trio.sleep(0.002)
        with open("handled", "a") as file:
            file.write(f"{payload} {os.getpid()}\\n")
async def feed(events: Any, context: Context) -> None:
    await context.crew.wait_leading()
    while not os.path.exists("fed"):
        for number in range(COUNT):
            await events.publish("QUEUE.one", number)
        open("fed", "w").close()
    await trio.sleep_forever()
"""


@pytest.fixture
def rabbit(mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a queue that is nobody else's; in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    return f"{mark}crew{uuid.uuid4().hex[:4]}"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=["killed", "replaced"])
async def test_every_message_is_handled_while_processes_are_killed_or_replaced(
    tmp_path: Path, rabbit: str, number: signal.Signals
) -> None:
    count = 1500
    code = HANDLED.replace("QUEUE", rabbit).replace("COUNT", str(count))
    handled = tmp_path / "handled"

    def numbers() -> set[int]:
        return {int(line.split()[0]) for line in handled.read_text().splitlines()} if handled.exists() else set()

    async with pair(tmp_path, RABBIT.format(queue=rabbit), code, "--set", "kernel.grace_period=5") as service:
        with trio.fail_after(PATIENCE):
            while len(numbers()) < 200:  # noqa: ASYNC110  written by other processes
                await trio.sleep(0.01)
        if number == signal.SIGKILL:
            follower = pids(service)[1]
            os.kill(follower, number)
        else:
            service.send(number)
            await service.wait_said("all processes have been replaced")
        with trio.fail_after(PATIENCE):
            while len(numbers()) < count:  # noqa: ASYNC110  as above
                await trio.sleep(0.05)

    assert numbers() == set(range(count))
    assert len({line.split()[1] for line in handled.read_text().splitlines()}) >= 2


# --- the end --------------------------------------------------------------------------------------------------------


async def test_no_process_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    async with pair(tmp_path, LOOP, RUN) as service:
        service.process.kill()
        await service.process.wait()

        await wait_gone(pids(service))

    assert len(pids(service)) == 2


STUCK = "async def run() -> None:\n    say(f'at {os.getpid()}')\n    while True: time.sleep(60)\n"


@pytest.mark.parametrize("code", [RUN, STUCK], ids=["waits", "blocks"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_all_within_the_grace_period(tmp_path: Path, code: str, number: int) -> None:
    async with launched(tmp_path, LOOP, code, *TWO) as service:
        with trio.fail_after(PATIENCE):
            while service.out.count("at ") < 2:  # noqa: ASYNC110  what it writes is read meanwhile
                await trio.sleep(0.01)
        processes = [int(pid) for pid in re.findall(r"at (\d+)", service.out)]

        status, took = await service.stop(number)

    assert status == (CLEAN if code == RUN else CUT)
    assert took < GRACE + MARGIN
    assert not any(map(runs, processes))


async def test_ctrl_c_for_the_whole_process_group_is_one_stop(tmp_path: Path) -> None:
    code = """
    class Subject:
        async def __aenter__(self) -> Any:
            return self
        async def __aexit__(self, *_: object) -> None:
            say("left")
        async def run(self) -> None:
            say("at")
            await trio.sleep_forever()
    """
    manifest = LOOP.replace("workers:run", "workers:Subject")
    script = "import os, sys; os.setpgid(0, 0); os.execv(sys.argv[1], sys.argv[1:])"
    async with launched(tmp_path, manifest, code, *TWO) as service:
        await service.wait_said("e2e is ready after", where="out")
        await service.stop()
    async with launched_in_a_group(tmp_path, script) as process:
        os.killpg(process.pid, signal.SIGINT)
        with trio.fail_after(PATIENCE):
            status = await process.wait()

    assert status == CLEAN


@asynccontextmanager
async def launched_in_a_group(directory: Path, script: str) -> AsyncIterator[trio.Process]:
    command = [
        sys.executable,
        "-c",
        script,
        sys.executable,
        "-m",
        "kernel",
        "run",
        str(directory / "kernel.toml"),
        *TWO,
    ]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        said = b""
        with trio.fail_after(PATIENCE):
            while b"is ready after" not in said:
                said += await process.stdout.receive_some()
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


SLOW_IMPORT = "say('importing')\ntime.sleep(60)\n" + RUN


async def test_a_signal_while_code_is_imported_ends_all_at_once(tmp_path: Path) -> None:
    async with launched(tmp_path, LOOP, SLOW_IMPORT, *TWO) as service:
        await service.wait_said("importing", where="out")

        status, took = await service.stop()

    assert status == CLEAN
    assert took < GRACE + MARGIN
    assert "Traceback" not in service.err


async def test_a_signal_while_one_waits_to_be_started_again_ends_all(tmp_path: Path) -> None:
    patient = "[kernel.process_restart]\nbackoff_initial = 60\nbackoff_max = 60\njitter = 0\n"
    async with launched(tmp_path, patient + LOOP, RUN, *TWO) as service:
        await service.wait_said("e2e is ready after", where="out")
        os.kill(pids(service)[1], signal.SIGKILL)
        await service.wait_said("was killed by SIGKILL")

        status, took = await service.stop()

    assert status == CLEAN
    assert took < GRACE + MARGIN


# --- starts that fail -----------------------------------------------------------------------------------------------


async def test_a_manifest_that_is_wrong_is_said_once(tmp_path: Path) -> None:
    async with launched(tmp_path, LOOP, "import nothing_of_that_name\n", *TWO) as service:
        status = await service.wait()

    assert status == INVALID
    assert service.err.count("[workers.subject].use") == 1


async def test_a_process_that_crashes_at_import_is_given_up_in_the_end(tmp_path: Path) -> None:
    impatient = "[kernel.process_restart]\nbackoff_initial = 0\nmax_restarts = 2\n"
    async with launched(tmp_path, impatient + LOOP, "say('imported')\nos._exit(7)\n", *TWO) as service:
        status = await service.wait()

    assert status == FAILED
    assert service.out.count("imported") == 3
    assert "ended with status 7" in service.err
    assert "started again too often" in service.err


async def test_a_service_that_cannot_start_ends_with_its_status(tmp_path: Path) -> None:
    once = "[workers.subject.restart]\nmax_restarts = 0\n"
    code = "async def run() -> None:\n    raise RuntimeError('no boxes')\n"
    async with launched(tmp_path, LOOP + once, code, *TWO) as service:
        status = await service.wait()

    assert status == FAILED
    assert "no boxes" in service.err


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


# --- what one of them does ------------------------------------------------------------------------------------------

TIMER = """
[dispatchers.clock]
plugin = "timer"
interval = 0.05
stop_timeout = 0.1
[workers.subject]
use = "workers:Subject"
dispatcher = "clock"
stop_timeout = 0.05
"""
TICKS = """
class Subject:
    @handles("#")
    async def on(self, tick: Any) -> None:
        say(f"tick {os.getpid()}")
"""


async def test_a_timer_ticks_in_one_process_and_another_takes_over(tmp_path: Path) -> None:
    def ticked() -> list[int]:
        return [int(pid) for pid in re.findall(r"tick (\d+)", service.out)]

    async with pair(tmp_path, TIMER, TICKS) as service:
        before = len(ticked())
        with trio.fail_after(PATIENCE):
            while len(ticked()) < before + 10:  # noqa: ASYNC110  what it writes is read meanwhile
                await trio.sleep(0.01)
        first = set(ticked())
        os.kill(next(iter(first)), signal.SIGKILL)
        with trio.fail_after(PATIENCE):
            while set(ticked()) == first:  # noqa: ASYNC110  as above
                await trio.sleep(0.01)

    assert len(first) == 1


# --- what is said of all of them ------------------------------------------------------------------------------------

LOOKED_AT = """
[dispatchers.health]
plugin = "health"
bind = "127.0.0.1:0"
[dispatchers.metrics]
plugin = "prometheus"
bind = "127.0.0.1:0"
[workers.subject]
use = "workers:run"
stop_timeout = 0.05
"""


async def get(address: str, path: str) -> tuple[int, str]:
    host, _, port = address.removeprefix("http://").partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        answer = b"".join([piece async for piece in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


async def test_probes_and_scrapes_are_answered_for_all(tmp_path: Path) -> None:
    grace = "[kernel.process_restart]\nbackoff_initial = 60\nbackoff_max = 60\njitter = 0\n"
    manifest = grace + LOOKED_AT.replace("bind", "stop_timeout = 0.1\nbind")
    async with pair(tmp_path, manifest, RUN) as service:
        health, metrics = (
            re.search(rf"dispatcher/{name}: listening address=(\S+)", service.err)[1]  # type: ignore[index]
            for name in ("health", "metrics")
        )
        both = [await get(health, path) for path in ("/live", "/ready", "/status")]
        scraped = await get(metrics, "/metrics")
        os.kill(pids(service)[1], signal.SIGKILL)
        await service.wait_said("was killed by SIGKILL")
        one = [await get(health, path) for path in ("/live", "/ready", "/status")]

    assert [status for status, _ in both] == [200, 200, 200]
    assert both[1][1] == "ready\n"
    assert list(json.loads(both[2][1])["processes"]) == ["0", "1"]
    assert {'kernel_ready{process="0"} 1.0', 'kernel_ready{process="1"} 1.0'} <= set(scraped[1].splitlines())
    assert [status for status, _ in one] == [200, 200, 200]
    assert one[1][1] == "ready\nprocess 1: is not there\n"


async def test_operators_see_one_service_with_its_processes(tmp_path: Path) -> None:
    def kernel(*words: str) -> Any:
        command = [sys.executable, "-m", "kernel", *words, "--json"]
        done = subprocess.run(command, env=environ, capture_output=True, check=True, text=True)
        return json.loads(done.stdout)

    environ = {**os.environ, "KERNEL_CONTROL_DIR": str(tmp_path / "run")}
    async with launched(tmp_path, LOOP, RUN, *TWO, environ=environ) as service:
        await service.wait_said("e2e is ready after", where="out")
        await service.wait_said("process/1: ready")
        names = [one["service"] for one in await trio.to_thread.run_sync(kernel, "ps")]
        tree = await trio.to_thread.run_sync(kernel, "tree")
        restarted = await trio.to_thread.run_sync(kernel, "restart")
        await service.wait_said("all processes have been replaced")
        await trio.to_thread.run_sync(kernel, "restart", "subject")
        stopped = await trio.to_thread.run_sync(kernel, "stop")
        status = await service.wait()

    assert names == ["e2e", "e2e.0", "e2e.1"]
    assert [one["components"][0]["id"] for one in tree["processes"]] == ["worker/subject", "worker/subject"]
    assert restarted == {"restarts": ["process 0", "process 1"]}
    assert stopped["pid"] == service.process.pid
    assert status == CLEAN


# --- what cannot be shared ------------------------------------------------------------------------------------------

NOT_SHARED = {
    "memory": ('[drivers.queue]\nplugin = "memory"\n', "keeps its queues in one process"),
    "zmq": ('[drivers.out]\nplugin = "zmq_publish"\nprotocol = "json"\nbind = ["tcp://127.0.0.1:5999"]\n', "can bind"),
}


@pytest.mark.parametrize(("manifest", "text"), NOT_SHARED.values(), ids=NOT_SHARED.keys())
def test_what_cannot_be_shared_is_an_error_of_check(tmp_path: Path, manifest: str, text: str) -> None:
    (tmp_path / "kernel.toml").write_text(f"[kernel]\nprocesses = 2\n{manifest}")
    check = [sys.executable, "-m", "kernel", "check"]

    checked = [
        subprocess.run([*check, *words], check=False, cwd=tmp_path, capture_output=True, text=True)
        for words in ([], ["--set", "kernel.processes=1"])
    ]

    assert [one.returncode for one in checked] == [INVALID, CLEAN]
    assert text in checked[0].stderr
    assert "processes = 1" in checked[0].stderr
