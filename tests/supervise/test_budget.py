"""What `check` proves of a stop holds, also where sources never answer."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from typing_extensions import override

from kernel import Envelope, Outcome, handles
from kernel._core.events import EventHub, KernelStopped, SettleFailed
from kernel._core.spec import Plan
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry
from kernel._plan.graph import FLUSH
from kernel._plan.plan import resolve
from kernel._supervise.kernel import Kernel
from kernel._supervise.run import serve
from kernel.abc import Context, Delivery, Dispatcher, Intake, NoConfig
from kernel.testing import fake_context


@attrs.define(eq=False)
class Unheard(Delivery):
    """A delivery whose source never answers."""

    number: int

    @property
    @override
    def envelope(self) -> Envelope:
        return Envelope(subject="work", id=str(self.number))

    @property
    @override
    def attempt(self) -> int:
        return 1

    @property
    @override
    def redelivered(self) -> bool:
        return False

    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.sleep_forever()


@attrs.define(eq=False)
class Source(Dispatcher):
    """Brings in more than there are slots."""

    config: NoConfig
    context: Context

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await trio.sleep_forever()

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        for number in range(intake.concurrency + 1):
            await intake.submit(Unheard(number))


def worker(seconds: float) -> type[object]:
    class Worker:
        @handles("#")
        async def work(self, payload: object) -> None:
            await trio.sleep(seconds)

    return Worker


async def stopped(plan: Plan, stop_at: float) -> list[Any]:
    """Run a service, stop it, and return its events."""
    hub, events = EventHub(), list[Any]()
    hub.subscribe(events.append)
    async with trio.open_nursery() as nursery:
        kernel: Kernel = await nursery.start(functools.partial(serve, plan, log=fake_context().log, hub=hub))
        await trio.sleep(stop_at)
        kernel.request_stop()
    return events


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("drain", [0.5, 4.0, 10.0])
@pytest.mark.parametrize("stop_timeout", [0.4, 2.0, 9.0])
@pytest.mark.parametrize(
    ("seconds", "stop_at"),
    [
        pytest.param(1e9, 1.0, id="in-flight-at-the-cut"),
        pytest.param(2.0, 1.0, id="done-while-draining"),
        pytest.param(0.5, 1.0, id="being-settled-when-the-stop-begins"),
    ],
)
async def test_a_source_that_never_answers_does_not_break_the_budget(
    autojump_clock: object, concurrency: int, drain: float, stop_timeout: float, seconds: float, stop_at: float
) -> None:
    manifest = {
        "kernel": {"name": "test", "grace_period": 60.0, "drain_timeout": drain},
        "dispatchers": {"source": {"concurrency": concurrency, "stop_timeout": stop_timeout}},
        "workers": {"w": {"use": "w", "dispatcher": "source", "stop_timeout": 0.5}},
    }
    registry = Registry.of({"dispatchers": {"source": Source}, "workers": {"w": worker(seconds)}})
    plan = resolve(from_mapping(manifest), registry)

    events = await stopped(plan, stop_at)

    [end] = [event for event in events if isinstance(event, KernelStopped)]
    unheard = {event.delivery_id for event in events if isinstance(event, SettleFailed)}
    assert end.seconds <= plan.budget.seconds - FLUSH
    assert unheard == {str(number) for number in range(concurrency + 1)}
