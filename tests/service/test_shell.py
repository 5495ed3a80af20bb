"""Facts about `kernel shell`: what it takes from a pipe and from a terminal, what is open, and how it ends."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MANIFEST = """
[kernel]
name = "shop"
[drivers.queue]
plugin = "memory"
[drivers.orders]
plugin = "publisher"
driver = "queue"
protocol = "json"
[dispatchers.incoming]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "orders"
bindings = ["order.*"]
[workers.packer]
use = "packer:Packer"
dispatcher = "incoming"
"""
CODE = """
import trio
from kernel import handles
PACKED = trio.Event()
class Packer:
    @handles("order.*")
    async def pack(self, message):
        print("packed", message, flush=True)
        PACKED.set()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kernel.toml").write_text(MANIFEST)
    (tmp_path / "packer.py").write_text(CODE)
    return tmp_path


def shell(folder: Path, *words: str, typed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kernel", "shell", *words],
        cwd=folder,
        input=typed,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_lines_of_a_pipe_run_in_the_event_loop(folder: Path) -> None:
    done = shell(
        folder,
        typed="x = 20\nawait trio.sleep(0.01)\nx + 1\nfor i in range(2):\n    print(i)\n\npublish == orders.publish\n_\n",
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "21\n0\n1\nTrue\nTrue\n"


def test_what_fails_is_shown_and_the_rest_goes_on(folder: Path) -> None:
    done = shell(folder, typed="1 / 0\nawait what\n1 +\nprint('on')\n")

    assert done.returncode == 1
    assert done.stdout == "on\n"
    assert [line for line in done.stderr.splitlines() if "Error" in line] == [
        "ZeroDivisionError: division by zero",
        "NameError: name 'what' is not defined",
        "SyntaxError: invalid syntax",
    ]
    assert "shell.py" not in done.stderr


def test_a_block_that_nothing_follows_is_run(folder: Path) -> None:
    done = shell(folder, typed="for i in range(2):\n    print(i)")

    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n1\n", "")


@pytest.mark.parametrize("cut", ["await orders.publish('x',", "if True:\n    (1 +", "x = {"])
def test_what_is_cut_off_is_not_run_and_told(folder: Path, cut: str) -> None:
    done = shell(folder, typed=f"1 + 1\n{cut}")

    assert (done.returncode, done.stdout) == (1, "2\n")
    assert "the input ends inside of a statement, which is not run" in done.stderr


@pytest.mark.parametrize(
    ("given", "status", "said"), [("", 0, ""), ("3", 3, ""), ("'no stock'", 1, "no stock\n"), ("None", 0, "")]
)
def test_exit_ends_it_with_its_status(folder: Path, given: str, status: int, said: str) -> None:
    done = shell(folder, typed=f"import sys\nsys.exit({given})\nprint('on')\n")

    assert (done.returncode, done.stdout, done.stderr) == (status, "", said)


def test_sources_are_open_if_they_are_asked_for(folder: Path) -> None:
    done = shell(
        folder,
        "--all",
        typed='id = await publish("order.new", {"sku": "tea"})\nfrom packer import PACKED\nawait PACKED.wait()\n',
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "packed {'sku': 'tea'}\n"


def test_a_terminal_is_asked(folder: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "kernel", "shell"],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "HOME": str(folder), "TERM": "dumb"},
    )
    os.close(theirs)
    try:
        seen = read_until(ours, ">>> ")
        os.write(ours, b"6 * 7\n")
        seen += read_until(ours, "42\r\n>>> ")
        os.write(ours, b"\x04")
        status = process.wait(30)
    finally:
        process.kill()
        os.close(ours)

    assert "shop: queue, orders." in seen
    assert status == 0
    assert "6 * 7" in (folder / ".kernel_history").read_text()


def read_until(descriptor: int, text: str) -> str:
    """Read a terminal until it shows a text; the prompt comes when it is ready for more."""
    seen = ""
    while text not in seen:
        seen += os.read(descriptor, 1000).decode()
    return seen
