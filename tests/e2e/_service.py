"""`kernel run` as a process of its own, in a directory of the test's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

GRACE = 1.5
"""Seconds of `grace_period` in every manifest here."""
DRAIN = 0.3
"""Seconds of `drain_timeout`."""
MARGIN = 1.0
"""Seconds after the grace period in which a process must be gone, whatever its code does."""
PATIENCE = 20.0
"""Seconds after which a test that waits for a process has failed: machines may be busy."""

KERNEL = f"""
[kernel]
name = "e2e"
grace_period = {GRACE}
drain_timeout = {DRAIN}
"""
MESSAGING = """
[drivers.queue]
plugin = "memory"
stop_timeout = 0.05
[drivers.events]
plugin = "publisher"
driver = "queue"
protocol = "json"
stop_timeout = 0.05
[dispatchers.work]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "work"
bindings = ["#"]
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
FEED = """
async def feed(events: Any) -> None:
    await events.publish("work.one", 1)
    await trio.sleep_forever()
"""
LOOP = """
[workers.subject]
use = "workers:run"
stop_timeout = 0.05
"""
HEAD = """
from __future__ import annotations
import logging, os, signal, subprocess, sys, threading, time
from typing import Any
import trio
from kernel import handles
def say(text: object) -> None:
    print(text, flush=True)
"""


@attrs.define(eq=False)
class Service:
    """A process that runs `kernel run`, and what it has written so far."""

    process: trio.Process
    directory: Path
    texts: dict[str, str] = attrs.field(factory=lambda: {"out": "", "err": ""}, init=False)
    _open: int = attrs.field(default=2, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def out(self) -> str:
        return self.texts["out"]

    @property
    def err(self) -> str:
        return self.texts["err"]

    def place(self, mark: str = "# here") -> str:
        """Return `file:line` of the line of the service's code with a mark."""
        path = self.directory / "workers.py"
        [number] = [number for number, line in enumerate(path.read_text().splitlines(), 1) if mark in line]
        return f"{path}:{number}"

    async def wait_said(self, text: str, *, where: str = "err") -> None:
        """Wait until it has written a text."""
        with trio.move_on_after(PATIENCE):
            while text not in self.texts[where] and self._open:
                await self._changed.wait()
        assert text in self.texts[where], f"{text!r} was not written; out:\n{self.out}\nerr:\n{self.err}"

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    async def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; return the exit status and the seconds that it took."""
        began = trio.current_time()
        self.send(number)
        return await self.wait(), trio.current_time() - began

    async def wait(self) -> int:
        """Wait for the end of the process and of its output."""
        with trio.move_on_after(PATIENCE):
            return await self.process.wait()
        raise AssertionError(f"it did not end; out:\n{self.out}\nerr:\n{self.err}")

    async def read(self, stream: trio.abc.ReceiveStream, where: str) -> None:
        async for chunk in stream:
            self.texts[where] += chunk.decode()
            self._tell()
        self._open -= 1
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def write(directory: Path, manifest: str, code: str = "") -> Path:
    """Write a manifest and the code of its components; returns the manifest's path."""
    (directory / "workers.py").write_text(HEAD + textwrap.dedent(code))
    path = directory / "kernel.toml"
    path.write_text(KERNEL + textwrap.dedent(manifest))
    return path


def command(manifest: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "kernel", "run", str(manifest), *options]


def _unmeasured(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what starts coverage: how long a stop takes must not be the tracer's doing."""
    return {name: value for name, value in environ.items() if name != "COVERAGE_PROCESS_START"}


@asynccontextmanager
async def launched(
    directory: Path,
    manifest: str,
    code: str = "",
    *options: str,
    environ: Mapping[str, str] | None = None,
    is_measured: bool = False,
) -> AsyncIterator[Service]:
    """Start a service while inside; whatever it does, it is gone afterwards.

    Coverage looks into it if it `is_measured`, which takes time.
    """
    path = write(directory, manifest, code)
    given = os.environ if environ is None else environ
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            command(path, *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(given) if is_measured else _unmeasured(given),
        )
        service = Service(process, directory)
        assert process.stdout is not None
        assert process.stderr is not None
        nursery.start_soon(service.read, process.stdout, "out")
        nursery.start_soon(service.read, process.stderr, "err")
        try:
            yield service
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            nursery.cancel_scope.cancel()  # its own child processes may hold its output open


@asynccontextmanager
async def running(directory: Path, manifest: str, code: str = "", *options: str) -> AsyncIterator[Service]:
    """`launched`, and ready."""
    async with launched(directory, manifest, code, *options) as service:
        await service.wait_said("kernel: ready")
        yield service
