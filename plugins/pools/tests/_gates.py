"""Modules whose import, or whose worker's object, waits in a process until a test lets it go on."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from kernel.abc import PlainWorker

_NUMBERS = itertools.count()
_SOURCE = """
import os
import pathlib
import time
from multiprocessing import parent_process

FOLDER = pathlib.Path({folder!r})


def wait(for_):
    if parent_process() is not None:
        with open(FOLDER / "began", "a") as file:
            file.write(f"{{os.getpid()}}\\n")
        while not (FOLDER / for_).exists():
            time.sleep(0.01)


if {at!r} == "import":
    wait("open")


class Worker:
    def __init__(self):
        if {at!r} == "object":
            wait("open")
        if (FOLDER / "raises").exists():
            raise ValueError("no paper")

    def __call__(self, payload):
        return os.getpid()
"""


@attrs.frozen
class Gate:
    """A module that cannot be imported in a process before it is open."""

    module: str
    folder: Path

    @property
    def use(self) -> str:
        return f"{self.module}:Worker"

    @property
    def worker(self) -> PlainWorker:
        cls: Any = importlib.import_module(self.module).Worker
        return PlainWorker(id="worker/w", use=cls, is_function=False, arguments={})

    def open(self) -> None:
        (self.folder / "open").touch()

    def began(self) -> list[int]:
        """The processes that have come to it."""
        file = self.folder / "began"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    async def wait_began(self, number: int = 1) -> int:
        with trio.fail_after(60):
            while len(self.began()) < number:  # noqa: ASYNC110  it happens in another process
                await trio.sleep(0.01)
        return self.began()[number - 1]


def gate(folder: Path, monkeypatch: pytest.MonkeyPatch, at: str = "import") -> Gate:
    """Write such a module. It waits in the import, or in the constructor."""
    module = f"gated_{next(_NUMBERS)}"
    (folder / f"{module}.py").write_text(_SOURCE.format(folder=str(folder), at=at))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, module, raising=False)
    return Gate(module, folder)
