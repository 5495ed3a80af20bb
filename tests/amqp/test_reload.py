"""A hundred reloads under load: nothing is lost, nothing is done twice, and the others go on while one is replaced.

What is taken for one of the others begins in the turn of the event loop after that, as without a reload: turns are
counted, and no time is measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from kernel import Ack, KernelReloaded, Secret, handles
from kernel._delivery.intake import KernelIntake
from kernel._delivery.runners import Errand, Runners
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve
from kernel.abc import Delivery
from kernel.testing import open_kernel

RELOADS = 100
OTHERS = 5
BROKER = {"driver": "queue", "protocol": "json"}


@attrs.frozen
class Config:
    label: int = 0


@attrs.define(eq=False)
class Turns(trio.abc.Instrument):
    """Counts the turns of the event loop from when a delivery is taken until its handler begins."""

    now: int = 0
    taken: dict[int, int] = attrs.field(factory=dict)
    """Payload -> the turn in which a dispatcher gave it a slot."""
    gaps: Counter[int] = attrs.field(factory=Counter)
    """Turns -> how many deliveries for others began that many later."""

    def after_io_wait(self, timeout: float) -> None:
        self.now += 1

    def take(self, delivery: Delivery) -> None:
        self.taken[int(delivery.envelope.body)] = self.now

    def begin(self, payload: int) -> None:
        self.gaps[self.now - self.taken.pop(payload)] += 1


@attrs.define(eq=False)
class Load:
    """What was sent and handled."""

    turns: Turns = attrs.field(factory=Turns)

    handled: Counter[int] = attrs.field(factory=Counter)
    by_others: int = 0
    labels: set[int] = attrs.field(factory=set)
    is_over: bool = False
    lives: int = 0
    progress: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def note(self, payload: int) -> None:
        self.handled[payload] += 1
        self.progress.unpark_all()

    async def until_others_go_on(self) -> None:
        """Wait until others have handled what came after this; if they stand still, for ever."""
        seen = self.by_others
        while self.by_others < seen + 2 and not self.is_over:
            await self.progress.park()

    def workers(self) -> dict[str, type[object]]:
        load = self

        class Touched:
            """Is neither gone nor there before others have gone on."""

            def __init__(self, config: Config) -> None:
                load.labels.add(config.label)

            async def __aenter__(self) -> None:
                load.lives += 1
                if load.lives > 1:
                    await load.until_others_go_on()

            async def __aexit__(self, *_: object) -> None:
                await load.until_others_go_on()

            @handles("touched.*")
            async def handle(self, payload: int) -> None:
                await trio.sleep(0.001)
                load.note(payload)

        def other(number: int) -> type[object]:
            class Other:
                @handles(f"other{number}.*")
                async def handle(self, payload: int) -> None:
                    load.turns.begin(payload)
                    await trio.sleep(0.001)
                    load.by_others += 1
                    load.note(payload)

            return Other

        return {"touched": Touched, **{f"other{number}": other(number) for number in range(OTHERS)}}


def tables(driver: dict[str, Any], queue: str, label: int) -> dict[str, Any]:
    workers: dict[str, Any] = {f"other{n}": {"use": f"other{n}", "dispatcher": "work"} for n in range(OTHERS)}
    touched = {"use": "touched", "dispatcher": "work", "config": {"label": label}, "stop_timeout": 20.0}
    return {
        "kernel": {"name": "load", "grace_period": 60.0},
        "drivers": {"queue": driver, "orders": {"plugin": "publisher", **BROKER}},
        "dispatchers": {"work": {"plugin": "consumer", "queue": queue, "bindings": ["#"], "concurrency": 20, **BROKER}},
        "workers": {"touched": touched, **workers},
    }


Transport = Callable[[], tuple[dict[str, Any], str]]


@pytest.fixture(params=["memory", "sqlite", "amqp"])
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, Any], str]:
    """The table of a driver, and the name of a queue."""
    if request.param == "memory":
        return {"plugin": "memory"}, "work"
    if request.param == "sqlite":
        return {"plugin": "sqlite", "path": str(tmp_path / "queue.db")}, "work"
    host, port = request.getfixturevalue("rabbitmq")
    unique = request.getfixturevalue("unique")
    prefix = unique("reload")
    return {"plugin": "amqp", "url": Secret(f"amqp://guest:guest@{host}:{port}/"), "prefix": f"{prefix}."}, "work"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Nothing yet; notes when deliveries are taken."""
    load, start = Load(), Runners.start

    def noted(runners: Runners, errand: Errand) -> None:
        load.turns.take(errand.delivery)
        start(runners, errand)

    monkeypatch.setattr(Runners, "start", noted)
    monkeypatch.setattr(KernelIntake, "pause", None)  # nobody keeps its dispatcher from taking, either
    return load


@asynccontextmanager
async def opened(load: Load, transport: tuple[dict[str, Any], str]) -> AsyncIterator[tuple[Any, Callable[[int], Any]]]:
    registry = Registry((*discover().plugins, *Registry.of({"workers": load.workers()}).plugins))
    async with open_kernel(tables(*transport, label=0), registry=registry) as service:
        yield service, lambda label: resolve(from_mapping(tables(*transport, label=label)), registry)


@pytest.mark.slow
async def test_a_hundred_reloads_lose_nothing_and_the_others_do_not_wait(
    transport: tuple[dict[str, Any], str], load: Load
) -> None:
    trio.lowlevel.add_instrument(load.turns)
    async with opened(load, transport) as (service, planned), trio.open_nursery() as nursery:
        sent = 0
        is_done, has_sent = trio.Event(), trio.Event()

        async def send() -> None:
            nonlocal sent
            names = ["touched", *(f"other{number}" for number in range(OTHERS))]
            while not is_done.is_set():
                if sent - sum(load.handled.values()) < 60:
                    await service.publish("orders", f"{names[sent % len(names)]}.x", sent)
                    sent += 1
                else:
                    await load.progress.park()
            has_sent.set()

        nursery.start_soon(send)
        for label in range(1, RELOADS + 1):
            with trio.fail_after(30):
                told: KernelReloaded = await service.kernel.reload(planned(label))
            assert told.restarted == ("worker/touched",)
            assert not told.failed
        is_done.set()
        load.progress.unpark_all()
        with trio.fail_after(30):
            await has_sent.wait()
            while sum(load.handled.values()) < sent:
                await load.progress.park()
        await service.wait_settled(sent)
        load.is_over = True

    assert load.labels == {*range(RELOADS + 1)}
    assert set(load.handled) == {*range(sent)}
    assert set(load.handled.values()) == {1}
    assert {(one.attempt, type(one.outcome)) for one in service.settled} == {(1, Ack)}
    restarts = {one.id: one.restarts for one in service.kernel.snapshot().components if one.restarts}
    assert restarts == {"worker/touched": RELOADS}
    assert load.turns.gaps.total() == load.by_others
    assert max(load.turns.gaps) <= 1, load.turns.gaps
