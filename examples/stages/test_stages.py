"""The lines of systemPY's README example come in its order."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
START = [
    "ON INIT",
    "\tPRE STARTUP",
    "\t\tON STARTUP",
    "\t\t\tCUSTOM BEFORE POST STARTUP",
    "\t\t\tPOST STARTUP",
]
STOP = [
    "\t\t\tCUSTOM BEFORE PRE SHUTDOWN",
    "\t\t\tPRE SHUTDOWN",
    "\t\tON SHUTDOWN",
    "\tPOST SHUTDOWN",
    "\tALSO AFTER POST SHUTDOWN",
    "\tAFTER ALSO AFTER POST SHUTDOWN",
    "ON EXIT",
]

RELOAD = [*STOP[:-1], *START[1:]]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_lines_come_in_the_order_of_the_readme(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "kernel", "run", "--log-format", "json", str(FOLDER / "kernel.toml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        started = [process.stdout.readline().rstrip("\n") for _ in START]
        process.send_signal(signal.SIGHUP)
        reloaded = [process.stdout.readline().rstrip("\n") for _ in RELOAD]
        process.send_signal(number)
        stopped, _ = process.communicate(timeout=30)
    finally:
        process.kill()

    assert started == START
    assert reloaded == RELOAD
    assert stopped.splitlines() == STOP
    assert process.returncode == 0
