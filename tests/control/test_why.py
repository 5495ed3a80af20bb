"""What a service says that it waits for, in every state that it may wait in: the truth table of `kernel why`."""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from kernel import handles
from kernel._supervise.why import Cause
from kernel.abc import Complaints, Context, Driver, NoConfig
from kernel.errors import NoWorkerError
from kernel.testing import open_kernel

from ._shop import shop


async def pack(payload: Any) -> None:
    await trio.sleep(100)  # here


async def fails() -> None:
    await trio.sleep(1)
    raise ValueError("no boxes")


@attrs.frozen
class Slow(Driver[None]):
    """Opens in ten seconds."""

    config: NoConfig
    context: Context

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await trio.sleep(10)
        yield


@attrs.frozen
class Away(Driver[None]):
    """Cannot be opened."""

    config: NoConfig
    context: Context

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        raise ConnectionError("db is away")
        yield


@attrs.frozen
class Weak(Driver[None]):
    """Works badly."""

    config: NoConfig
    context: Context

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        self.context.report_degraded("one of two links is lost")
        yield


@attrs.frozen
class Stays(Driver[None]):
    """Takes its time to close."""

    config: NoConfig
    context: Context

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        try:
            await trio.lowlevel.checkpoint()
            yield
        finally:
            await trio.sleep(1)


@attrs.frozen
class Hangs(Driver[None]):
    """Closes when it likes, whoever cancels it."""

    config: NoConfig
    context: Context

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        try:
            await trio.lowlevel.checkpoint()
            yield
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)


@attrs.frozen
class Tries(Driver[None]):
    """Tries again and again, each time with another reason, until it is open; a second it is well, and then it is not."""

    config: NoConfig
    context: Context

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        complaints = Complaints(self.context)
        for text in ("no route", "refused"):
            complaints.warn("link", text)
            await trio.sleep(1)
        complaints.recover("link")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ail, complaints)
            yield
            nursery.cancel_scope.cancel()

    async def _ail(self, complaints: Complaints) -> None:
        for text in ("reset", "refused"):
            await trio.sleep(1)
            complaints.complain("link", text)
        await trio.sleep(1)
        complaints.recover("link")


DRIVERS = {"tries": Tries, "slow": Slow, "away": Away, "weak": Weak, "stays": Stays, "hangs": Hangs}


def service(*drivers: str, ready: bool = True, expected: Any = (), **more: Any) -> Any:
    """A shop whose packer stands on drivers."""
    tables: dict[str, Any] = {"drivers": {name: {"plugin": name} for name in drivers}}
    if drivers:
        tables["workers"] = {
            "packer": {"use": "packer", "dispatcher": "work", "depends": [f"driver/{n}" for n in drivers]}
        }
    for name, table in more.items():
        tables[name] = {**tables.get(name, {}), **table}
    classes = {"drivers": {name: DRIVERS[name] for name in drivers}, "workers": {"fails": fails}}
    return open_kernel(**shop(pack, classes=classes, **tables), ready=ready, expected=expected)


@pytest.fixture
def autojump_clock(autojump_clock: MockClock) -> MockClock:
    """A clock that does not begin at zero, as that of no service does: what subtracts two times of different clocks,
    or one that was never set, comes to days."""
    autojump_clock.jump(500_000.0)
    return autojump_clock


def said(kernel: Any) -> dict[str, Cause]:
    """What is said of each component, with its line of code; none of it for longer than the service is old."""
    causes = told_of(kernel)
    return {cause.component: cause.located() for cause in causes}


def told_of(kernel: Any) -> list[Cause]:
    snapshot, causes = kernel.kernel.snapshot(), kernel.kernel.why()
    times = [cause.seconds for cause in causes] + [one.seconds for one in snapshot.components]
    assert all(0.0 <= seconds <= snapshot.seconds for seconds in (*times, snapshot.stopping_for))
    return list(causes)


def left(kernel: Any, cause: Cause) -> float:
    return round(cause.until - kernel.kernel.now(), 1)


async def test_a_service_that_is_ready_waits_for_nothing(autojump_clock: Any) -> None:
    async with service() as kernel:
        assert not said(kernel)


async def test_starting(autojump_clock: Any) -> None:
    async with service("slow", ready=False) as kernel:
        await trio.sleep(1)
        causes = said(kernel)

    assert set(causes) == {"driver/slow", "worker/packer", "dispatcher/work"}
    slow = causes["driver/slow"]
    assert (slow.what, slow.then, slow.seconds) == ("starts", "it is cancelled", pytest.approx(1.0))
    assert slow.until == pytest.approx(kernel.kernel._began + 30.0)
    assert slow.where.startswith(f"{__file__}:")
    assert causes["worker/packer"].what == "waits for driver/slow"
    assert causes["dispatcher/work"].what == "waits for worker/packer"


async def test_what_keeps_a_driver_from_starting_and_what_ails_it_is_what_it_said_last(autojump_clock: Any) -> None:
    async with service("tries", ready=False) as kernel:
        told: list[str | None] = []
        for _ in range(5):
            await trio.sleep(0.9)
            told.append(cause.what if (cause := said(kernel).get("driver/tries")) else None)
            await trio.sleep(0.1)

        assert told == ["starts: no route", "starts: refused", None, "is degraded: reset", "is degraded: refused"]
        await trio.sleep(0.1)
        assert not said(kernel)


