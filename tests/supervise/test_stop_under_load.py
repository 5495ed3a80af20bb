"""Nothing accepted is lost: a service under load is stopped anywhere, and the books always balance."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from kernel import DeadLetter, handles
from kernel._core.events import DrainTimedOut, KernelStopped
from kernel._manifest.registry import Registry, discover
from kernel._supervise.kernel import ExitStatus, Result
from kernel.errors import PermanentError, StartupError, UnavailableError
from kernel.testing import RunningService, open_kernel

STOPS = 500
MESSAGES = 60
INSTALLED = discover().plugins


@attrs.define(eq=False)
class Load:
    """What the handlers do, and the broker that they are fed from."""

    chance: random.Random
    longest: float
    """Seconds that a handler may take."""
    broker: Any = None

    def worker(self) -> type[object]:
        load = self

        class Worker:
            def __init__(self, queue: Any) -> None:
                load.broker = queue

            @handles("work.#")
            async def work(self, payload: Any) -> object:
                await trio.sleep(load.chance.random() * load.longest)
                match payload % 10:
                    case 0:
                        raise PermanentError("poison")
                    case 1:
                        raise OSError("not now")
                    case 2:
                        return DeadLetter("refused")
                    case _:
                        return None

        return Worker


@asynccontextmanager
async def service(load: Load, *, ready: bool = True, **kernel: float) -> AsyncIterator[RunningService]:
    broker = {"driver": "queue", "protocol": "json"}
    manifest: Mapping[str, object] = {
        "kernel": {"name": "stops", "grace_period": 10.0, "drain_timeout": 1.0, **kernel},
        "drivers": {"queue": {"plugin": "memory"}, "events": {"plugin": "publisher", **broker}},
        "dispatchers": {
            "work": {"plugin": "consumer", "queue": "work", "bindings": ["work.#"], "concurrency": 8, **broker}
        },
        "workers": {
            "load": {"use": "load", "dispatcher": "work", "retry": {"attempts": 3, "backoff_initial": 0.001}},
        },
    }
    registry = Registry((*INSTALLED, *Registry.of({"workers": {"load": load.worker()}}).plugins))
    async with open_kernel(manifest, registry=registry, ready=ready, expected=(PermanentError, OSError)) as running:
        yield running


async def publish(running: RunningService, messages: int) -> None:
    """Publish until the service stops; what was not taken is the sender's to know."""
    try:
        for number in range(messages):
            await running.publish("events", "work.item", number)
    except UnavailableError:
        await trio.lowlevel.checkpoint()


def assert_balanced(running: RunningService, load: Load) -> None:
    """Assert that every delivery came to exactly one end, and that the stop kept to its proof."""
    if load.broker is not None:
        stats = load.broker.stats
        assert stats.unsettled == 0
        assert stats.delivered == stats.acked + stats.returned + stats.retried + stats.dead
        assert stats.delivered == len(running.settled)
    [stopped] = [event for event in running.events if isinstance(event, KernelStopped)]
    assert stopped.seconds <= running.plan.budget.seconds


@pytest.mark.slow
async def test_500_stops_at_random_instants_under_load_lose_nothing_and_end_in_time() -> None:
    seeds = random.Random(2026)
    in_flight = 0
    for _ in range(STOPS):
        load = Load(random.Random(seeds.random()), longest=0.004)
        async with service(load) as running, trio.open_nursery() as nursery:
            nursery.start_soon(publish, running, MESSAGES)
            await trio.sleep(load.chance.random() * 0.02)  # the instant, not a wait for anything
            in_flight += load.broker.stats.unsettled
            result = await running.stop()
            nursery.cancel_scope.cancel()

        assert result.status is ExitStatus.STOPPED
        assert_balanced(running, load)

    assert in_flight > STOPS  # else there was no load to speak of


@attrs.define(eq=False)
class StopAtStep(trio.abc.Instrument):
    """Asks a service for its stop after the n-th step that any task takes."""

    at: int
    steps: int = 0
    running: RunningService | None = None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.running is not None:
            self.steps += 1
            if self.steps == self.at:
                self.running.kernel.request_stop("now")


async def scenario(instrument: StopAtStep, load: Load, messages: int, **kernel: float) -> tuple[RunningService, Result]:
    """Start a service, publish, let everything settle, stop: unless the instrument stops it before."""
    async with service(load, ready=False, **kernel) as running:
        instrument.running = running
        with trio.CancelScope() as script:
            async with trio.open_nursery() as nursery:

                async def end_with_the_service() -> None:
                    await running.kernel.wait_stop_requested()
                    script.cancel()

                nursery.start_soon(end_with_the_service)
                try:
                    await running.kernel.wait_ready()
                    await publish(running, messages)
                    await running.wait_settled(messages)
                except StartupError:
                    assert instrument.steps >= instrument.at
                script.cancel()
        result = await running.stop()
    return running, result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("longest", "drain"),
    [pytest.param(0.5, 1.0, id="drained"), pytest.param(30.0, 1.0, id="cut-at-the-drain-deadline")],
)
async def test_a_stop_at_every_step_of_a_service_loses_nothing(
    autojump_clock: object, longest: float, drain: float
) -> None:
    step, cuts = 0, 0
    while True:
        step += 1
        load, instrument = Load(random.Random(7), longest), StopAtStep(step)
        trio.lowlevel.add_instrument(instrument)
        try:
            running, result = await scenario(instrument, load, messages=16, drain_timeout=drain)
        finally:
            trio.lowlevel.remove_instrument(instrument)

        assert_balanced(running, load)
        cut = any(isinstance(event, DrainTimedOut) for event in running.events)
        assert result.status is (ExitStatus.CUT if cut else ExitStatus.STOPPED)
        cuts += cut
        if instrument.steps < step:
            break

    assert step > 80  # else the scenario was no scenario
    assert (cuts > 0) == (longest > drain)
