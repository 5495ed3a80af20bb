"""What `kernel why` says of requests: what occupies a slot without being a delivery."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import attrs
import pytest
import trio

from kernel._manifest.registry import Registry
from kernel.abc import Context, Dispatcher, Intake, NoConfig, Work
from kernel.testing import open_kernel


class Lasting(Work):
    """A request that takes no slot."""

    label = "websocket /live"
    worker = ""
    task: Any = None

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.task = trio.lowlevel.current_task()

    def cut(self) -> None:
        self.scope.cancel()


async def answer(intake: Intake, number: int) -> None:
    async with intake.slot(f"GET /{number}", worker="desk"):
        await trio.sleep(60)  # here


async def last(intake: Intake) -> None:
    work = Lasting()
    intake.enter_nowait(work, counts=False)
    with work.scope:
        await trio.sleep(60)
    intake.leave(work)


@attrs.define(eq=False)
class Door(Dispatcher):
    """Has some requests from the start, a tenth of a second between two."""

    Config: ClassVar[type[object]] = NoConfig
    delivers: ClassVar[bool] = False
    default_concurrency: ClassVar[int] = 100
    many: ClassVar[int] = 2

    config: NoConfig
    context: Context
    nursery: Any = attrs.field(default=None, init=False)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as self.nursery:
            yield

    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        self.nursery.start_soon(last, intake)
        for number in range(self.many):
            self.nursery.start_soon(answer, intake, number)
            await trio.sleep(0.1)
        await trio.sleep_forever()


class Crowded(Door):
    many = 23


class Desk:
    """Serves; there is nothing to do for it."""


def service(door: type[Door]) -> Any:
    given = Registry.of({"dispatchers": {"door": door}, "workers": {"desk": Desk}})
    tables: dict[str, Any] = {"kernel": {"name": "shop"}, "dispatchers": {"door": {"plugin": "door"}}}
    tables["workers"] = {"desk": {"use": "desk", "dispatcher": "door"}}
    return open_kernel(manifest=tables, registry=given)


def said(kernel: Any) -> list[tuple[str, str, str, float]]:
    causes = [cause.located() for cause in kernel.kernel.why()]
    return [(one.component, one.what, one.where, pytest.approx(one.seconds, abs=0.01)) for one in causes]


HERE = f"{__file__}:{answer.__code__.co_firstlineno + 2}"


async def test_a_request_that_takes_long_is_named(autojump_clock: Any) -> None:
    async with service(Door) as kernel:
        await trio.sleep(4)
        early = said(kernel)
        await trio.sleep(3)
        late = said(kernel)

    assert early == []
    assert late == [
        ("worker/desk", "serves 'GET /0' of dispatcher/door", HERE, 7.0),
        ("worker/desk", "serves 'GET /1' of dispatcher/door", HERE, 6.9),
    ]


async def test_all_that_a_stop_waits_for_are_named(autojump_clock: Any) -> None:
    async with service(Door) as kernel:
        await trio.sleep(1)
        kernel.kernel.request_stop("SIGTERM")
        await trio.sleep(1)
        found = said(kernel)

    assert [one[:2] for one in found] == [
        ("kernel", "stops: SIGTERM"),
        ("dispatcher/door", "drains: 3 in flight"),
        ("worker/desk", "serves 'GET /0' of dispatcher/door"),
        ("worker/desk", "serves 'GET /1' of dispatcher/door"),
        ("dispatcher/door", "serves 'websocket /live' of dispatcher/door"),
    ]
    assert [one[3] for one in found[2:]] == [2.0, 1.9, 0.0]


async def test_of_many_requests_the_oldest_are_named_and_the_others_counted(autojump_clock: Any) -> None:
    async with service(Crowded) as kernel:
        await trio.sleep(9)
        found = said(kernel)

    assert [one[1] for one in found[:10]] == [f"serves 'GET /{number}' of dispatcher/door" for number in range(10)]
    assert found[10][:2] == ("dispatcher/door", "has 13 more requests under way")
    assert len(found) == 11
