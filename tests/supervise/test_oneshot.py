"""A worker that does something once, and those that depend on its having been done."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from kernel import KernelReady, State, StateChanged, handles
from kernel._core.policies import Restart
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve
from kernel.errors import PlanError
from kernel.testing import open_kernel


@attrs.define(eq=False)
class Migration:
    """Fails for some times, then takes some seconds."""

    seconds: float = 100.0
    fails: int = 0
    begun: int = 0
    left: list[float] = attrs.field(factory=list)

    async def run(self) -> None:
        self.begun += 1
        try:
            await trio.sleep(self.seconds)
        finally:
            self.left.append(trio.current_time())
        if self.begun <= self.fails:
            raise OSError("locked")


def service(migration: Migration, started: list[float], **more: Any) -> dict[str, Any]:
    async def app() -> None:
        started.append(trio.current_time())
        await trio.sleep_forever()

    class Worker:
        async def __aenter__(self) -> None:
            await trio.lowlevel.checkpoint()

        async def __aexit__(self, *_: object) -> None:
            await trio.sleep(0.5)

        async def run(self) -> None:
            await migration.run()

    table = {"use": "migrate", "oneshot": True, "restart": {"backoff_initial": 1.0, "jitter": 0.0}, **more}
    return {
        "manifest": {
            "kernel": {"name": "test"},
            "workers": {"migrate": table, "app": {"use": "app", "depends": ["migrate"]}},
        },
        "registry": Registry.of({"workers": {"migrate": Worker, "app": app}}),
        "expected": OSError,
    }


@pytest.mark.parametrize(("fails", "done"), [(0, 100.5), (1, 202.0)])
async def test_who_depends_on_it_starts_when_it_is_done(autojump_clock: object, fails: int, done: float) -> None:
    """Also if that takes longer than `start_timeout`, and more than one try."""
    migration, started = Migration(fails=fails), list[float]()

    async with open_kernel(**service(migration, started, start_timeout=5.0)) as kernel:
        assert trio.current_time() == pytest.approx(done)
        assert kernel.kernel.states["worker/migrate"] is State.STOPPED
        await trio.sleep(1000)

    states = [one.new for one in kernel.events if isinstance(one, StateChanged) and one.component == "worker/migrate"]
    assert started == [pytest.approx(done)]
    assert migration.begun == fails + 1
    assert State.READY not in states
    assert [one.seconds for one in kernel.events if isinstance(one, KernelReady)] == [pytest.approx(done)]


async def test_who_depends_on_it_never_starts_if_it_fails_for_good(autojump_clock: object) -> None:
    migration, started = Migration(fails=100), list[float]()
    given = service(migration, started, essential=False, restart={"max_restarts": 2})
    given["manifest"]["workers"]["app"]["essential"] = False
    given["manifest"]["workers"]["other"] = {"use": "other"}
    given["registry"] = Registry((
        *given["registry"].plugins,
        *Registry.of({"workers": {"other": trio.sleep_forever}}).plugins,
    ))

    async with open_kernel(**given) as kernel:
        await trio.sleep(1000)
        states = kernel.kernel.states

    assert (states["worker/migrate"], states["worker/app"]) == (State.FAILED, State.FAILED)
    assert started == []


async def test_a_stop_while_it_runs_closes_it_in_order(autojump_clock: object) -> None:
    migration, started = Migration(), list[float]()

    async with open_kernel(**service(migration, started), ready=False) as kernel:
        await trio.sleep(7)
        await kernel.stop()
        assert trio.current_time() == 7.5

    assert migration.left == [7.0]
    assert started == []


async def test_a_service_that_only_does_something_once_is_over_then(autojump_clock: object) -> None:
    migration = Migration()
    given = service(migration, [])
    del given["manifest"]["workers"]["app"]

    async with open_kernel(**given, ready=False) as kernel:
        with trio.fail_after(200):
            await kernel.kernel.wait_stop_requested()

    assert kernel.kernel.states == {"worker/migrate": State.STOPPED}


class Once:
    async def run(self) -> None: ...


class OnceWithHandler(Once):
    @handles("#")
    async def on(self, payload: object) -> None: ...


def planned(**table: Any) -> Any:
    manifest = {"kernel": {"name": "test"}, "workers": {"w": {"use": "w", "oneshot": True, **table}}}
    return resolve(from_mapping(manifest), Registry.of({"workers": {"w": Once}})).components["worker/w"]


@pytest.mark.parametrize(
    ("restart", "policy"),
    [
        ({}, Restart.ON_FAILURE),
        ({"restart": {"max_restarts": 3}}, Restart.ON_FAILURE),
        ({"restart": {"policy": "never"}}, Restart.NEVER),
    ],
)
def test_it_is_not_started_again_for_being_done(restart: dict[str, Any], policy: Restart) -> None:
    assert planned(**restart).restart.policy is policy


def test_it_cannot_be_started_again_always() -> None:
    with pytest.raises(
        PlanError, match=r"\[workers.w.restart\].policy: \"always\" starts again what is to be done once"
    ):
        planned(restart={"policy": "always"})


def test_it_handles_nothing() -> None:
    manifest = {
        "kernel": {"name": "test"},
        "drivers": {"queue": {"plugin": "memory"}},
        "dispatchers": {"d": {"plugin": "consumer", "driver": "queue", "protocol": "json", "queue": "q"}},
        "workers": {"w": {"use": "w", "oneshot": True, "dispatcher": "d"}},
    }
    registry = Registry((*discover().plugins, *Registry.of({"workers": {"w": OnceWithHandler}}).plugins))

    with pytest.raises(PlanError, match=r"\[workers.w\].oneshot: needs a worker that has `run` and no handlers"):
        resolve(from_mapping(manifest), registry)
