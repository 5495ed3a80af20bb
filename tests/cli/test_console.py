"""Output that nobody reads any more."""

from __future__ import annotations

import errno
import io
import os
import pty
import sys
from typing import Any

import pytest

from kernel._cli.console import unheard_is_lost

from .test_cli_run import read_until, running


def stream_on(descriptor: int, **given: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(descriptor, "w")), **given)


def put(text: str, name: str = "stdout") -> None:
    """Do what `print` does."""
    getattr(sys, name).write(f"{text}\n")
    getattr(sys, name).flush()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("given", [{"line_buffering": True}, {"write_through": True}, {}])
def test_a_closed_pipe_takes_what_is_printed(monkeypatch: pytest.MonkeyPatch, name: str, given: dict[str, Any]) -> None:
    read, write = os.pipe()
    stream = stream_on(write, encoding="utf-8", **given)
    monkeypatch.setattr(sys, name, stream)
    os.close(read)
    with unheard_is_lost():
        for _ in range(3):
            put("x" * 10_000, name)

    assert getattr(sys, name) is stream
    stream.close()


def test_a_terminal_that_is_gone_takes_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    main, other = pty.openpty()
    stream = stream_on(other, encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    os.close(main)
    with unheard_is_lost():
        put("x")

    stream.close()


def test_a_full_disk_is_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = stream_on(os.open("/dev/full", os.O_WRONLY), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)

    with unheard_is_lost(), pytest.raises(OSError, match="No space") as caught:
        put("x")

    assert caught.value.errno == errno.ENOSPC
    stream.close()


def test_what_somebody_reads_arrives_in_order_and_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    stream = stream_on(write, encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    put("before")
    with unheard_is_lost():
        put("während")
    put("after")
    stream.close()

    assert os.read(read, 100) == "before\nwährend\nafter\n".encode("latin-1")
    os.close(read)


def test_streams_that_are_no_files_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", memory := io.StringIO())
    with unheard_is_lost():
        assert sys.stdout is None
        assert sys.stderr is memory


SERVICE = """
[kernel]
grace_period = 5.0
drain_timeout = 1.0
[drivers.queue]
plugin = "memory"
stop_timeout = 0.5
[drivers.events]
plugin = "publisher"
driver = "queue"
protocol = "json"
stop_timeout = 0.5
[dispatchers.work]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "work"
bindings = ["#"]
stop_timeout = 0.5
[workers.prints]
use = "tea:Prints"
dispatcher = "work"
stop_timeout = 0.5
[workers.feed]
use = "tea:feed"
depends = ["dispatcher/work"]
stop_timeout = 0.5
"""
CODE = """
import pathlib, trio
from kernel import handles
class Prints:
    @handles("#")
    async def on(self, payload):
        print("x" * 10_000, flush=True)
async def feed(events):
    while not pathlib.Path("closed").exists():
        await trio.sleep(0.01)
    for number in range(20):
        await events.publish("a.b", number)
    await trio.sleep_forever()
"""


@pytest.mark.slow
def test_a_handler_that_prints_to_nobody_costs_no_message(folder: Any) -> None:
    """`kernel run | head -1`."""
    (folder / "kernel.toml").write_text(SERVICE)
    (folder / "tea.py").write_text(CODE)
    with running("--log-level", "debug") as process:
        read_until(process, "worker/prints")
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        (folder / "closed").touch()
        told: list[str] = []
        while sum(" done worker=worker/prints" in line for line in told) < 20:
            told.append(process.stderr.readline())
            assert told[-1], "".join(told)
        process.terminate()
        told.append(process.stderr.read())

    assert not [line for line in told if "BrokenPipe" in line or "dead-lettered" in line or "tries again" in line]