async def test_a_driver_that_cannot_be_opened_blocks_those_who_use_it(autojump_clock: Any) -> None:
    async with service("away", ready=False, expected=ConnectionError) as kernel:
        await trio.sleep(2)
        causes = said(kernel)
        wait = left(kernel, causes["driver/away"])

    assert causes["driver/away"].what == "waits to start again after ConnectionError: db is away"
    assert 0 < wait < 10
    assert causes["driver/away"].then == "it starts"
    assert causes["worker/packer"].what == "waits for driver/away"


async def test_a_worker_that_restarts(autojump_clock: Any) -> None:
    workers = {"fails": {"use": "fails", "restart": {"backoff_initial": 5.0, "jitter": 0.0}}}
    async with service(workers=workers, expected=ValueError) as kernel:
        await trio.sleep(2)
        causes = said(kernel)
        wait = left(kernel, causes["worker/fails"])

    assert list(causes) == ["worker/fails"]
    assert causes["worker/fails"].what == "waits to start again after ValueError: no boxes"
    assert wait == 4.0


async def test_a_driver_that_is_degraded(autojump_clock: Any) -> None:
    async with service("weak") as kernel:
        causes = said(kernel)

    assert {id_: cause.what for id_, cause in causes.items()} == {
        "driver/weak": "is degraded: one of two links is lost"
    }


async def test_a_worker_that_its_kill_switch_pauses(autojump_clock: Any) -> None:
    async def broken(payload: Any) -> None:
        raise ValueError("no boxes")

    packer = {
        "use": "packer", "dispatcher": "work", "retry": {"attempts": 1},
        "kill_switch": {"minimum": 2, "pause": 20.0},
    }  # fmt: skip
    async with open_kernel(**shop(broken, workers={"packer": packer}), expected=ValueError) as kernel:
        for _ in range(2):
            await kernel.publish("orders", "a.b", 1)
        await kernel.wait_settled(2)
        await trio.sleep(5)
        causes = said(kernel)
        wait = left(kernel, causes["worker/packer"])

    assert causes["worker/packer"].what == "is degraded: paused: 2 of 2 calls failed within 60 s"
    assert causes["worker/packer"].then == "one call tries whether it works again"
    assert wait == 15.0


async def test_a_dispatcher_that_somebody_has_paused(autojump_clock: Any) -> None:
    async with service() as kernel:
        kernel.kernel.pause("dispatcher/work")
        causes = said(kernel)

    assert causes["dispatcher/work"].what == "is degraded: paused: it takes nothing new"


async def test_a_handler_that_takes_long(autojump_clock: Any) -> None:
    packer = {"use": "packer", "dispatcher": "work", "timeout": 60.0}
    async with service(workers={"packer": packer}) as kernel:
        await kernel.publish("orders", "a.b", 1)
        await trio.sleep(3)
        early = said(kernel)
        await trio.sleep(7)
        causes = said(kernel)
        wait = left(kernel, causes["worker/packer"])
        kernel.kernel.request_stop()
        kernel.kernel.hasten()

    assert not early
    cause = causes["worker/packer"]
    assert "handles delivery" in cause.what
    assert "('a.b') of dispatcher/work" in cause.what
    assert cause.seconds == pytest.approx(10.0, abs=0.1)
    assert wait == 50.0
    assert cause.where == f"{__file__}:{pack.__code__.co_firstlineno + 1}"


async def test_of_many_handlers_the_oldest_are_told_and_the_others_counted(autojump_clock: Any) -> None:
    work = {"plugin": "consumer", "queue": "work", "bindings": ["#"], "concurrency": 50, "driver": "queue"}
    async with service(dispatchers={"work": {**work, "protocol": "json"}}) as kernel:
        for number in range(30):
            await kernel.publish("orders", "a.b", number)
        await trio.sleep(10)
        causes = told_of(kernel)
        kernel.kernel.request_stop()
        kernel.kernel.hasten()

    assert [cause.component for cause in causes] == ["worker/packer"] * 10 + ["dispatcher/work"]
    assert causes[-1].what == "has 20 more deliveries under way"


@pytest.mark.slow
async def test_an_event_loop_that_is_blocked() -> None:
    """Asked in another thread, since nobody else can answer."""
    async with service() as kernel:
        found: list[Cause] = []
        asked = threading.Event()

        def ask() -> None:
            asked.wait(0.7)  # never set: for so long the loop has been blocked
            found.extend(kernel.kernel.why())
            done.set()

        done = threading.Event()
        await trio.lowlevel.checkpoint()
        threading.Thread(target=ask).start()
        done.wait(10)  # blocks the loop

    [cause] = found
    assert (cause.component, cause.what) == ("kernel", "the event loop is blocked, so nothing else goes on")
    assert 0.5 < cause.seconds < 10
    assert cause.where.startswith(f"{__file__}:")


