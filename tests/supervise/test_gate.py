"""No dispatcher accepts before all of them have opened."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from typing_extensions import override

from kernel._core.events import ComponentFailed, EventHub
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry
from kernel._plan.plan import resolve
from kernel._supervise.gate import Gate
from kernel._supervise.kernel import Kernel, Result
from kernel._supervise.run import serve
from kernel.abc import Context, Dispatcher, Intake, NoConfig
from kernel.errors import StartupError
from kernel.testing import fake_context


@attrs.frozen
class Opening:
    """How a dispatcher opens in one life, and how long it accepts then."""

    seconds: float = 0.0
    fails: BaseException | None = None
    accepts_for: float | None = None


@attrs.define(eq=False)
class Hall:
    """Dispatchers, and when each of them accepted and was closed undisturbed."""

    lives: dict[str, list[Opening]]
    accepted: dict[str, list[float]] = attrs.field(factory=dict)
    closed: list[str] = attrs.field(factory=list)
    events: list[Any] = attrs.field(factory=list)
    results: list[Result] = attrs.field(factory=list)

    def dispatcher(self) -> type[Dispatcher]:
        hall = self

        @attrs.frozen
        class Scripted(Dispatcher):
            config: NoConfig
            context: Context

            @override
            @asynccontextmanager
            async def open(self) -> AsyncGenerator[None]:
                lives = hall.lives[self.context.name]
                life = lives[0]
                await trio.sleep(life.seconds)
                if life.fails is not None:
                    if len(lives) > 1:
                        del lives[0]
                    raise life.fails
                try:
                    yield
                finally:
                    await trio.sleep(0.5)
                    hall.closed.append(self.context.name)

            @override
            async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
                task_status.started()
                life = hall.lives[self.context.name][0]
                hall.accepted.setdefault(self.context.name, []).append(trio.current_time())
                if life.accepts_for is not None:
                    hall.lives[self.context.name].pop(0)
                    await trio.sleep(life.accepts_for)
                    raise OSError("broken")
                await trio.sleep_forever()

        return Scripted

    async def serve(self, seconds: float, **tables: dict[str, Any]) -> None:
        """Run a service with these dispatchers, and stop it."""
        names = list(self.lives)
        waits = {"backoff_initial": 1.0, "backoff_factor": 1.0, "jitter": 0.0}
        manifest = {
            "kernel": {"name": "test"},
            "dispatchers": {name: {"plugin": "scripted", "restart": waits, **tables.get(name, {})} for name in names},
            "workers": {f"for_{name}": {"use": "handle", "dispatcher": name} for name in names},
        }
        for name, table in tables.items():
            if name.startswith("for_"):
                manifest["workers"][name] |= table
        registry = Registry.of({"dispatchers": {"scripted": self.dispatcher()}, "workers": {"handle": handle}})
        plan = resolve(from_mapping(manifest), registry)
        hub = EventHub()
        hub.subscribe(self.events.append)

        async def run(task_status: trio.TaskStatus[Kernel]) -> None:
            self.results.append(await serve(plan, log=fake_context().log, hub=hub, task_status=task_status))

        async with trio.open_nursery() as nursery:
            kernel: Kernel = await nursery.start(run)
            await trio.sleep(seconds)
            kernel.request_stop()

    def failures(self, name: str) -> list[BaseException]:
        return [one.error for one in self.events if isinstance(one, ComponentFailed) and one.component.endswith(name)]


async def handle(payload: object) -> None:
    await trio.lowlevel.checkpoint()


IN_USE = StartupError("address already in use")


@pytest.mark.parametrize("seconds", [0.0, 1.0, 29.0])
async def test_nothing_is_accepted_if_one_cannot_open(autojump_clock: object, seconds: float) -> None:
    hall = Hall({"queue": [Opening()], "web": [Opening(seconds, fails=IN_USE)], "other": [Opening()]})

    await hall.serve(100)

    assert hall.accepted == {}
    assert hall.results[0].errors == (IN_USE,)
    assert sorted(hall.closed) == ["other", "queue"]


async def test_the_others_wait_while_one_tries_to_open_and_their_time_does_not_run(autojump_clock: object) -> None:
    away = OSError("away")
    hall = Hall({
        "queue": [Opening()],
        "web": [Opening(3.0, fails=away), Opening(3.0, fails=away), Opening(3.0)],
    })

    await hall.serve(100, queue={"start_timeout": 1.0})

    assert hall.accepted == {"queue": [11.0], "web": [11.0]}
    assert hall.failures("queue") == []


async def test_one_that_is_not_essential_is_not_waited_for_but_waits(autojump_clock: object) -> None:
    hall = Hall({"queue": [Opening()], "slow": [Opening(2.0)], "extra": [Opening(5.0)], "bad": [Opening(fails=IN_USE)]})

    await hall.serve(100, extra={"essential": False}, bad={"essential": False})

    assert hall.accepted == {"queue": [2.0], "slow": [2.0], "extra": [5.0]}


async def test_one_that_restarts_accepts_alone(autojump_clock: object) -> None:
    away = OSError("away")
    hall = Hall({
        "queue": [Opening(accepts_for=2.0), Opening()],
        "web": [Opening(accepts_for=1.0), *[Opening(fails=away)] * 8, Opening()],
    })

    await hall.serve(100)

    assert hall.accepted["queue"] == [0.0, 3.5]
    assert hall.accepted["web"][1] > 9.0


@pytest.mark.parametrize("slow", "abcd")
async def test_those_that_stand_on_others_do_not_keep_them_from_accepting(autojump_clock: object, slow: str) -> None:
    hall = Hall({name: [Opening(2.0 if name == slow else 0.0)] for name in "abcd"})

    await hall.serve(
        100,
        a={"depends": ["dispatcher/b"]},
        for_c={"depends": ["dispatcher/d"]},
        d={"start_timeout": 1.0} if slow != "d" else {},
    )

    assert sorted(hall.accepted) == ["a", "b", "c", "d"]
    assert hall.failures("") == []


async def test_a_stop_closes_in_order_what_waits_for_the_others(autojump_clock: object) -> None:
    hall = Hall({"queue": [Opening()], "web": [Opening(20.0)]})

    await hall.serve(1)

    assert hall.accepted == {}
    assert hall.closed == ["queue"]
    assert trio.current_time() == 1.5
    assert hall.results[0].errors == ()


async def test_one_that_has_closed_again_is_waited_for(autojump_clock: object, nursery: trio.Nursery) -> None:
    gate = Gate({"a", "b"})
    with trio.move_on_after(1):
        await gate.wait("a")
    with trio.move_on_after(1) as alone:
        await gate.wait("b")
    nursery.start_soon(gate.wait, "a")
    await gate.wait("b")

    assert alone.cancelled_caught
    assert trio.current_time() == 2.0
