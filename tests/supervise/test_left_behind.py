"""A life that does not end: it is told at once, left behind at `stop_timeout`, and failed for good."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock
from typing_extensions import override

from kernel._core.events import EventHub, StateChanged, StopTimedOut
from kernel._core.lifecycle import State
from kernel._core.policies import RestartHistory
from kernel._core.spec import Strategy
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry
from kernel._plan.plan import resolve
from kernel._supervise.child import Group
from kernel._supervise.kernel import ExitStatus, Result
from kernel._supervise.run import serve
from kernel.abc import Context, Dispatcher, Driver, Intake, NoConfig
from kernel.errors import DependencyError, LeftBehindError
from kernel.testing import fake_context

from ._stage import ON_FAILURE, Script, Stage, fails, policy, returns

HANGS = Script(closing=1000.0, stubborn=True)
BROKEN = OSError("broken")
ENDS = {
    "raised": attrs.evolve(HANGS, lasts=1.0, raises=BROKEN),
    "returned": attrs.evolve(HANGS, lasts=1.0),
    "was-not-ready-in-time": Script(opening=1000.0, stubborn=True),
}


@pytest.mark.parametrize("how", list(ENDS))
@pytest.mark.parametrize("accepts", [False, True])
async def test_an_essential_child_that_hangs_while_it_ends_by_itself_stops_the_service(
    stage: Stage, autojump_clock: MockClock, how: str, accepts: bool
) -> None:
    child = stage.add("a", ENDS[how], accepts=accepts, start_timeout=1.0, stop_timeout=4.0)

    async with stage.running():
        await trio.sleep(1.5)
        assert child.state is State.STOPPING
        await trio.sleep(3.4)
        assert stage.left_behind() == []
        await trio.sleep(0.2)
        assert child.state is State.FAILED

    assert stage.left_behind() == stage.given_up == ["a"]
    [error] = stage.supervisor.errors
    assert isinstance(error, LeftBehindError)
    assert error.__cause__ is (BROKEN if how == "raised" else None)
    assert ("OSError: broken" in str(error)) == (how == "raised")
    assert error.where.split(":")[0] == __file__.replace("test_left_behind", "_stage")
    assert stage.supervisor.cut


@pytest.mark.parametrize("how", list(ENDS))
async def test_one_that_is_not_essential_ends_those_that_use_it(
    stage: Stage, autojump_clock: MockClock, how: str
) -> None:
    child = stage.add("a", ENDS[how], start_timeout=1.0, essential=False)
    user = stage.add("user", uses=[child], essential=False)
    other = stage.add("other")

    async with stage.running():
        await trio.sleep(10)
        assert (child.state, user.state, other.state) == (State.FAILED, State.FAILED, State.READY)

    assert [type(error) for error in stage.failures("user")] == [DependencyError]
    assert stage.given_up == stage.supervisor.errors == []


@pytest.mark.parametrize("essential", [True, False])
async def test_a_dependent_that_ignores_a_recall_has_failed_for_good(
    stage: Stage, autojump_clock: MockClock, essential: bool
) -> None:
    a = stage.add("a", fails(1), Script())
    b = stage.add("b", attrs.evolve(HANGS, closing=20.0), uses=[a], essential=essential)
    stage.add("c", uses=[b], essential=False)

    async with stage.running():
        await trio.sleep(10)
        assert (a.state, b.state) == (State.READY, State.FAILED)
        assert b.left_behind
        await trio.sleep(15)
        assert (b.state, b.left_behind) == (State.FAILED, False)

    assert stage.left_behind() == ["b"]
    assert stage.at("+a") == [0.0, 4.0]
    assert stage.at("+b") == [0.0]
    assert stage.given_up == ["b"] * essential
    assert [type(error) for error in stage.failures("b")] == [LeftBehindError]


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
async def test_a_member_that_ignores_the_restart_of_its_group_fails_and_the_others_go_on(
    stage: Stage, autojump_clock: MockClock, strategy: Strategy
) -> None:
    a, b, c = stage.add_group(strategy, "a", "b", "c", a=[fails(1), Script()], b=HANGS)
    b.essential = False

    async with stage.running():
        await trio.sleep(20)
        assert [member.state for member in (a, b, c)] == [State.READY, State.FAILED, State.READY]


async def test_a_member_that_hangs_while_its_group_fails_fails_with_it(stage: Stage, autojump_clock: MockClock) -> None:
    group = Group(Strategy.ONE_FOR_ALL, RestartHistory(policy(max_restarts=0), lambda: 0.0))
    a = stage.add("a", fails(1), group=group, essential=False)
    b = stage.add("b", HANGS, after=[a], group=group, essential=False)
    other = stage.add("other")

    async with stage.running():
        await trio.sleep(20)
        assert (a.state, b.state, other.state) == (State.FAILED, State.FAILED, State.READY)

    assert stage.left_behind() == ["b"]
    assert stage.given_up == []


async def test_an_error_that_comes_after_all_is_told(stage: Stage, autojump_clock: MockClock) -> None:
    late = ValueError("late")
    hangs = Script(lasts=1.0, closing=10.0, stubborn=True, fails_to_close=late)
    stage.add("a", hangs, essential=False)
    stage.add("other")

    async with stage.running():
        await trio.sleep(20)

    assert stage.failures("a")[1:] == [late]
    assert stage.supervisor.errors == []
    assert len(stage.at("+a")) == 1


async def test_a_service_has_finished_when_what_is_left_was_left_behind(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.add("a", attrs.evolve(HANGS, lasts=1.0), essential=False)
    stage.add("b", returns(2.0), restart=policy(ON_FAILURE))

    async with stage.running():
        with trio.fail_after(10):
            await stage.finished.wait()
        assert trio.current_time() == 3.0


async def test_a_close_that_ends_in_time_is_followed_by_a_restart(stage: Stage, autojump_clock: MockClock) -> None:
    """The state says that it closes while it does."""
    child = stage.add("a", Script(lasts=1.0, raises=BROKEN, closing=1.0), Script(), stop_timeout=4.0)

    async with stage.running():
        await trio.sleep(1.5)
        assert child.state is State.STOPPING
        await trio.sleep(2)
        assert child.state is State.READY

    assert stage.left_behind() == []


# --- in a service ---------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Hang:
    """What keeps an exit from ending."""

    over: trio.Event = attrs.field(factory=trio.Event)

    async def shielded(self) -> None:
        """As a thread is that cannot be abandoned, for those who wait for it."""
        with trio.CancelScope(shield=True):
            await self.over.wait()

    async def swallowing(self) -> None:
        while not self.over.is_set():
            with suppress(trio.Cancelled):
                await trio.lowlevel.checkpoint()
            with trio.CancelScope(shield=True):
                await trio.sleep(0.1)


def parts(where: str, hang: Callable[[], Any]) -> tuple[Registry, dict[str, Any], str]:
    """Return a service in which a component breaks after a second, and then does not close."""

    @attrs.frozen
    class Source(Driver[object]):
        config: NoConfig
        context: Context

        @override
        @asynccontextmanager
        async def open(self) -> AsyncGenerator[object]:
            async with trio.open_nursery() as nursery:
                if where == "driver":
                    nursery.start_soon(breaks)
                if where == "open":
                    try:
                        await trio.sleep_forever()
                    finally:
                        await hang()
                try:
                    yield "resource"
                finally:
                    if where == "driver":
                        await hang()
                    nursery.cancel_scope.cancel()

    @attrs.frozen
    class Feed(Dispatcher):
        config: NoConfig
        context: Context

        @override
        @asynccontextmanager
        async def open(self) -> AsyncGenerator[None]:
            try:
                yield
            finally:
                if where == "dispatcher":
                    await hang()

        @override
        async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await (breaks if where == "dispatcher" else trio.sleep_forever)()

    class Worker:
        def __init__(self, source: object) -> None: ...

        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *_: object) -> None:
            if where == "worker":
                await hang()

        async def run(self) -> None:
            await (breaks if where == "worker" else trio.sleep_forever)()

    async def handle(payload: object) -> None: ...

    registry = Registry.of({
        "drivers": {"source": Source},
        "dispatchers": {"feed": Feed},
        "workers": {"w": Worker, "handle": handle},
    })
    manifest: dict[str, Any] = {
        "kernel": {"name": "test"},
        "drivers": {"source": {"start_timeout": 1.0}},
        "dispatchers": {"feed": {}},
        "workers": {"w": {"use": "w"}, "handle": {"use": "handle", "dispatcher": "feed"}},
    }
    ids = {"open": "driver/source", "driver": "driver/source", "worker": "worker/w", "dispatcher": "dispatcher/feed"}
    return registry, manifest, ids[where]


async def breaks() -> None:
    await trio.sleep(1)
    raise OSError("broken")


@pytest.mark.parametrize("way", ["shielded", "swallowing"])
@pytest.mark.parametrize("where", ["worker", "driver", "dispatcher", "open"])
async def test_a_component_whose_exit_hangs_is_left_behind_and_the_service_fails(
    autojump_clock: MockClock, where: str, way: str
) -> None:
    hang = Hang()
    registry, manifest, id_ = parts(where, getattr(hang, way))
    hub, heard, results = EventHub(), list[tuple[float, Any]](), list[Result]()
    hub.subscribe(lambda event: heard.append((trio.current_time(), event)))

    async def run() -> None:
        results.append(await serve(resolve(from_mapping(manifest), registry), log=fake_context().log, hub=hub))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(30)
        hang.over.set()

    states = {event.new: time for time, event in heard if isinstance(event, StateChanged) and event.component == id_}
    [left] = [(time, event.component) for time, event in heard if isinstance(event, StopTimedOut)]
    assert states[State.STOPPING] == pytest.approx(1.0)
    assert left == (pytest.approx(3.0), id_)
    assert states[State.FAILED] == pytest.approx(3.0)
    assert results[0].status is ExitStatus.FAILED
    assert isinstance(results[0].errors[0], LeftBehindError)