async def test_draining(autojump_clock: Any) -> None:
    async with service() as kernel:
        await kernel.publish("orders", "a.b", 1)
        await trio.sleep(1)
        kernel.kernel.request_stop("SIGTERM")
        await trio.sleep(2)
        causes = said(kernel)
        waits = {id_: left(kernel, cause) for id_, cause in causes.items()}

    assert causes["kernel"].what == "stops: SIGTERM"
    assert (waits["kernel"], causes["kernel"].then) == (23.0, "the process is ended")
    assert causes["dispatcher/work"].what == "drains: 1 in flight"
    assert (waits["dispatcher/work"], causes["dispatcher/work"].then) == (
        13.0,
        "what is in flight is cancelled and goes back",
    )
    assert "handles delivery" in causes["worker/packer"].what
    assert causes["worker/packer"].where.startswith(f"{__file__}:")


async def test_a_component_that_closes(autojump_clock: Any) -> None:
    async with service("stays") as kernel:
        kernel.kernel.request_stop()
        await trio.sleep(0.5)
        causes = said(kernel)
        wait = left(kernel, causes["driver/stays"])

    assert causes["driver/stays"].what == "closes"
    assert (wait, causes["driver/stays"].then) == (1.5, "it is left behind")
    assert causes["driver/stays"].where.startswith(f"{__file__}:")


async def test_a_component_that_was_left_behind_is_not_said_to_be_closing(autojump_clock: Any) -> None:
    async with service("hangs", expected=Exception) as kernel:
        kernel.kernel.request_stop()
        await trio.sleep(3)
        causes = said(kernel)

    assert causes["driver/hangs"].what == "hangs: it was left behind when its stop_timeout was over"
    assert (causes["driver/hangs"].until, causes["driver/hangs"].then) == (math.inf, "")
    assert causes["driver/hangs"].where.startswith(f"{__file__}:")


async def test_a_worker_that_restarts_waits_for_what_its_dispatcher_has_begun(autojump_clock: Any) -> None:
    async with service() as kernel:
        await kernel.publish("orders", "a.b", 1)
        await trio.sleep(1)
        kernel.kernel.restart("worker/packer")
        await trio.sleep(1)
        causes = said(kernel)

    assert causes["worker/packer"].what == "drains, after dispatcher/work"


async def test_a_component_that_has_failed_for_good(autojump_clock: Any) -> None:
    workers = {"fails": {"use": "fails", "essential": False, "restart": {"policy": "never"}}}
    async with service(workers=workers, expected=ValueError) as kernel:
        await trio.sleep(2)
        causes = said(kernel)

    assert causes["worker/fails"].what == "has failed for good: ValueError: no boxes"


async def test_a_worker_that_fails_at_everything(autojump_clock: Any) -> None:
    async def broken(payload: Any) -> None:
        if payload != "good":
            raise ValueError(f"no boxes for {payload}")

    packer = {"use": "packer", "dispatcher": "work", "retry": {"attempts": 1}}
    async with open_kernel(**shop(broken, workers={"packer": packer}), expected=ValueError) as kernel:
        for number in range(2):
            await kernel.publish("orders", "a.b", number)
        await kernel.wait_settled(2)
        few = said(kernel)
        for number in range(2, 199):
            await kernel.publish("orders", "a.b", number)
        await kernel.wait_settled(199)
        await kernel.publish("orders", "a.b", 199)
        await kernel.wait_settled(200)
        await trio.sleep(5)
        causes = told_of(kernel)
        await kernel.publish("orders", "a.b", "good")
        await kernel.wait_settled(201)
        afterwards = said(kernel)

    [cause] = causes
    assert (few, afterwards) == ({}, {})
    assert cause.component == "worker/packer"
    assert cause.what == (
        "failed at the last 200 deliveries of dispatcher/work, at the last with ValueError: no boxes for 199"
    )
    assert cause.seconds >= 5.0


async def test_a_dispatcher_that_brings_what_no_worker_takes(autojump_clock: Any) -> None:
    class Packer:
        @handles("a.b")
        async def pack(self, payload: Any) -> None:
            await trio.lowlevel.checkpoint()

    async with open_kernel(**shop(Packer), expected=NoWorkerError) as kernel:
        for _ in range(3):
            await kernel.publish("orders", "x.y", 1)
        await kernel.wait_settled(3)
        [cause] = told_of(kernel)

    assert cause.component == "dispatcher/work"
    assert cause.what == (
        "failed at the last 3 deliveries that it brought, at the last with NoWorkerError: no worker handles 'x.y'"
    )


async def test_what_has_its_slot_and_was_not_begun_yet_is_kept_for_no_time(autojump_clock: Any) -> None:
    async def quick(payload: Any) -> None:
        await trio.lowlevel.checkpoint()

    async with open_kernel(**shop(quick)) as kernel:
        await kernel.publish("orders", "a.b", 0)
        await kernel.wait_settled(1)  # so that a task is idle, which does not begin in the turn in which it is woken
        for number in range(20):
            await kernel.publish("orders", "a.b", number)
            told_of(kernel)
            await trio.lowlevel.checkpoint()
            told_of(kernel)
        await kernel.wait_settled(21)
