"""Finds what a test left behind: tasks, descriptors, threads, child processes, deliveries that nobody settled."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, final

import attrs
import trio

_DESCRIPTORS: Final = Path("/proc/self/fd")
_PATIENCE: Final = 100
"""Checkpoints that tasks which were cancelled have to end, and what they used to be closed."""
_LAST_STEPS: Final = 1.0
"""Seconds that a thread has to end which has told that it does: it tells so while it still runs."""


@final
@attrs.frozen(repr=False)
class _Held:
    """What the process holds, each with a name that says what it is."""

    descriptors: dict[str, str]
    threads: frozenset[threading.Thread]
    children: frozenset[str]


@contextmanager
def no_leaks() -> Generator[None]:
    """Fail if the process holds more descriptors, threads or child processes after the body than before.

    Threads that trio keeps for later use do not count, nor does the process that Python keeps beside those of
    `multiprocessing`, which ends with this one; a thread that is about to end has a second for it.

    Raises:
        AssertionError: naming each thing that was left.
    """
    before = _held()
    yield
    _expect_no_more(before)


def _expect_no_more(before: _Held) -> None:
    after = _held()
    left = _left(before, after)
    if left:  # what only a cycle holds is garbage, not a leak; but to collect it takes long, and checks come here often
        gc.collect()
        for thread in after.threads - before.threads:
            if thread.is_alive():
                thread.join(_LAST_STEPS)
        left = _left(before, _held())
    if left:
        raise AssertionError("left behind: " + "; ".join(left))


@asynccontextmanager
async def no_task_leaks() -> AsyncGenerator[None]:
    """Fail if there are more tasks after the body than before; includes `no_leaks`.

    Cancellation: Is a checkpoint on exit.

    Raises:
        AssertionError: naming each thing that was left.
    """
    before, held = _tasks(), _held()
    yield
    for _ in range(_PATIENCE):
        if _tasks() <= before and not _left(held, _held()):
            break
        await trio.lowlevel.checkpoint()
    _expect_no_more(held)
    left = sorted(task.name for task in _tasks() - before)
    if left:
        raise AssertionError(f"tasks left behind: {', '.join(left)}")


def _left(before: _Held, after: _Held) -> list[str]:
    opened = {key: name for key, name in after.descriptors.items() if before.descriptors.get(key) != name}
    return [
        *(f"descriptor {key} ({name})" for key, name in opened.items()),
        *(f"thread {thread.name}" for thread in after.threads - before.threads),
        *(f"child process {child}" for child in sorted(after.children - before.children)),
    ]


def _held() -> _Held:
    threads = (thread for thread in threading.enumerate() if not thread.name.startswith("Trio thread"))
    child, descriptor = _tracker()
    opened = {key: name for key, name in _descriptors().items() if key != descriptor}
    return _Held(opened, frozenset(threads), _children() - {child})


def _tracker() -> tuple[str, str]:
    """Return the process and the descriptor of Python's resource tracker, which stays once a process was started."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    tracker = getattr(module, "_resource_tracker", None)
    return str(getattr(tracker, "_pid", None)), str(getattr(tracker, "_fd", None))


def _descriptors() -> dict[str, str]:
    names: dict[str, str] = {}
    for entry in os.listdir(_DESCRIPTORS) if _DESCRIPTORS.exists() else ():
        try:
            names[entry] = os.readlink(_DESCRIPTORS / entry)
        except OSError:  # the descriptor that the listing itself used
            continue
    return names


def _children() -> frozenset[str]:
    tasks = Path("/proc/self/task")
    lists = [task / "children" for task in tasks.iterdir()] if tasks.exists() else []
    return frozenset(child for one in lists if one.exists() for child in one.read_text().split())


def _tasks() -> set[trio.lowlevel.Task]:
    found: set[trio.lowlevel.Task] = set()
    root = trio.lowlevel.current_root_task()
    todo = [root] if root is not None else []
    while todo:
        task = todo.pop()
        found.add(task)
        todo.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return found
