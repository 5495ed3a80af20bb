"""Orders that change something: restart, pause and resume, levels, stop; and that they change nothing else."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from kernel import State, StateChanged
from kernel._control.bridge import Bridge
from kernel._control.client import RefusedError
from kernel.abc import Context, Driver, NoConfig
from kernel.testing import open_kernel

from ._shop import looking, shop, states


async def pack(payload: Any) -> None:
    await trio.sleep(2)


@attrs.frozen
class Shelf(Driver[None]):
    """Nobody stands on it."""

    config: NoConfig
    context: Context

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        yield


async def fails() -> None:
    await trio.sleep(1)
    raise ValueError("no boxes")


def service(handler: Any = pack, **more: Any) -> Any:
    expected = more.pop("expected", ())
    classes = {"drivers": {"shelf": Shelf}, "workers": {"fails": fails}}
    return open_kernel(
        **shop(handler, drivers={"shelf": {"plugin": "shelf"}}, classes=classes, **more), expected=expected
    )


def restarts(kernel: Any) -> dict[str, int]:
    return {one.id: one.restarts for one in kernel.kernel.snapshot().components if one.restarts}


# --- restart ----------------------------------------------------------------------------------------------------------


async def test_a_restart_is_of_a_component_and_of_those_that_use_it(autojump_clock: Any) -> None:
    async with service() as kernel:
        told = kernel.kernel.restart("driver/queue")
        await trio.sleep(1)

        assert restarts(kernel) == {"driver/queue": 1, "driver/orders": 1, "dispatcher/work": 1}
        assert set(told) == set(restarts(kernel))
        assert kernel.kernel.is_ready
        await kernel.publish("orders", "a.b", 1)
        await kernel.wait_settled(1)


async def test_a_restart_lets_a_dispatcher_finish_what_it_has_begun(autojump_clock: Any) -> None:
    async with service() as kernel:
        await kernel.publish("orders", "a.b", 1)
        await trio.sleep(1)
        kernel.kernel.restart("dispatcher/work")
        await kernel.wait_settled(1)
        await trio.sleep(1)

        assert restarts(kernel) == {"dispatcher/work": 1}
        assert kernel.settled[0].attempt == 1


async def test_a_restart_while_a_restart_is_under_way_changes_nothing(autojump_clock: Any) -> None:
    async with service() as kernel:
        for _ in range(3):
            kernel.kernel.restart("driver/shelf")
        await trio.sleep(1)

        assert restarts(kernel) == {"driver/shelf": 1}
        assert kernel.kernel.is_ready


async def test_what_waits_to_be_started_again_starts_now(autojump_clock: Any) -> None:
    workers = {"fails": {"use": "fails", "restart": {"backoff_initial": 1000.0, "backoff_max": 1000.0}}}
    async with service(workers=workers, expected=ValueError) as kernel:
        await trio.sleep(2)
        assert kernel.kernel.states["worker/fails"] is State.BACKOFF
        kernel.kernel.restart("worker/fails")
        await trio.sleep(0.5)

        assert kernel.kernel.states["worker/fails"] is State.READY


async def test_one_instance_can_be_restarted_or_all(autojump_clock: Any) -> None:
    workers = {"packer": {"use": "packer", "dispatcher": "work", "instances": 3}}
    async with service(workers=workers) as kernel:
        kernel.kernel.restart("worker/packer[2]")
        await trio.sleep(1)
        one = restarts(kernel)
        kernel.kernel.restart("worker/packer")
        await trio.sleep(1)

        assert one == {"worker/packer[2]": 1}
        assert restarts(kernel) == {"worker/packer[1]": 1, "worker/packer[2]": 2, "worker/packer[3]": 1}


async def test_what_has_ended_for_good_is_not_restarted(autojump_clock: Any) -> None:
    workers = {"fails": {"use": "fails", "essential": False, "restart": {"policy": "never"}}}
    async with service(workers=workers, expected=ValueError) as kernel:
        await trio.sleep(2)

        with pytest.raises(ValueError, match="worker/fails has failed"):
            kernel.kernel.restart("worker/fails")


async def test_nothing_is_restarted_while_the_service_stops(autojump_clock: Any) -> None:
    async with service() as kernel:
        kernel.kernel.request_stop()

        with pytest.raises(ValueError, match="stops"):
            kernel.kernel.restart("driver/shelf")


async def test_a_stop_during_a_restart_is_in_order(autojump_clock: Any) -> None:
    async with service() as kernel:
        await kernel.publish("orders", "a.b", 1)
        await trio.sleep(1)
        kernel.kernel.restart("driver/queue")
        await trio.lowlevel.checkpoint()
        result = await kernel.stop()

    assert result.status == 0


# --- pause ------------------------------------------------------------------------------------------------------------


async def test_a_paused_dispatcher_finishes_what_it_has_begun_and_begins_nothing(autojump_clock: Any) -> None:
    async with service() as kernel:
        await kernel.publish("orders", "a.b", 1)
        await trio.sleep(1)
        kernel.kernel.pause("dispatcher/work")
        for number in range(10):
            await kernel.publish("orders", "a.b", number)
        await trio.sleep(60)
        settled = len(kernel.settled)
        in_flight = kernel.kernel.snapshot().components[-1].in_flight
        kernel.kernel.resume("dispatcher/work")
        await kernel.wait_settled(11)

        assert (settled, in_flight) == (1, 0)
        assert kernel.kernel.is_ready


async def test_a_pause_is_degraded_and_the_service_ready(autojump_clock: Any) -> None:
    async with service() as kernel:
        kernel.kernel.pause("dispatcher/work")
        paused = kernel.kernel.states["dispatcher/work"], kernel.kernel.is_ready, kernel.kernel.paused
        kernel.kernel.resume("dispatcher/work")

        assert paused == (State.DEGRADED, True, {"dispatcher/work"})
        assert kernel.kernel.states["dispatcher/work"] is State.READY
    moves = [
        event for event in kernel.events if isinstance(event, StateChanged) and event.component == "dispatcher/work"
    ]
    assert "paused: it takes nothing new" in [event.reason for event in moves]


@pytest.mark.parametrize("name", ["worker/packer", "dispatcher/other", "work"])
async def test_what_is_no_dispatcher_is_not_paused(autojump_clock: Any, name: str) -> None:
    async with service() as kernel:
        for call in (kernel.kernel.pause, kernel.kernel.resume):
            with pytest.raises(ValueError, match=f"{name} is no dispatcher"):
                call(name)


async def test_a_pause_outlives_a_restart(autojump_clock: Any) -> None:
    async with service() as kernel:
        kernel.kernel.pause("dispatcher/work")
        kernel.kernel.restart("driver/queue")
        await trio.sleep(1)
        await kernel.publish("orders", "a.b", 1)
        await trio.sleep(10)
        during = len(kernel.settled), kernel.kernel.states["dispatcher/work"]
        kernel.kernel.resume("dispatcher/work")
        await kernel.wait_settled(1)

        assert during == (0, State.DEGRADED)


async def test_to_pause_or_resume_again_changes_nothing(autojump_clock: Any) -> None:
    async with service() as kernel:
        kernel.kernel.resume("dispatcher/work")
        for _ in range(2):
            kernel.kernel.pause("dispatcher/work")
        for _ in range(2):
            kernel.kernel.resume("dispatcher/work")
        for number in range(8):
            await kernel.publish("orders", "a.b", number)
        await kernel.wait_settled(8)
        await trio.sleep(1)

        assert kernel.kernel.snapshot().components[-1].in_flight == 0


async def test_a_stop_while_it_is_paused_loses_nothing(autojump_clock: Any) -> None:
    async with service() as kernel:
        kernel.kernel.pause("dispatcher/work")
        await kernel.publish("orders", "a.b", 1)
        await trio.sleep(1)
        began = trio.current_time()
        result = await kernel.stop()

    assert result.status == 0
    assert trio.current_time() - began < 1
    assert not [one for one in kernel.settled if type(one.outcome).__name__ != "Return"]


# --- by the socket ----------------------------------------------------------------------------------------------------


async def quick(payload: Any) -> None:
    await trio.lowlevel.checkpoint()


async def test_orders_do_what_they_say(tmp_path: Path) -> None:
    async with looking(tmp_path, quick) as look:
        assert await look.ask("pause", component="work") == {"paused": "dispatcher/work"}
        tree = await look.ask("tree")
        assert (states(tree)["dispatcher/work"], tree["components"][-1]["paused"]) == ("degraded", True)
        assert await look.ask("resume", component="dispatcher/work") == {"resumed": "dispatcher/work"}
        assert await look.ask("restart", component="orders") == {"restarts": ["driver/orders"]}
        assert await look.ask("log-level", level="debug", name="driver/queue") == {
            "level": "info",
            "levels": {"driver/queue": "debug"},
        }
        assert look.log.settings.levels.of_component("driver/queue") == 10


@pytest.mark.parametrize("plugin", ["health", "prometheus"])
async def test_what_tells_how_the_service_is_is_not_paused(tmp_path: Path, plugin: str) -> None:
    async with looking(tmp_path, quick, dispatchers={"door": {"plugin": plugin, "bind": "127.0.0.1:0"}}) as look:
        with pytest.raises(RefusedError, match="dispatcher/door takes no work that could be paused"):
            await look.ask("pause", component="door")
        await look.ask("resume", component="door")

        assert states(await look.ask("tree"))["dispatcher/door"] == "ready"


@pytest.mark.parametrize(
    ("order", "component", "said"),
    [
        ("restart", "wrok", "there is no component 'wrok'; did you mean \"dispatcher/work\"?|there is no component"),
        ("pause", "queue", "there is no dispatcher 'queue'"),
        ("tap", "queue", "there is no dispatcher 'queue'"),
    ],
)
async def test_a_name_that_means_nothing_is_refused(tmp_path: Path, order: str, component: str, said: str) -> None:
    argument = {"dispatcher" if order == "tap" else "component": component}
    async with looking(tmp_path, quick) as look:
        with pytest.raises(RefusedError, match=said):
            await look.ask(order, **argument)


async def test_a_name_that_may_mean_several_is_refused(tmp_path: Path) -> None:
    drivers = {"work": {"plugin": "publisher", "driver": "queue", "protocol": "json"}}
    async with looking(tmp_path, quick, drivers=drivers) as look:
        with pytest.raises(RefusedError, match="may mean dispatcher/work or driver/work"):
            await look.ask("restart", component="work")


async def test_a_stop_is_in_order(tmp_path: Path) -> None:
    async with looking(tmp_path, quick) as look:
        answer = await look.ask("stop")
        await look.service.kernel.wait_stop_requested()

    assert answer == {"pid": os.getpid(), "grace_period": 25.0}
    assert look.service.kernel.snapshot().reason == "kernel stop"


async def test_a_stop_of_a_service_whose_loop_is_blocked_is_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which begins the grace period, at whose end the process is ended."""

    async def blocked(bridge: Any, call: Any, *arguments: object) -> None:
        await trio.lowlevel.checkpoint()
        raise RefusedError("blocked")

    sent: list[tuple[int, int]] = []
    killed, here = trio.Event(), trio.lowlevel.current_trio_token()

    def kill(*sent_to: int) -> None:
        if sent_to[1]:  # 0 asks whether a process is there
            sent.append(sent_to)
            here.run_sync_soon(killed.set)

    monkeypatch.setattr(Bridge, "ask", blocked)
    monkeypatch.setattr("os.kill", kill)
    async with looking(tmp_path, quick) as look:
        await look.ask("stop")
        with trio.fail_after(20):
            await killed.wait()

    assert sent == [(os.getpid(), signal.SIGTERM)]


# --- rates ------------------------------------------------------------------------------------------------------------


async def test_a_tree_says_how_many_deliveries_a_dispatcher_takes_in_a_second(tmp_path: Path) -> None:
    async with looking(tmp_path, quick) as look:
        await look.ask("tree")
        for number in range(70):
            await look.service.publish("orders", "a.b", number)
        await look.service.wait_settled(70)
        taken = look.service.kernel.taken()
        tree = await look.ask("tree")

    assert taken == {"dispatcher/work": 70}
    assert tree["components"][-1]["per_second"] > 0
