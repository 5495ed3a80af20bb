"""Children that die at their work, one after the other: every message comes to its end, and nobody is left.

`KERNEL_POOL_KILLS=1000` has as many of them die; without it, a few.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections import Counter
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import pytest
from kernel_pools import ProcessDiedError

from kernel import Ack, DeadLetter, handles
from kernel.testing import Patience, open_kernel

from .conftest import manifest

KILLS = int(os.environ.get("KERNEL_POOL_KILLS", "6"))
HOW = ("exit", "segfault", "kill")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 + 5 * KILLS)]


class Dying:
    """Dies with its process, always or the first time; leaves a file for each death."""

    @handles("always")
    def always(self, order: dict[str, str]) -> None:
        die(Path(order["folder"]), order["how"])

    @handles("once")
    def once(self, order: dict[str, str]) -> None:
        mark = Path(order["folder"], order["name"])
        if not mark.exists():
            mark.touch()
            die(mark.parent, order["how"])


def die(folder: Path, how: str) -> None:
    (folder / f"died.{os.getpid()}.{uuid.uuid4().hex}").touch()
    assert current_process().name != "MainProcess"
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGSEGV if how == "segfault" else signal.SIGKILL)


def children() -> set[int]:
    """The child processes that there are, zombies among them."""
    return {int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


async def test_every_message_comes_to_its_end_and_no_process_is_left(tmp_path: Path) -> None:
    before = children()
    always, once = KILLS // 3, KILLS - 2 * (KILLS // 3)  # with two attempts, the first ones die twice
    tables: dict[str, Any] = manifest(
        {"plugin": "process_pool", "processes": 2},
        {"use": f"{__name__}:Dying", "retry": {"attempts": 2, "backoff_initial": 0.0}},
        concurrency=4,
    )
    async with open_kernel(
        tables, expected=ProcessDiedError, patience=Patience(real_seconds=60.0 + 5 * KILLS)
    ) as service:
        for number in range(always + once):
            subject = "always" if number < always else "once"
            order = {"folder": str(tmp_path), "how": HOW[number % 3], "name": f"once.{number}"}
            await service.publish("publisher", subject, order)
        await service.wait_settled(2 * (always + once))
        outcomes = Counter(type(event.outcome) for event in service.settled)

    assert (outcomes[DeadLetter], outcomes[Ack]) == (always, once)
    assert sum(name.startswith("died.") for name in os.listdir(tmp_path)) == KILLS
    assert children() <= before
