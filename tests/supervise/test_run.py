"""A service from start to end, as the program around it sees it; in virtual time."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from typing_extensions import override

from kernel import Envelope, Message, Return, handles
from kernel._core.events import (
    ComponentFailed,
    DrainTimedOut,
    EventHub,
    GracePeriodOver,
    KernelReady,
    KernelStopped,
    StateChanged,
    StopRequested,
)
from kernel._core.lifecycle import State
from kernel._core.spec import Plan
from kernel._delivery.failure import describe
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve
from kernel._supervise.kernel import ExitStatus, Kernel, Result
from kernel._supervise.run import serve
from kernel.abc import Context, Dispatcher, Driver, Intake, NoConfig, Protocol
from kernel.errors import StartupError, UnavailableError
from kernel.testing import fake_context, open_kernel

LOG = fake_context().log
ONCE: Mapping[str, object] = {"restart": {"policy": "never"}}


def registry(**workers: object) -> Registry:
    return Registry.of({
        "workers": workers,
        "drivers": {"given": GivenDriver},
        "dispatchers": {"quiet": Quiet, "returns": Returns},
        "protocols": {"refuses": Refuses},
    })


def manifest(*workers: str, **tables: Any) -> dict[str, Any]:
    return {
        "kernel": {"name": "test", "grace_period": 12.0, "drain_timeout": 1.0},
        "workers": {name: {"use": name, **tables.pop(name, {})} for name in workers},
        **tables,
    }


def plan(table: Mapping[str, object], **workers: object) -> Plan:
    return resolve(from_mapping(table, environ={}), registry(**workers))


@attrs.frozen
class GivenDriver(Driver[str]):
    config: NoConfig
    context: Context

    @override
    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        await trio.sleep(2)
        yield "resource"


@attrs.frozen
class Quiet(Dispatcher):
    """Brings in nothing."""

    speaks = True
    config: NoConfig
    context: Context

    @override
    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        yield

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()


@attrs.frozen
class Returns(Quiet):
    """Never says that it is ready."""

    speaks = False

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        await trio.lowlevel.checkpoint()


@attrs.frozen
class Refuses(Protocol):
    """Cannot be built."""

    config: NoConfig
    context: Context

    def __attrs_post_init__(self) -> None:
        raise OSError("no table of symbols")

    @override
    def decode(self, envelope: Envelope) -> Message:
        raise NotImplementedError

    @override
    def encode(self, message: Message) -> Envelope:
        raise NotImplementedError

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        raise NotImplementedError


class Serves:
    """A worker that only serves."""

    @handles("#")
    async def on(self, payload: object) -> None: ...


async def loops() -> None:
    await trio.sleep_forever()


async def ends() -> None:
    await trio.sleep(3)


async def fails() -> None:
    await trio.sleep(3)
    raise ValueError("why")


async def never_starts() -> None:
    await trio.lowlevel.checkpoint()
    raise StartupError("never")


def events_of(hub: EventHub) -> list[Any]:
    heard: list[Any] = []
    hub.subscribe(heard.append)
    return heard


# --- how it ends ------------------------------------------------------------------------------------------------------


async def test_a_service_with_nothing_left_to_run_stops_cleanly(autojump_clock: Any) -> None:
    hub = EventHub()
    heard = events_of(hub)
    result = await serve(plan(manifest("ends", ends=ONCE), ends=ends), log=LOG, hub=hub)

    assert result == Result(ExitStatus.STOPPED, (), ran_to_end=True)
    assert trio.current_time() == pytest.approx(3.0)
    assert [event.reason for event in heard if isinstance(event, StopRequested)] == ["nothing is left to run"]
    assert heard[-1] == KernelStopped(component="kernel", status=0, seconds=0.0)


async def test_a_service_whose_component_fails_has_failed_and_says_why(autojump_clock: Any) -> None:
    result = await serve(plan(manifest("fails", "loops", fails=ONCE), fails=fails, loops=loops), log=LOG)

    assert result.status is ExitStatus.FAILED
    assert [repr(error) for error in result.errors] == ["ValueError('why')"]


async def test_a_protocol_that_cannot_be_built_is_a_failure(autojump_clock: Any) -> None:
    table = manifest(
        "w",
        w={"dispatcher": "d"},
        dispatchers={"d": {"plugin": "quiet", "protocol": "refuses"}},
    )

    hub = EventHub()
    heard = events_of(hub)
    result = await serve(plan(table, w=Serves), log=LOG, hub=hub)

    assert result.status is ExitStatus.FAILED
    assert str(result.errors[0]) == "protocol/refuses cannot be built: OSError: no table of symbols"
    assert [type(event) for event in heard] == [ComponentFailed, StopRequested, KernelStopped]


async def test_a_dispatcher_that_returns_without_having_started_is_a_failure(autojump_clock: Any) -> None:
    table = manifest("w", w={"dispatcher": "d"}, dispatchers={"d": {"plugin": "returns"}})
    result = await serve(plan(table, w=Serves), log=LOG)

    assert result.status is ExitStatus.FAILED
    assert "without calling task_status.started()" in describe(result.errors[0])


async def test_a_stop_that_outlasts_the_grace_period_is_cut(autojump_clock: Any) -> None:
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)

    made = attrs.evolve(plan(manifest("w"), w=stubborn), grace_period=0.1)
    async with trio.open_nursery() as nursery:
        ended: list[Result] = []

        async def run(task_status: trio.TaskStatus[Kernel]) -> None:
            ended.append(await serve(made, log=LOG, task_status=task_status))

        kernel: Kernel = await nursery.start(run)
        await kernel.wait_ready()
        kernel.request_stop()

    assert ended == [Result(ExitStatus.CUT, ())]


@pytest.mark.parametrize("ends_at", [5.0, 100.0])
async def test_what_a_service_waits_for_when_its_grace_period_is_over_is_told(
    autojump_clock: Any, ends_at: float
) -> None:
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_until(ends_at)

    hub = EventHub()
    heard: list[tuple[float, tuple[str, ...]]] = []
    hub.subscribe(lambda event: heard.append((trio.current_time(), event.culprits)), GracePeriodOver)
    async with trio.open_nursery() as nursery:
        serving = functools.partial(serve, plan(manifest("w"), w=stubborn), log=LOG, hub=hub)
        kernel: Kernel = await nursery.start(serving)
        await kernel.wait_ready()
        kernel.request_stop()

    line = stubborn.__code__.co_firstlineno + 2
    assert heard == ([] if ends_at < 12 else [(12.0, (f"worker/w at {__file__}:{line}",))])
    assert trio.current_time() == ends_at


async def test_a_service_that_is_cancelled_is_cancelled_without_a_drain(autojump_clock: Any) -> None:
    closed: list[str] = []

    async def loop() -> None:
        try:
            await trio.sleep_forever()
        finally:
            closed.append("loop")

    with trio.move_on_after(5) as scope:
        await serve(plan(manifest("w"), w=loop), log=LOG)

    assert scope.cancelled_caught
    assert closed == ["loop"]
    assert trio.current_time() == pytest.approx(5.0)


# --- what can be seen of it -------------------------------------------------------------------------------------------


async def test_readiness_comes_with_the_last_component_and_goes_with_the_stop(autojump_clock: Any) -> None:
    table = manifest("w", drivers={"d": {"plugin": "given"}}, w={"depends": ["driver/d"]})
    async with open_kernel(table, registry=registry(w=loops), ready=False) as service:
        assert not service.kernel.is_ready

        await service.kernel.wait_ready()

        assert service.kernel.is_ready
        service.kernel.request_stop()
        assert not service.kernel.is_ready

    [ready] = [event for event in service.events if isinstance(event, KernelReady)]
    assert ready.seconds == pytest.approx(2.0)


async def test_a_service_is_ready_without_what_is_not_essential(autojump_clock: Any) -> None:
    table = manifest("w", "never", never={"essential": False})
    async with open_kernel(table, registry=registry(w=loops, never=never_starts)) as service:
        assert service.kernel.is_ready
        await service.wait_event(StateChanged, lambda event: event.new is State.FAILED)
        assert service.kernel.is_ready
        assert service.kernel.states == {"worker/w": State.READY, "worker/never": State.FAILED}


@pytest.mark.parametrize("driver_fails_at", [1.0, 2.5, math.inf])
async def test_a_service_says_that_it_is_ready_when_it_is(autojump_clock: Any, driver_fails_at: float) -> None:
    """`d` is down while the worker gets ready, at 2 s, or breaks when the service has been ready for a while."""
    lives: list[float] = []

    async def breaks() -> None:
        lives.append(trio.current_time())
        await trio.sleep(driver_fails_at if len(lives) == 1 else math.inf)
        raise OSError("lost")

    table = manifest("w", "breaks", drivers={"d": {"plugin": "given"}}, w={"depends": ["driver/d"]})
    table["workers"]["breaks"]["restart"] = {"backoff_initial": 2.0, "jitter": 0.0}
    ready_at = 3.0 if driver_fails_at == 1.0 else 2.0
    async with open_kernel(table, registry=registry(w=loops, breaks=breaks), expected=OSError) as service:
        first = trio.current_time(), service.kernel.is_ready
        await trio.sleep_until(3.0)
        await service.kernel.wait_ready()
        again = trio.current_time(), service.kernel.is_ready
        await trio.sleep(10)

    [event] = [event for event in service.events if isinstance(event, KernelReady)]
    assert first == (pytest.approx(ready_at), True)
    assert again == (pytest.approx(4.5 if driver_fails_at == 2.5 else 3.0), True)
    assert event.seconds == pytest.approx(ready_at)


async def test_a_service_that_stops_before_it_was_ready_never_says_that_it_is(autojump_clock: Any) -> None:
    table = manifest("w", drivers={"d": {"plugin": "given"}}, w={"depends": ["driver/d"]})
    async with open_kernel(table, registry=registry(w=loops), ready=False) as service:
        await trio.sleep(1)
        await service.stop()

    assert not [event for event in service.events if isinstance(event, KernelReady)]


async def test_who_waits_for_readiness_is_told_why_it_never_comes(autojump_clock: Any) -> None:
    with pytest.raises(StartupError, match=r"^test stopped before it was ready$") as caught:
        async with open_kernel(manifest("never"), registry=registry(never=never_starts)):
            raise AssertionError

    assert repr(caught.value.__cause__) == "StartupError('never')"


async def test_instances_have_states_of_their_own(autojump_clock: Any) -> None:
    async with open_kernel(manifest("w", w={"instances": 2}), registry=registry(w=loops)) as service:
        assert service.kernel.states == {"worker/w[1]": State.READY, "worker/w[2]": State.READY}


async def test_resources_are_there_while_their_component_is_ready(autojump_clock: Any) -> None:
    table = manifest("w", drivers={"d": {"plugin": "given"}})
    async with open_kernel(table, registry=registry(w=loops), ready=False) as service:
        with pytest.raises(UnavailableError, match=r"^driver/d is starting|created$"):
            service.kernel.resource("driver/d")

        await service.kernel.wait_ready()

        assert service.kernel.resource("driver/d") == "resource"
        assert service.kernel.resource("worker/w") is loops
        with pytest.raises(UnavailableError, match=r"^driver/other is not in the manifest$"):
            service.kernel.resource("driver/other")
    with pytest.raises(UnavailableError, match=r"^driver/d is stopped$"):
        service.kernel.resource("driver/d")


async def test_only_the_first_stop_request_counts(autojump_clock: Any) -> None:
    async with open_kernel(manifest("w"), registry=registry(w=loops)) as service:
        await trio.sleep(4)
        service.kernel.request_stop("first")
        service.kernel.request_stop("second")

        assert await service.kernel.wait_stop_requested() == pytest.approx(4.0)

    assert [event.reason for event in service.events if isinstance(event, StopRequested)] == ["first"]


async def test_what_hangs_is_named_with_its_line(autojump_clock: Any) -> None:
    async with open_kernel(manifest("w"), registry=registry(w=loops)) as service:
        hanging = service.kernel.hanging()

        await service.stop()

        assert hanging == [f"worker/w at {__file__}:{loops.__code__.co_firstlineno + 1}"]
        assert not service.kernel.hanging()


# --- what components are given ----------------------------------------------------------------------------------------


async def test_a_component_reports_that_it_is_degraded_and_ready_again(autojump_clock: Any) -> None:
    contexts: list[Context] = []

    @attrs.frozen
    class Reports(GivenDriver):
        def __attrs_post_init__(self) -> None:
            contexts.append(self.context)

    table = manifest("w", drivers={"d": {"plugin": "reports"}})
    given = Registry.of({"drivers": {"reports": Reports}, "workers": {"w": loops}})
    async with open_kernel(table, registry=given) as service:
        [context] = contexts
        context.report_degraded("gone")
        degraded = service.kernel.states["driver/d"], service.kernel.is_ready
        context.report_ready()

        assert degraded == (State.DEGRADED, True)
        assert service.kernel.states["driver/d"] is State.READY

    assert (context.id, context.name, context.service) == ("driver/d", "d", "test")
    reasons = [event.reason for event in service.events if isinstance(event, StateChanged) and event.reason]
    assert reasons == ["gone"]


@pytest.mark.parametrize("is_restarted", [True, False])
async def test_what_breaks_while_all_stop_makes_nobody_degraded(*, is_restarted: bool, autojump_clock: Any) -> None:
    contexts: list[Context] = []

    @attrs.frozen
    class Reports(GivenDriver):
        def __attrs_post_init__(self) -> None:
            contexts.append(self.context)

    async def stops_first(d: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            contexts[-1].report_degraded("a connection broke")

    table = manifest("w", drivers={"d": {"plugin": "reports"}})
    given = Registry.of({"drivers": {"reports": Reports}, "workers": {"w": stops_first}})
    async with open_kernel(table, registry=given) as service:
        if is_restarted:
            service.kernel.restart("driver/d")
            await trio.sleep(10)
            contexts[-1].report_degraded("of the new life")
            assert service.kernel.states["driver/d"] is State.DEGRADED

    reasons = [event.reason for event in service.events if isinstance(event, StateChanged) and event.reason]
    assert [reason for reason in reasons if reason != "of the new life"] == []


async def test_a_function_is_given_its_drivers(autojump_clock: Any) -> None:
    got: list[object] = []

    async def asks(d: str) -> None:
        got.append(d)
        await trio.sleep_forever()

    table = manifest("asks", drivers={"d": {"plugin": "given"}})
    async with open_kernel(table, registry=registry(asks=asks)):
        await trio.sleep(1)

    assert got == ["resource"]


async def test_a_worker_that_is_a_context_is_entered_before_it_runs_and_left_last(autojump_clock: Any) -> None:
    order: list[str] = []

    class Worker:
        async def __aenter__(self) -> None:
            order.append("entered")

        async def __aexit__(self, *_: object) -> None:
            order.append("left")

        async def run(self) -> None:
            order.append("runs")
            await trio.sleep_forever()

    async with open_kernel(manifest("w"), registry=registry(w=Worker)):
        await trio.sleep(1)

    assert order == ["entered", "runs", "left"]


async def test_a_worker_is_given_its_config(autojump_clock: Any) -> None:
    got: list[object] = []

    async def configured(config: dict[str, int]) -> None:
        got.append(config)
        await trio.sleep_forever()

    async with open_kernel(manifest("w", w={"config": {"size": 3}}), registry=registry(w=configured)):
        await trio.sleep(1)

    assert got == [{"size": 3}]


async def test_workers_of_a_group_restart_together(autojump_clock: Any) -> None:
    starts: list[str] = []

    async def one() -> None:
        starts.append("one")
        await trio.sleep(3)
        raise ValueError("why")

    async def two() -> None:
        starts.append("two")
        await trio.sleep_forever()

    groups = {"pair": {"strategy": "one_for_all", "members": ["one", "two"]}}
    async with open_kernel(
        manifest("one", "two", groups=groups), registry=registry(one=one, two=two), expected=ValueError
    ):
        await trio.sleep(5)

    assert sorted(starts) == ["one", "one", "two", "two"]


async def test_what_is_in_flight_at_the_drain_timeout_is_named_and_cut(autojump_clock: Any) -> None:
    class Hangs:
        @handles("#")
        async def on(self, payload: object) -> None:
            await trio.sleep_forever()

    broker = {"driver": "queue", "protocol": "json"}
    table = manifest(
        "w",
        w={"dispatcher": "d"},
        drivers={"queue": {"plugin": "memory"}, "events": {"plugin": "publisher", **broker}},
        dispatchers={"d": {"plugin": "consumer", "queue": "work", "bindings": ["#"], **broker}},
    )
    given = Registry((*discover().plugins, *Registry.of({"workers": {"w": Hangs}}).plugins))
    async with open_kernel(table, registry=given) as service:
        await service.publish("events", "a.b", 1)
        await trio.sleep(1)
        began = trio.current_time()
        result = await service.stop()

    [cut] = [event for event in service.events if isinstance(event, DrainTimedOut)]
    assert result.status is ExitStatus.CUT
    assert trio.current_time() - began == pytest.approx(1.0)
    assert [event.outcome for event in service.settled] == [Return()]
    assert "('a.b') at " in cut.culprits[0]


async def test_a_source_that_has_ended_ends_its_dispatcher(autojump_clock: Any) -> None:
    @attrs.frozen
    class EndsSoon(Quiet):
        speaks = False

        @override
        async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await trio.sleep(3)

    given = Registry.of({"dispatchers": {"ends": EndsSoon}, "workers": {"w": Serves}})
    table = manifest("w", w={"dispatcher": "d"}, dispatchers={"d": {"plugin": "ends", **ONCE}})
    result = await serve(resolve(from_mapping(table, environ={}), given), log=LOG)

    assert result.status is ExitStatus.STOPPED
    assert trio.current_time() == pytest.approx(3.0)


async def test_a_protocol_has_no_state_to_report(autojump_clock: Any) -> None:
    contexts: list[Context] = []

    @attrs.frozen
    class Reports(Refuses):
        @override
        def __attrs_post_init__(self) -> None:
            contexts.append(self.context)

    given = Registry.of({"dispatchers": {"quiet": Quiet}, "protocols": {"reports": Reports}, "workers": {"w": Serves}})
    table = manifest("w", w={"dispatcher": "d"}, dispatchers={"d": {"plugin": "quiet", "protocol": "reports"}})
    async with open_kernel(table, registry=given) as service:
        contexts[0].report_degraded("nobody asks")

        assert "protocol/reports" not in service.kernel.states
        assert set(service.kernel.states.values()) == {State.READY}
