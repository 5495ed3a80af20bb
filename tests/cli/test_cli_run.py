"""Facts about services that the command runs: their output, their end, and terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel._cli.console import look_of

from ._service import PATIENCE, kernel

# --- output that cannot be written --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_reader_that_goes_away_changes_nothing(folder: Path) -> None:
    """`kernel plan | head -1`, where head is gone already."""
    read, write = os.pipe()
    os.close(read)

    done = subprocess.run(
        [sys.executable, "-m", "kernel", "plan"], stdout=write, stderr=subprocess.PIPE, check=False, timeout=PATIENCE
    )

    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_output_that_is_lost_is_an_error(folder: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kernel", "plugins"], stdout=full, stderr=subprocess.PIPE, check=False
        )

    assert done.returncode == 1
    assert done.stderr == b"kernel: standard output cannot be written: No space left on device\n"


@pytest.mark.slow
def test_closed_streams_change_no_status(folder: Path) -> None:
    command = f"{sys.executable} -m kernel check >&- 2>&-"

    assert subprocess.run(command, shell=True, check=False).returncode == 0


# --- run ----------------------------------------------------------------------------------------------------------


@contextmanager
def running(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "kernel", "run", *arguments],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout
    lines: list[str] = []
    while text not in "".join(lines):
        line = process.stdout.readline()
        assert line, "".join(lines)
        lines.append(line)
    return "".join(lines)


@pytest.mark.slow
def test_a_service_prints_its_tree_once_it_is_up_and_stops_cleanly(folder: Path) -> None:
    with running() as process:
        out = read_until(process, "worker/loop")
        process.send_signal(signal.SIGTERM)
        rest, err = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0
    assert re.fullmatch(
        r"shop is ready after \d+\.\d\d s\n├─ driver/queue  ready\n└─ worker/loop   ready\n", out + rest
    )
    assert "\x1b" not in err
    assert re.search(r"kernel: stopped status=0", err)


@pytest.mark.slow
def test_a_log_in_json_is_all_there_is(folder: Path) -> None:
    with running("--log-format", "json") as process:
        assert process.stderr
        records = [json.loads(process.stderr.readline())]
        while records[-1]["event"] != "ready" or records[-1]["component"] != "kernel":
            records.append(json.loads(process.stderr.readline()))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, out) == (0, "")
    assert json.loads(err.splitlines()[-1])["event"] == "stopped"


def run_never_restarted(use: str) -> subprocess.CompletedProcess[str]:
    loop = ("--set", f'workers.loop.use="{use}"', "--set", "workers.loop.restart.policy=never")
    return kernel("run", *loop, "--log-level=error")


@pytest.mark.slow
def test_a_failure_is_status_1_and_a_line(folder: Path) -> None:
    done = run_never_restarted("tea:fail")

    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("kernel: failed: OSError: no tea")


@pytest.mark.slow
def test_what_many_tasks_failed_of_is_said_once(folder: Path) -> None:
    done = run_never_restarted("tea:fail_together")

    [line] = [line for line in done.stderr.splitlines() if line.startswith("kernel: failed:")]
    assert done.returncode == 1
    assert line.startswith("kernel: failed: OSError: no tea")
    assert line.endswith("(3 times)")


@pytest.mark.slow
def test_a_thread_that_is_left_does_not_hold_the_process(folder: Path) -> None:
    done = kernel(
        "run",
        "--set",
        'workers.loop.use="tea:leave_a_thread"',
        "--set",
        "workers.loop.restart.policy=on_failure",
        "--set",
        "drivers.queue.enabled=false",
    )

    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == "kernel: ending the process although threads still run: tea-thread"


@pytest.mark.slow
def test_a_manifest_that_cannot_run_is_status_2(folder: Path) -> None:
    done = kernel("run", "nothing.toml")

    assert (done.returncode, done.stdout, done.stderr) == (2, "", "nothing.toml: no such file\n")


@pytest.mark.slow
def test_a_service_does_not_mind_that_nobody_reads(folder: Path) -> None:
    with running() as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        while "kernel: ready" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        err = process.stderr.read()
        process.wait(timeout=PATIENCE)

    assert process.returncode == 0
    assert "Traceback" not in err


# --- terminals ----------------------------------------------------------------------------------------------------


def on_terminal(*arguments: str, until: str, **environ: str) -> tuple[int, str]:
    """Run a command on a terminal of its own, and ask it to stop when it has printed something."""
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "kernel", *arguments],
        env={**os.environ, "TERM": "xterm-256color", **environ},
        stdin=other,
        stdout=other,
        stderr=other,
    )
    os.close(other)
    shown = b""
    asked = False
    with process:
        while chunk := read_terminal(main):
            shown += chunk
            if until in shown.decode(errors="replace") and not asked:
                asked = True
                process.send_signal(signal.SIGTERM)
    os.close(main)
    return process.returncode, shown.decode()


def read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


@pytest.mark.slow
def test_a_terminal_shows_the_tree_in_colour(folder: Path) -> None:
    status, shown = on_terminal("run", until="is ready after")

    assert status == 0
    assert re.search(r"worker/loop\s+\x1b\[\S*32m\S*ready", shown)
    assert "\x1b[?25h" in shown, "the cursor is shown again"
    assert shown.count("is ready after") == 1


@pytest.mark.slow
def test_no_color_takes_colours_off_a_terminal(folder: Path) -> None:
    status, shown = on_terminal("run", until="is ready after", NO_COLOR="1")

    assert status == 0
    assert "worker/loop" in shown
    assert not re.search(r"\x1b\[[0-9;]*m", shown)


@pytest.mark.slow
def test_force_color_puts_colours_into_a_pipe(folder: Path) -> None:
    done = kernel("plan", FORCE_COLOR="1")

    assert done.stdout.startswith("\x1b[1mshop (kernel.toml)")


class Stream:
    def __init__(self, *, terminal: bool) -> None:
        self._terminal = terminal
        self.closed = False

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("terminal", "environ", "colour", "live"),
    [
        (True, {"TERM": "xterm"}, True, True),
        (True, {"TERM": "dumb"}, False, False),
        (True, {}, False, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        (False, {"TERM": "xterm"}, False, False),
        (False, {"FORCE_COLOR": "1"}, True, False),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_what_a_stream_can_show(terminal: bool, environ: dict[str, str], colour: bool, live: bool) -> None:
    look = look_of(Stream(terminal=terminal), environ)  # type: ignore[arg-type]

    assert (look.colour, look.live) == (colour, live)


def test_a_closed_stream_shows_nothing() -> None:
    assert not look_of(None, {"TERM": "xterm"}).live
