"""Names the line of the user's code at which a task or thread hangs."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import CodeType
from typing import Final

import trio

_OURS: Final = f"{Path(__file__).parent.parent}{os.sep}"
_TRIO: Final = f"{Path(trio.__file__).parent}{os.sep}"
_STDLIB: Final = sysconfig.get_paths()["stdlib"]
_INSTALLED: Final = (sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"])


def where(task: trio.lowlevel.Task, *, limit: int | None = None) -> str:
    """Return `file:line` of the innermost line of user code in a task or the tasks below it.

    Falls back to the innermost line of any code.

    Args:
        task: Of this event loop.
        limit: How many tasks are looked at; each takes some microseconds.
    """
    places = [place for one in islice(_with_children(task), limit) for place in _places(one)]
    return _best(places)


def where_in_thread(ident: int) -> str:
    """Return `file:line` of the innermost line of user code that a thread is in. May be called from any thread."""
    frames = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  there is no other way
    frame = frames.get(ident)
    places: list[tuple[CodeType, int]] = []
    while frame is not None:
        places.insert(0, (frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return _best(places)


def where_raised(error: BaseException) -> str:
    """Return `file:line` of the innermost line of user code that an exception came through; empty if it was not raised."""
    places: list[tuple[CodeType, int]] = []
    traceback = error.__traceback__
    while traceback is not None:
        places.append((traceback.tb_frame.f_code, traceback.tb_lineno))
        traceback = traceback.tb_next
    return _best(places) if places else ""


def _with_children(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _with_children(child)


def _places(task: trio.lowlevel.Task) -> Iterator[tuple[CodeType, int]]:
    for frame, line in task.iter_await_frames():
        yield frame.f_code, line


def _best(places: list[tuple[CodeType, int]]) -> str:
    for belongs in (_is_user_code, _is_no_machinery, _is_not_trio):
        for code, line in reversed(places):
            if belongs(code.co_filename):
                return f"{code.co_filename}:{line}"
    return f"{places[-1][0].co_filename}:{places[-1][1]}" if places else "unknown"


def _is_no_machinery(file: str) -> bool:
    return not file.startswith((_OURS, _TRIO, "<")) and not (
        file.startswith(_STDLIB) and not file.startswith(_INSTALLED)
    )


def _is_not_trio(file: str) -> bool:
    return not file.startswith(_TRIO)


def _is_user_code(file: str) -> bool:
    return _is_no_machinery(file) and not file.startswith(_INSTALLED)
