"""Facts about `kernel exec`: what is opened, how arguments are read, and how it ends."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio.testing

import kernel
from kernel._cli.cli import execute
from kernel._convert.folder import on_path
from kernel._plan.script import read_script
from kernel._service.script import ScriptRun
from kernel.testing import fake_context

CODE = '''
from __future__ import annotations
import os, sys, time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
import attrs, trio
from kernel.abc import Driver, Context

@attrs.frozen(kw_only=True)
class Store(Driver[str]):
    provides = str
    config: object
    context: Context
    @asynccontextmanager
    async def open(self):
        await trio.lowlevel.checkpoint()
        print("open", self.context.name, flush=True)
        yield self.context.name
        print("close", self.context.name, flush=True)

async def show(store7, day: int, *names: str, kind: Literal["green", "black"] = "green", dry: bool = False, size: float = 1.5):
    """Show what there is.

    With all that belongs to it.

    Args:
        day: Which day of
            the week.
        kind: What kind
            of tea.
        dry: Whether to look only.
    """
    print(store7, repr(day), names, kind, dry, size, flush=True)
    return day

def plain(store3: str, paths: list[int], *, where: Path):
    print(store3, paths, repr(where), trio.from_thread.run_sync(trio.current_time) > 0, flush=True)

async def fail():
    raise LookupError("no tea")

async def leave(): sys.exit(7)
async def leave_saying(): sys.exit("enough")
async def many(): return 300
async def told(): return True
async def text(): return "x"

async def hang(store1):
    print("hanging", flush=True)
    try:
        await trio.sleep_forever()
    finally:
        print("cancelled", flush=True)

def hang_in_thread(store1):
    print("hanging", flush=True)
    time.sleep(60)

async def hold(store1, how: str, seconds: float = 60.0):
    print("hanging", flush=True)
    if how == "block":
        time.sleep(seconds)
    else:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)

async def wants(context: Context, store1: int): ...
class NoFunction: ...
async def odd(what: Missing): ...
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exec")
    (folder / "stores.py").write_text(CODE)
    tables = "".join(f'[drivers.store{number}]\nuse = "stores:Store"\n' for number in range(10))
    loop = '[workers.loop]\nuse = "stores:hang"\n'
    (folder / "kernel.toml").write_text(f"{tables}depends = []\n{loop}")
    return folder


def script(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kernel", "exec", *words],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.slow
def test_one_of_ten_is_opened_and_arguments_are_what_their_annotations_say(folder: Path) -> None:
    done = script(folder, "kernel.toml", "stores:show", "3", "a", "b", "--kind", "black", "--dry", "--size=2")

    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == "open store7\nstore7 3 ('a', 'b') black True 2.0\nclose store7\n"


@pytest.mark.slow
def test_a_plain_function_runs_in_a_thread(folder: Path) -> None:
    done = script(folder, "stores:plain", "[1, 2]", "--where", "tea")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "open store3\nstore3 [1, 2] PosixPath('tea') True\nclose store3\n"


async def ran(folder: Path, name: str, *, deadline: float = math.inf) -> tuple[int, tuple[BaseException, ...]]:
    """Run a function of the folder in this process; return the status and what failed."""
    with on_path(folder):
        plan = kernel.resolve(kernel.load(folder / "kernel.toml", environ={}), kernel.discover())
        run = ScriptRun.of(plan, read_script(plan, f"stores:{name}"), {}, deadline=deadline)
        hub = kernel.EventHub()
        run.listen(hub)
        result = await kernel.serve(run.plan, log=fake_context("worker/x").log, hub=hub)
    return run.status(result), result.errors


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("fail", 1, LookupError),
        ("leave", 7, None),
        ("leave_saying", 1, SystemExit),
        ("many", 1, ValueError),
        ("told", 0, None),
        ("text", 0, None),
    ],
)
async def test_its_end_is_the_status(folder: Path, name: str, status: int, error: type[BaseException] | None) -> None:
    ended, errors = await ran(folder, name)

    assert ended == status
    assert [type(one) for one in errors] == ([] if error is None else [error])


async def test_it_is_cancelled_at_its_deadline(
    folder: Path, autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, _ = await ran(folder, "hang", deadline=100)

    assert ended == 3
    assert trio.current_time() == pytest.approx(100, abs=1)
    assert capsys.readouterr().out == "open store1\nhanging\ncancelled\nclose store1\n"


@pytest.mark.parametrize(
    ("name", "number", "status"), [("hang", signal.SIGINT, 130), ("hang_in_thread", signal.SIGTERM, 143)]
)
@pytest.mark.slow
def test_a_signal_cancels_it_and_closes_in_order(folder: Path, name: str, number: signal.Signals, status: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "kernel", "exec", f"stores:{name}"], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()

    assert process.returncode == status
    cancelled = ["cancelled"] if name == "hang" else []
    assert [*map(str.strip, lines), *out.split("\n")[:-1]] == ["open store1", "hanging", *cancelled, "close store1"]


@pytest.mark.parametrize(
    ("words", "numbers", "status", "said"),
    [
        (("shield",), [signal.SIGTERM], 143, "2 s after SIGTERM are over"),
        (("block",), [signal.SIGINT], 130, "2 s after SIGINT are over"),
        (("block", "--seconds=1"), [signal.SIGTERM], 143, ""),
        (("shield",), [signal.SIGTERM, signal.SIGINT], 143, "a second signal came"),
        (("block",), [signal.SIGINT, signal.SIGTERM], 130, "a second signal came"),
        (("shield", "--deadline=0.2"), [], 3, "2 s after its deadline are over"),
    ],
)
@pytest.mark.slow
def test_it_ends_in_time_whatever_it_does(
    folder: Path, words: tuple[str, ...], numbers: list[signal.Signals], status: int, said: str
) -> None:
    options = [word for word in words if "deadline" in word]
    command = [sys.executable, "-m", "kernel", "exec", *options, "kernel.toml", "stores:hold"]
    process = subprocess.Popen(
        [*command, *(word for word in words if word not in options)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["open store1\n", "hanging\n"]
        for number in numbers:
            process.send_signal(number)
            if len(numbers) > 1:
                time.sleep(0.4)  # what comes sooner is of the same Ctrl-C
        _, errors = process.communicate(timeout=20)  # less than the grace period
    finally:
        process.kill()

    assert process.returncode == status
    assert (said in errors) if said else "over" not in errors
    assert not said or "worker/hold" in errors or "blocked at" in errors


HELP = """\
Usage: kernel exec kernel.toml stores:show [OPTIONS] DAY [NAMES]...

  Show what there is.

  With all that belongs to it.

Options:
"""


def test_its_help_is_its_docstring(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)

    status = execute(["exec", "stores:show", "--help"])

    out = capsys.readouterr().out
    assert status == 0
    assert out.startswith(HELP)
    assert "What kind of tea." in out
    assert "--dry / --no-dry" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["stores:show"], "Missing argument 'DAY'"),
        (["stores:show", "x"], "Invalid value for 'DAY': must be an integer"),
        (["stores:show", "1", "--kind", "red"], 'Invalid value for \'--kind\': must be "green" or "black"'),
        (["stores:plain", "[1]"], "Missing option '--where'"),
        (["kernel.toml"], "Missing argument 'MODULE:FUNCTION'"),
        (["stores:shw"], 'stores:shw: "stores" (from stores.py) has no "shw"; did you mean "show"'),
        (["stores:NoFunction"], "stores:NoFunction: must name a function"),
        (["stores:wants"], 'parameter "store1" of stores:wants wants int'),
        (["stores:odd", "1"], 'the annotation of "what" of stores:odd cannot be resolved'),
        (["--set", "drivers.store1.x=1", "stores:show"], "--set: [drivers.store1].x: unknown key"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_opened(
    folder: Path, words: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)

    status = execute(["exec", *words])

    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert expected in err
