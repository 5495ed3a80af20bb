"""What an `accept` that breaks does to what is in flight."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from typing_extensions import override

from kernel import Ack, Return, handles
from kernel._core.events import ComponentFailed, DeliverySettled, DrainTimedOut, EventHub, StopTimedOut
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry
from kernel._plan.plan import resolve
from kernel._supervise.kernel import ExitStatus, Kernel, Result
from kernel._supervise.run import serve
from kernel.abc import Context, Dispatcher, Intake, NoConfig
from kernel.testing import fake_context
from tests.delivery._feed import Parcel, parcel

LOST = OSError("unsubscribe")


async def raise_lost() -> None:
    raise LOST


async def raise_in_a_group() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raise_lost)


async def exit_all() -> None:
    raise SystemExit(3)


async def served(
    cleanup: Callable[[], Awaitable[None]],
    *,
    handling: float,
    breaks_at: float | None = None,
    hasten_after: float | None = None,
) -> tuple[Result, list[Any], Parcel]:
    """Run a service with a delivery in flight from 0 s on, and stop it at 1 s if its source has not broken before."""
    item = parcel(1)

    @attrs.frozen
    class Source(Dispatcher):
        config: NoConfig
        context: Context

        @override
        @asynccontextmanager
        async def open(self) -> AsyncGenerator[None]:
            yield

        @override
        async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            if not item.outcomes:
                await intake.submit(item)
            try:
                await trio.sleep(math.inf if breaks_at is None else breaks_at)
            finally:
                await cleanup()

    class Worker:
        @handles("#")
        async def work(self, payload: object) -> None:
            await trio.sleep(handling)

    registry = Registry.of({"dispatchers": {"source": Source}, "workers": {"w": Worker}})
    manifest = {
        "kernel": {"name": "test", "drain_timeout": 5.0},
        "dispatchers": {"source": {}},
        "workers": {"w": {"use": "w", "dispatcher": "source"}},
    }
    hub, events, results = EventHub(), list[Any](), list[Result]()
    hub.subscribe(events.append)
    hub.subscribe(lambda _: events.append(trio.current_time()), StopTimedOut)

    async def run(task_status: trio.TaskStatus[Kernel]) -> None:
        plan = resolve(from_mapping(manifest), registry)
        results.append(await serve(plan, log=fake_context().log, hub=hub, task_status=task_status))

    async with trio.open_nursery() as nursery:
        kernel: Kernel = await nursery.start(run)
        await trio.sleep(1)
        kernel.request_stop()
        if hasten_after is not None:
            await trio.sleep(hasten_after)
            kernel.hasten()
    return results[0], events, item


def of(events: list[Any], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


ways = pytest.mark.parametrize("cleanup", [raise_lost, raise_in_a_group, exit_all])


@ways
async def test_an_accept_that_raises_while_it_is_cancelled_does_not_skip_the_drain(
    autojump_clock: object, cleanup: Callable[[], Awaitable[None]]
) -> None:
    result, events, item = await served(cleanup, handling=4.0)

    assert item.outcomes == [Ack()]
    assert of(events, DrainTimedOut) == []
    assert trio.current_time() == pytest.approx(4.0)
    assert result.status is ExitStatus.FAILED
    assert len(result.errors) == len(of(events, ComponentFailed)) == 1


@ways
async def test_what_is_cut_then_is_told(autojump_clock: object, cleanup: Callable[[], Awaitable[None]]) -> None:
    result, events, item = await served(cleanup, handling=100.0)

    [cut] = of(events, DrainTimedOut)
    assert item.outcomes == [Return()]
    assert cut.culprits[0].startswith(f"delivery {item.envelope.id} ")
    assert trio.current_time() == pytest.approx(6.0)
    assert result.status is ExitStatus.FAILED


@ways
async def test_what_is_cut_because_the_source_broke_is_told(
    autojump_clock: object, cleanup: Callable[[], Awaitable[None]]
) -> None:
    _, events, item = await served(cleanup, handling=100.0, breaks_at=0.5)

    assert len(of(events, DrainTimedOut)) == 1
    assert item.outcomes == [Return()]
    assert [type(event.outcome) for event in of(events, DeliverySettled)] == [Return]


@pytest.mark.parametrize(("hasten_after", "left_at"), [(None, 8.0), (0.5, 3.5), (6.5, 8.0)])
async def test_an_accept_that_ignores_its_cancellation_is_waited_for_no_longer_than_a_hastened_stop_waits(
    autojump_clock: object, hasten_after: float | None, left_at: float
) -> None:
    async def go_on() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(50.0)

    _, events, _ = await served(go_on, handling=0.1, hasten_after=hasten_after)

    assert of(events, float) == [pytest.approx(left_at)]
