"""What one life of each kind of component does around its plugin."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from typing_extensions import override

from kernel import ComponentFailed, State, StateChanged
from kernel._delivery.failure import describe
from kernel._manifest.registry import Registry
from kernel.abc import Context, Dispatcher, Driver, Intake, NoConfig
from kernel.testing import RunningService, open_kernel

Opening = Callable[[], AbstractAsyncContextManager[object]]


def driver(opening: Opening) -> type[Driver[object]]:
    @attrs.define(eq=False)
    class Scripted(Driver[object]):
        config: NoConfig
        context: Context

        @override
        def open(self) -> AbstractAsyncContextManager[object]:
            return opening()

    return Scripted


@attrs.define(eq=False)
class Quiet(Dispatcher):
    """Brings nothing in."""

    config: NoConfig
    context: Context

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        await trio.lowlevel.checkpoint()
        yield

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()


async def handle(payload: object) -> None:
    await trio.lowlevel.checkpoint()


def names(service: RunningService, state: State) -> list[str]:
    return [event.component for event in service.events if isinstance(event, StateChanged) and event.new is state]


async def test_a_driver_that_breaks_by_itself_closes_within_its_bound(autojump_clock: object) -> None:
    lives = 0

    @asynccontextmanager
    async def opening() -> AsyncGenerator[object]:
        nonlocal lives
        lives += 1
        async with trio.open_nursery() as nursery:
            try:
                if lives == 1:
                    nursery.start_soon(break_later)
                yield "resource"
            finally:
                with trio.CancelScope(shield=lives == 1):
                    await trio.sleep(0.5 if lives == 1 else 0)
            nursery.cancel_scope.cancel()

    async def break_later() -> None:
        await trio.sleep(1)
        raise OSError("lost")

    registry = Registry.of({"drivers": {"db": driver(opening)}, "workers": {"user": handle_loop}})
    manifest = {"kernel": {}, "drivers": {"db": {}}, "workers": {"user": {"use": "user", "drivers": {"db": "db"}}}}
    async with open_kernel(manifest, registry=registry) as service:
        failed = await service.wait_event(ComponentFailed)
        await service.wait_event(StateChanged, lambda event: event.new is State.READY and lives == 2)

    assert failed.component == "driver/db"
    assert lives == 2


async def handle_loop(db: Any) -> None:
    await trio.sleep_forever()


async def test_a_worker_that_ends_by_itself_leaves_within_its_bound(autojump_clock: object) -> None:
    left: list[float] = []

    class Worker:
        async def __aenter__(self) -> None:
            await trio.lowlevel.checkpoint()

        async def __aexit__(self, *_: object) -> None:
            began = trio.current_time()
            try:
                await trio.sleep_forever()
            finally:
                left.append(trio.current_time() - began)

        async def run(self) -> None:
            await trio.sleep(1)
            raise OSError("over")

    registry = Registry.of({"workers": {"worker": Worker}})
    manifest = {"kernel": {}, "workers": {"worker": {"use": "worker", "stop_timeout": 2.0}}}
    async with open_kernel(manifest, registry=registry, expected=TimeoutError) as service:
        await service.wait_event(ComponentFailed)

    assert left[0] == pytest.approx(1.5)


async def test_a_dispatcher_that_others_depend_on_closes_only_after_them(autojump_clock: object) -> None:
    class Slow:
        async def __aenter__(self) -> None:
            await trio.lowlevel.checkpoint()

        async def __aexit__(self, *_: object) -> None:
            await trio.sleep(1)

        async def run(self) -> None:
            await trio.sleep_forever()

    registry = Registry.of({"dispatchers": {"quiet": Quiet}, "workers": {"handle": handle, "slow": Slow}})
    manifest = {
        "kernel": {},
        "dispatchers": {"quiet": {}},
        "workers": {
            "handle": {"use": "handle", "dispatcher": "quiet"},
            "slow": {"use": "slow", "depends": ["dispatcher/quiet"]},
        },
    }
    async with open_kernel(manifest, registry=registry) as service:
        await service.stop()

    assert names(service, State.STOPPED) == ["worker/slow", "dispatcher/quiet", "worker/handle"]


async def test_a_dispatcher_whose_accept_returns_before_it_started_is_refused(autojump_clock: object) -> None:
    class Hasty(Quiet):
        @override
        async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
            await trio.lowlevel.checkpoint()

    registry = Registry.of({"dispatchers": {"hasty": Hasty}, "workers": {"handle": handle}})
    manifest = {
        "kernel": {},
        "dispatchers": {"hasty": {}},
        "workers": {"handle": {"use": "handle", "dispatcher": "hasty"}},
    }
    async with open_kernel(manifest, registry=registry, ready=False) as service:
        failed = await service.wait_event(ComponentFailed)
        await service.stop()

    assert "without calling task_status.started()" in describe(failed.error)
    assert failed.restart_in is None
