"""What a service looks like at one moment, and what surrounds it: up before everything else, closed after it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import attrs
import trio
from typing_extensions import override

from kernel import Backlog, ComponentFailed, KernelStopped, Secret, Snapshot, State, StateChanged, Usage
from kernel._core.masks import Masks
from kernel._core.pulse import STALL, current_pulse
from kernel._manifest.registry import Registry
from kernel.abc import Context, Dispatcher, Driver, Intake, NoConfig
from kernel.testing import open_kernel

DIARY: list[str] = []
SEEN: list[Snapshot] = []


@attrs.define(eq=False)
class Onlooker(Dispatcher):
    """Says when it opens, accepts and closes, and keeps what it could see last."""

    surrounds: ClassVar[bool] = True
    delivers: ClassVar[bool] = False
    config: NoConfig
    context: Context

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        DIARY.append("+onlooker")
        await trio.lowlevel.checkpoint()
        yield
        DIARY.append("-onlooker")

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        SEEN.append(self.context.snapshot())
        try:
            await trio.sleep_forever()
        finally:
            SEEN.append(self.context.snapshot())


class Pooled(Driver[object]):
    """Says how its connections are used, until it breaks."""

    usage: ClassVar[Callable[[], Usage]]
    broken: ClassVar[trio.Event]

    def __init__(self, *, config: NoConfig, context: Context) -> None:
        self.context = context

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[object]:
        await trio.lowlevel.checkpoint()
        self.context.report_usage(lambda: Pooled.usage())  # noqa: PLW0108  a test changes it
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.break_down)
            yield object()
            nursery.cancel_scope.cancel()

    async def break_down(self) -> None:
        await Pooled.broken.wait()
        Pooled.broken = trio.Event()
        raise OSError("gone")


@attrs.define(eq=False)
class Source(Dispatcher):
    """Has one thing in flight, for 14 seconds, from its start and whatever happens."""

    delivers: ClassVar[bool] = False

    config: NoConfig
    context: Context
    nursery: Any = attrs.field(default=None, init=False)

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        DIARY.append("+source")
        async with trio.open_nursery() as self.nursery:
            yield
            self.nursery.cancel_scope.cancel()
        DIARY.append("-source")

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        self.nursery.start_soon(self.work, intake)
        task_status.started()
        await trio.sleep_forever()

    async def work(self, intake: Intake) -> None:
        async with intake.slot("something"):
            await trio.sleep(14)


@attrs.define(eq=False)
class Slow(Driver[object]):
    """Fails once, then takes five seconds to open."""

    config: NoConfig
    context: Context
    fails: ClassVar[int] = 0

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[object]:
        await trio.sleep(5)
        if Slow.fails:
            Slow.fails -= 1
            raise ValueError("no yellow-feathers today")
        yield self


REGISTRY = Registry.of({
    "drivers": {"slow": Slow, "pooled": Pooled},
    "dispatchers": {"onlooker": Onlooker, "source": Source},
})
MANIFEST: dict[str, Any] = {
    "kernel": {"drain_timeout": 15.0, "grace_period": 40.0},
    "drivers": {"slow": {"plugin": "slow"}},
    "dispatchers": {"a": {"plugin": "source"}, "z": {"plugin": "onlooker"}},
    "workers": {"user": {"use": f"{__name__}:User"}},
}


class User:
    def __init__(self, slow: object) -> None: ...

    async def run(self) -> None:
        await trio.sleep_forever()


def one(snapshot: Snapshot, component: str) -> Any:
    return next(each for each in snapshot.components if each.id == component)


def begin(fails: int = 0) -> None:
    DIARY.clear()
    SEEN.clear()
    Slow.fails = fails


async def test_what_surrounds_is_up_first_and_closes_last(autojump_clock: object) -> None:
    begin()
    async with open_kernel(MANIFEST, registry=REGISTRY):
        pass

    assert DIARY == ["+onlooker", "+source", "-source", "-onlooker"]


async def test_what_surrounds_accepts_while_others_start_and_drain(autojump_clock: object) -> None:
    begin()
    async with open_kernel(MANIFEST, registry=REGISTRY):
        pass

    assert [(each.is_ready, each.is_stopping) for each in SEEN] == [(False, False), (False, True)]
    assert one(SEEN[0], "worker/user").waits_for == ("driver/slow",)
    assert SEEN[1].stopping_for == 9.0
    assert one(SEEN[1], "dispatcher/a").state is State.STOPPED


async def test_what_surrounds_keeps_no_service_running(autojump_clock: object) -> None:
    begin()
    manifest = {
        "dispatchers": {"z": {"plugin": "onlooker"}},
        "workers": {"once": {"use": f"{__name__}:once", "oneshot": True}},
    }
    async with open_kernel(manifest | {"kernel": {}}, registry=REGISTRY, ready=False) as service:
        stopped = await service.wait_event(KernelStopped)

    assert stopped.status == 0
    assert DIARY == ["+onlooker", "-onlooker"]


async def once() -> None:
    await trio.sleep(1)


async def test_a_snapshot_says_how_each_component_is(autojump_clock: object) -> None:
    begin(fails=1)
    async with open_kernel(MANIFEST, registry=REGISTRY, expected=ValueError) as service:
        seen = service.kernel.snapshot()

    slow, source = one(seen, "driver/slow"), one(seen, "dispatcher/a")
    assert (seen.is_ready, seen.service, seen.stop_budget) == (True, service.plan.name, service.plan.budget.seconds)
    assert (slow.state, slow.restarts, slow.error) == (State.READY, 1, "ValueError: no yellow-feathers today")
    assert (source.in_flight, source.slots, one(seen, "worker/user").in_flight) == (1, 10, None)


async def test_a_snapshot_masks_secrets(autojump_clock: object) -> None:
    begin(fails=1)
    async with open_kernel(MANIFEST, registry=REGISTRY, expected=ValueError) as service:
        tree: Any = getattr(service.kernel, "_tree")  # noqa: B009
        tree.masks = Masks.of([Secret("yellow-feathers")])
        seen = service.kernel.snapshot()

    assert one(seen, "driver/slow").error == "ValueError: no *** today"


async def test_a_loop_that_is_blocked_is_not_ready(autojump_clock: object) -> None:
    begin()
    async with open_kernel(MANIFEST, registry=REGISTRY) as service:
        current_pulse().busy_since = time.monotonic() - STALL - 0.1
        seen = service.kernel.snapshot()

    assert not seen.is_ready
    assert __file__ in seen.blocked_at


WORKER = {"w": {"use": "trio:sleep_forever"}}


async def test_how_connections_are_used_is_asked_while_their_driver_is_up(autojump_clock: object) -> None:
    Pooled.broken, used = trio.Event(), [Usage(used=1), Usage(used=3, idle=2, waiting=1, limit=5)]
    Pooled.usage = lambda: used[-1]
    manifest = {"drivers": {"pool": {"plugin": "pooled"}}, "workers": WORKER}
    seen: list[Usage | None] = []
    async with open_kernel(manifest, registry=REGISTRY, expected=OSError) as service:

        async def look_when(state: State) -> None:
            await service.wait_event(StateChanged, lambda event: event.new is state)
            seen.append(one(service.kernel.snapshot(), "driver/pool").usage)

        seen.append(one(service.kernel.snapshot(), "driver/pool").usage)
        used.pop()
        seen.append(one(service.kernel.snapshot(), "driver/pool").usage)
        Pooled.broken.set()
        await look_when(State.BACKOFF)
        await service.wait_event(ComponentFailed)
        while one(service.kernel.snapshot(), "driver/pool").state is not State.READY:  # noqa: ASYNC110  no event of its own
            await trio.sleep(0.1)
        seen.append(one(service.kernel.snapshot(), "driver/pool").usage)
        assert one(service.kernel.snapshot(), "worker/w").usage is None

    assert seen == [Usage(used=3, idle=2, waiting=1, limit=5), Usage(used=1), None, Usage(used=1)]


class Passing:
    """A worker that says what it has to pass on."""

    def __init__(self, context: Context) -> None:
        self.known: Backlog | None = None
        context.report_backlog(lambda: self.known)

    async def run(self) -> None:
        await trio.sleep(1)
        self.known = Backlog(waiting=3, failed=1, oldest=0.5)
        await trio.sleep_forever()


async def test_what_a_component_has_to_pass_on_is_asked_while_it_is_up(autojump_clock: object) -> None:
    workers = {"relay": {"use": f"{__name__}:Passing"}, **WORKER}
    async with open_kernel({"workers": workers}, registry=REGISTRY) as service:
        before = one(service.kernel.snapshot(), "worker/relay").backlog
        await trio.sleep(2)
        after = one(service.kernel.snapshot(), "worker/relay").backlog
        assert one(service.kernel.snapshot(), "worker/w").backlog is None
    stopped = one(service.kernel.snapshot(), "worker/relay").backlog

    assert (before, after, stopped) == (None, Backlog(waiting=3, failed=1, oldest=0.5), None)


async def test_what_a_driver_gets_wrong_about_its_connections_blinds_nobody(autojump_clock: object) -> None:
    Pooled.broken, Pooled.usage = trio.Event(), lambda: Usage(used=1 // 0)
    manifest = {"drivers": {"pool": {"plugin": "pooled"}}, "workers": WORKER}
    async with open_kernel(manifest, registry=REGISTRY) as service:
        assert one(service.kernel.snapshot(), "driver/pool").usage is None
