"""Starts a peer, a script in an environment of its own, and talks with it in JSON lines."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, final

import attrs
import trio

PEERS: Final = Path(__file__).parent / "peers"
PATIENCE: Final = 20.0
"""Seconds that a line may take; a peer takes about one to start on a machine that does nothing else."""


@final
@attrs.define(eq=False)
class Peer:
    """A running script of `peers`. What it says is kept until somebody asks for it."""

    name: str
    process: subprocess.Popen[bytes]
    _log: IO[bytes]
    _said: list[dict[str, Any]] = attrs.field(factory=list, init=False)
    _rest: bytes = attrs.field(default=b"", init=False)
    _is_ready: bool = attrs.field(default=False, init=False)

    async def wait_ready(self) -> None:
        """Wait until it has connected and declared what it declares."""
        if not self._is_ready:
            await self._next(lambda line: "ready" in line)
            self._is_ready = True

    async def line(self, matching: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first line that matches, of those said and not asked for, or yet to come."""
        await self.wait_ready()
        return await self._next(matching)

    async def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Return its answer to a command: a line with `result` or `error`."""
        await self.wait_ready()
        assert self.process.stdin is not None
        self.process.stdin.write((json.dumps({"do": do, **arguments}) + "\n").encode())
        self.process.stdin.flush()
        return await self._next(lambda line: "result" in line or "error" in line)

    async def get(self, do: str, **arguments: Any) -> Any:
        """Return the result of a command that must have one."""
        answer = await self.ask(do, **arguments)
        assert "error" not in answer, f"{self.name}: {do} {arguments}: {answer}"
        return answer["result"]

    async def take(self, key: str, seconds: float = 0.1) -> list[dict[str, Any]]:
        """Return the lines with that key that nobody has asked for, waiting a little for some."""
        with trio.move_on_after(seconds):
            while not any(key in line for line in self._said):
                await self._read()
        taken = [line for line in self._said if key in line]
        self._said = [line for line in self._said if key not in line]
        return taken

    def ask_to_end(self) -> None:
        """Close its input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self) -> None:
        """See to it that nothing of it is left; what was asked to end may do so in its own way for a while."""
        assert self.process.stdout is not None
        self.ask_to_end()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(3)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self._log.close()

    async def _next(self, matching: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        with trio.move_on_after(PATIENCE):
            while True:
                for line in self._said:
                    if matching(line):
                        self._said.remove(line)
                        return line
                await self._read()
        raise AssertionError(f"{self.name} did not say in {PATIENCE} s what it should; {self._told()}")

    async def _read(self) -> None:
        assert self.process.stdout is not None
        await trio.lowlevel.wait_readable(self.process.stdout)
        received = os.read(self.process.stdout.fileno(), 65536)
        if not received:
            raise AssertionError(f"{self.name} has ended; {self._told()}")
        *lines, self._rest = (self._rest + received).split(b"\n")
        self._said += map(json.loads, lines)

    def _told(self) -> str:
        self._log.seek(0)
        return f"it said {self._said}, and on the error output:\n{self._log.read()[-3000:].decode(errors='replace')}"


def start(script: str, *arguments: str) -> Peer:
    """Start a script of `peers`; it may not be ready yet."""
    log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the peer
    process = subprocess.Popen(
        [python_of(script), str(PEERS / script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"},
    )
    return Peer(script.removesuffix(".py"), process, log)


@functools.cache
def python_of(script: str) -> str:
    """Return the interpreter of a script's environment, which is built if need be."""
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "the peers need uv to build their environments: pip install uv"
    environ = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "UV_PROJECT"}}
    path = str(PEERS / script)
    for command in (["sync", "--quiet", "--script", path], ["python", "find", "--script", path]):
        ran = subprocess.run([uv, *command], capture_output=True, text=True, env=environ, check=False)
        assert ran.returncode == 0, f"the environment of {script} cannot be built: {ran.stderr}"
    return ran.stdout.strip()
