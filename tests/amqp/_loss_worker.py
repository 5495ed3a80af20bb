"""The worker whose effects are counted: it takes its time, and then writes down that it is done."""

from __future__ import annotations

import os
from typing import TypedDict

import attrs
import trio

from kernel import handles


class Task(TypedDict):
    """One message."""

    id: int
    seconds: float


@attrs.frozen(kw_only=True)
class WorkConfig:
    """The table of the worker."""

    effects: str
    """The file that effects are appended to."""


class Work:
    """Handles one message after the other, or many at once."""

    def __init__(self, config: WorkConfig) -> None:
        self._file = os.open(config.effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @handles("#")
    async def work(self, task: Task) -> None:
        await trio.sleep(task["seconds"])
        os.write(self._file, b"%09d\n" % task["id"])
