"""`kernel run --processes`: real processes that are killed, replaced and stopped, under load."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from ._crew import (
    CLEAN,
    CUT,
    FAILED,
    INVALID,
    PATIENCE,
    RUN,
    SITE,
    TWO,
    WEB,
    pair,
    patient,
    pid_of,
    pids,
    runs,
    wait_gone,
)
from ._service import GRACE, LOOP, MARGIN, launched

__all__ = ["patient"]

pytestmark = pytest.mark.slow


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
        os.kill(pid_of(service, 1), signal.SIGKILL)
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
    async with launched(tmp_path, LOOP, RUN, *TWO, environ=environ, is_measured=True) as service:
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


def test_what_is_inside_cannot_be_shared_either(tmp_path: Path) -> None:
    (tmp_path / "kernel.toml").write_text('[kernel]\nprocesses = 2\n[services.inner]\nmanifest = "inner.toml"\n')
    (tmp_path / "inner.toml").write_text('[drivers.queue]\nplugin = "memory"\n')

    done = subprocess.run(
        [sys.executable, "-m", "kernel", "check"], check=False, cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode == INVALID
    assert "inner.toml:1" in done.stderr
    assert "keeps its queues in one process" in done.stderr


# --- what one asks of all of them -------------------------------------------------------------------------------------


COMMANDS = ("ps", "tree", "why", "plan --diff", "reload", "pause web", "resume web", "restart web", "log-level info")


async def test_what_is_asked_of_all_is_answered_in_text_and_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNEL_CONTROL_DIR", str(tmp_path / "run"))
    async with pair(tmp_path, WEB, SITE):
        for command in COMMANDS:
            for form in ([], ["--json"]):
                asked = [sys.executable, "-m", "kernel", *command.split(), *form]
                done = await trio.run_process(asked, capture_stdout=True, capture_stderr=True, check=False)

                assert (done.returncode, done.stderr) == (0, b""), command
                assert done.stdout, command
                assert not form or json.loads(done.stdout), command
