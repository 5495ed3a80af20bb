"""Somebody who reads a document from top to bottom, writes its files, types its commands, and compares what is printed.

A file is a block of code behind a line that ends in "`name`:". A command is a line of a `console` block that begins with
`$ `; the lines below it are what it prints, in this order, where `...` stands for anything. A command that runs a service
goes on until the document says Ctrl-C, or runs the next one, or it has ended by itself.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, final

import attrs

_STEP: Final = re.compile(
    r"`(?P<name>[\w./-]+)`:\n\n```\w+\n(?P<content>.*?)^```"
    r"|^```console\n(?P<console>.*?)^```"
    r"|(?P<stop>Ctrl-C)",
    re.DOTALL | re.MULTILINE,
)
_SERVES: Final = re.compile(r"\bkernel run\b(?!.* --help)")
_ID: Final = re.compile(r'"id":"(\w+)"')
_WITHIN: Final = 60.0
"""Seconds that a command may take, or a service until it has printed what it should."""


@final
@attrs.frozen
class Command:
    """A line to type, and what it prints."""

    line: str
    printed: str

    def is_met(self, output: str, *, in_order: bool = True) -> bool:
        """Whether what should be printed was, line by line; of several tasks that print, the order is not known."""
        lines = [re.escape(line).replace(r"\.\.\.", ".*") for line in self.printed.splitlines()]
        if not in_order:
            return all(re.search(f"^{line}$", output, re.MULTILINE) for line in lines)
        return re.search(r"\n(?:.*\n)*?".join(f"{line}(?=\n)" for line in lines), output + "\n") is not None


@final
@attrs.define
class Reader:
    """One reader at one shell."""

    folder: Path
    environ: Mapping[str, str]
    skipped: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Command -> why it is not typed here."""
    statuses: Mapping[str, int] = attrs.field(factory=dict[str, int])
    """Command -> exit status, where that is not 0."""
    before: Mapping[str, Callable[[Path], None]] = attrs.field(factory=dict[str, Callable[[Path], None]])
    """Command -> what the text says in words that is to be done in the folder before it."""
    typed: int = attrs.field(default=0, init=False)
    """How many commands were."""
    _service: subprocess.Popen[bytes] | None = attrs.field(default=None, init=False)
    _serving: Command | None = attrs.field(default=None, init=False)
    _last_id: str = attrs.field(default="", init=False)

    def read(self, document: Path) -> None:
        """Do what a document says; at its end, nothing runs any more."""
        try:
            for step in _STEP.finditer(document.read_text(encoding="utf-8")):
                self._do(step)
            self.stop()
        finally:
            if self._service is not None:
                with suppress(ProcessLookupError):
                    os.killpg(self._service.pid, signal.SIGKILL)  # uv, and what it runs
                self._service.wait()

    def type(self, line: str) -> str:
        """Type a command; return what it printed. One that runs a service is stopped once that is ready."""
        if _SERVES.search(line):
            self._serve(Command(line, ""))
            self.stop()
            return self._said()
        return self._run(Command(line, ""))

    def stop(self) -> None:
        """Press Ctrl-C, if a service runs."""
        service, self._service = self._service, None
        if service is not None and self._serving is not None:
            service.send_signal(signal.SIGINT)  # to uv, which passes it on; a terminal would send it to all
            status = service.wait(_WITHIN)
            assert status == self.statuses.get(self._serving.line, 0), (self._serving.line, status, self._said())

    def _do(self, step: re.Match[str]) -> None:
        if step["name"]:
            path = self.folder / step["name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step["content"], encoding="utf-8")
        elif step["stop"]:
            self.stop()
        else:
            for command in commands_of(step["console"]):
                self._type(command)

    def _type(self, command: Command) -> None:
        if command.line in self.skipped:
            return
        if command.line in self.before:
            self.before[command.line](self.folder)
        self.typed += 1
        if _SERVES.search(command.line):
            self.stop()
            self._serve(command)
        else:
            self._run(command)

    def _run(self, command: Command) -> str:
        line = command.line.replace("/ID", f"/{self._last_id}")
        done = subprocess.run(
            ["bash", "-c", f'{line}; status=$?; pwd >"$WHERE"; exit $status'],
            cwd=self.folder,
            env={**self.environ, "WHERE": str(self._where)},
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=10 * _WITHIN,
        )
        self.folder = Path(self._where.read_text(encoding="utf-8").strip())
        self._last_id = next(iter(_ID.findall(done.stdout)), self._last_id)
        assert done.returncode == self.statuses.get(command.line, 0), (command.line, done.returncode, done.stdout)
        assert command.is_met(done.stdout), (command, done.stdout)
        return done.stdout

    def _serve(self, command: Command) -> None:
        first, _, last = command.line.rpartition(" && ")
        if first:
            self._run(Command(first, ""))
        with self._output.open("wb") as output:
            self._service = subprocess.Popen(
                ["bash", "-c", f"exec {last}"],
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._serving = command
        until = time.monotonic() + _WITHIN
        ended = False
        while not ("is ready after" in self._said() and command.is_met(self._said(), in_order=False)):
            assert time.monotonic() < until, (command, self._said())
            assert not ended, (command, self._said())
            ended = self._service.poll() is not None
            time.sleep(0.05)

    def _said(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace")

    @property
    def _output(self) -> Path:
        return Path(self.environ["READER"]) / "output"

    @property
    def _where(self) -> Path:
        return Path(self.environ["READER"]) / "where"


def commands_of(block: str) -> Iterator[Command]:
    """Return the commands of a `console` block; a block of root's, whose lines begin with `# `, has none."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        line, _, printed = part.partition("\n")
        yield Command(line, printed.strip("\n"))
