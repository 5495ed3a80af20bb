"""Naming the line at which a task or thread hangs."""

from __future__ import annotations

import json
import linecache
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from kernel._core.stacks import where, where_in_thread, where_raised


def line_of(place: str) -> str:
    file, _, number = place.rpartition(":")
    return linecache.getline(file, int(number)).strip()


async def hangs() -> None:
    await trio.sleep_forever()  # the line


async def has_a_child_that_hangs() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hangs)


async def task_of(code: Callable[..., Any], nursery: trio.Nursery) -> trio.lowlevel.Task:
    nursery.start_soon(code)
    await trio.testing.wait_all_tasks_blocked()
    [task] = nursery.child_tasks
    return task


async def test_a_task_is_at_the_innermost_line_of_user_code() -> None:
    async with trio.open_nursery() as nursery:
        place = where(await task_of(hangs, nursery))
        nursery.cancel_scope.cancel()

    assert line_of(place) == "await trio.sleep_forever()  # the line"


async def test_a_task_that_waits_for_its_children_is_where_they_are() -> None:
    async with trio.open_nursery() as nursery:
        place = where(await task_of(has_a_child_that_hangs, nursery))
        nursery.cancel_scope.cancel()

    assert line_of(place) == "await trio.sleep_forever()  # the line"


async def test_a_task_without_user_code_is_at_its_innermost_line() -> None:
    async with trio.open_nursery() as nursery:
        place = where(await task_of(trio.sleep_forever, nursery))
        nursery.cancel_scope.cancel()

    assert "trio" in place.rpartition(":")[0]


@attrs.define(eq=False)
class FakeTask:
    """A task whose stack is made up."""

    files: list[str]
    child_nurseries: list[Any] = attrs.field(factory=list)

    def iter_await_frames(self) -> Generator[tuple[Any, int], None, None]:
        for number, file in enumerate(self.files):
            frame: Any = type("Frame", (), {"f_code": compile("", file, "exec")})
            yield frame, number


def test_code_that_was_installed_counts_where_there_is_none_of_the_users() -> None:
    installed = attrs.__file__
    task: Any = FakeTask([installed, trio.__file__, queue.__file__])

    assert where(task) == f"{installed}:0"


def test_the_users_code_goes_before_what_was_installed() -> None:
    task: Any = FakeTask(["/service/workers.py", attrs.__file__, trio.__file__])

    assert where(task) == "/service/workers.py:0"


def test_a_task_without_a_stack_is_at_a_place_unknown() -> None:
    task: Any = FakeTask([])

    assert where(task) == "unknown"


def test_a_thread_is_at_the_innermost_line_of_user_code() -> None:
    waiting, go_on = threading.Event(), threading.Event()

    def work() -> None:
        waiting.set()
        go_on.wait()  # the line of the thread

    thread = threading.Thread(target=work)
    thread.start()
    waiting.wait()
    place = where_in_thread(thread.ident or 0)
    go_on.set()
    thread.join()

    assert line_of(place) in {"go_on.wait()  # the line of the thread", "waiting.set()"}
    assert where_in_thread(thread.ident or 0) == "unknown"


def raises() -> object:
    return json.loads("[")  # the line that raised


def test_an_exception_was_raised_at_the_innermost_line_of_user_code() -> None:
    with pytest.raises(ValueError, match="Expecting value") as caught:
        raises()

    assert line_of(where_raised(caught.value)) == 'return json.loads("[")  # the line that raised'


def test_an_exception_that_nobody_raised_is_nowhere() -> None:
    assert where_raised(ValueError("made by hand")) == ""
