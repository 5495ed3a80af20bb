"""What a start may cost, in what can be counted; `benchmarks/start.py` measures the seconds."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
import typing
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import attrs
import pytest
import structlog
import trio
from trio.testing import MockClock

from kernel import Plan, handles, resolve, serve
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import discover

ROOT = Path(__file__).parents[2]
HEAVY = {
    *("h2", "structlog", "rich", "cronsim", "zoneinfo", "trio_asyncio"),
    *("csv", "difflib", "importlib.metadata", "sysconfig", "zipfile"),
}
"""Of no use to a check of the manifest of the repository."""
ONLY_RUNNING = {
    "kernel._supervise.run",
    "kernel._supervise.tree",
    "kernel._supervise.supervisor",
    "kernel._delivery.attempt",
    "kernel._delivery.pipeline",
    "kernel._core.events",
    "kernel._log.log",
    "kernel._control.client",
    "kernel._control.server",
}
ONLY_ASKED = {
    "kernel._manifest.hints",
    "kernel._plan.agreement",
    "kernel._plan.between",
    "kernel._plan.contracts",
    "kernel._plan.found",
    "kernel._plan.inside",
    "kernel._plan.interceptors",
    "kernel._plan.options",
    "kernel._plan.services",
    "kernel._plan.values",
    "kernel._supervise.why",
}
"""Of no use to a check, nor to a service that names no contract and that nobody looks into."""
NOT_NAMED = {
    "kernel._core.complaints",
    "kernel._core.crashes",
    "kernel._core.pending",
    "kernel._core.seldom",
    "kernel._core.settlements",
    "kernel._core.settling",
    "kernel._core.topologies",
    "kernel_memory._ledger",
    "kernel_messaging._rpc",
    "kernel_messaging._rpc_driver",
    "kernel_web.asgi.events",
}
"""Behind public names that no plugin of the manifest asks for."""
COUNTING = """
import atexit, gc, runpy, sys
seen = []
gc.callbacks.append(lambda phase, info: seen.append(len(gc.get_objects())) if phase == "start" else None)
atexit.register(lambda: print(max(seen, default=0)))
sys.argv = ["kernel", "check"]
runpy.run_module("kernel", run_name="__main__")
"""
"""Prints the most objects that the garbage collector had to look at, at once; of all that are made, there are 80,000."""
MANY = 1000


@pytest.fixture(scope="module")
def checked() -> set[str]:
    """All modules that `kernel check` has imported at its end; unmeasured, since what measures imports some itself."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    code = "import sys; from kernel._cli.cli import execute; execute(['check']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_check_loads_the_plugins_of_the_manifest(checked: set[str]) -> None:
    assert {"kernel_memory", "kernel_messaging", "kernel_json", "kernel_timer", "kernel_web", "starlette"} <= checked


def test_check_loads_nothing_that_only_a_running_service_needs(checked: set[str]) -> None:
    assert not checked & (HEAVY | ONLY_RUNNING | ONLY_ASKED)


def test_check_loads_nothing_behind_names_that_nobody_asks_for(checked: set[str]) -> None:
    assert not checked & NOT_NAMED


def test_the_collector_does_not_look_through_what_a_check_has_made() -> None:
    done = subprocess.run([sys.executable, "-c", COUNTING], cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)

    assert int(done.stdout.split()[-1]) < 20_000


def test_the_kernel_alone_does_not_need_trio_to_resolve() -> None:
    code = "import sys; import kernel._plan.plan, kernel._cli.cli, kernel._manifest.manifest; sys.exit('trio' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@attrs.frozen
class Config:
    size: int = 1


def idle_class(number: int) -> type[object]:
    class Idle:
        def __init__(self, config: Config) -> None:
            self.config = config

        @handles(f"subject.{number}")
        async def handle(self, payload: dict[str, object]) -> None:
            raise AssertionError("nothing is sent")

    return Idle


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module `crowd` with many worker classes."""
    module = ModuleType("crowd")
    vars(module).update({f"W{number}": idle_class(number) for number in range(MANY)})
    monkeypatch.setitem(sys.modules, "crowd", module)
    return module


def crowd_plan(count: int) -> Plan:
    tables = {
        "drivers": {"queue": {"plugin": "memory"}},
        "dispatchers": {"all": {"plugin": "consumer", "driver": "queue", "protocol": "json", "queue": "q"}},
        "workers": {
            f"w{number}": {"use": f"crowd:W{number}", "dispatcher": "all", "config": {"size": number}}
            for number in range(count)
        },
    }
    return resolve(from_mapping(tables), discover())


@pytest.mark.slow
@pytest.mark.usefixtures("crowd")
def test_the_types_of_a_table_are_read_once_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[object] = Counter()
    genuine = typing.get_type_hints

    def counting(holder: object, *args: object, **kwargs: object) -> dict[str, object]:
        if isinstance(holder, type):
            calls[holder] += 1
        return genuine(holder, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(typing, "get_type_hints", counting)

    plan = crowd_plan(MANY)

    assert len(plan.components) == MANY + 2
    assert max(calls.values(), default=0) <= 1


def calls_of(work: Callable[[], object]) -> int:
    """Return how many Python functions some work calls, which no other load of the machine changes."""
    number = 0

    def count_calls(_frame: object, event: str, _argument: object) -> None:
        nonlocal number
        number += event == "call"

    before = sys.getprofile()
    sys.setprofile(count_calls)
    try:
        work()
    finally:
        sys.setprofile(before)
    return number


@pytest.mark.slow
@pytest.mark.usefixtures("crowd")
def test_resolving_grows_with_the_number_of_workers_and_no_faster() -> None:
    crowd_plan(1)  # fills what is kept for each class

    few, many = calls_of(lambda: crowd_plan(MANY // 10)), calls_of(lambda: crowd_plan(MANY))

    assert many < 10.5 * few


class Late:
    """Is ready later than those before it, so that each tells those that wait for all."""

    born = itertools.count(1)

    async def __aenter__(self) -> None:
        await trio.sleep(next(self.born) / 1000)

    async def __aexit__(self, *_: object) -> None:
        await trio.sleep(next(self.born) / 10_000)

    async def __call__(self, payload: object) -> None:
        raise AssertionError("nothing is sent")


def start_and_stop(count: int) -> None:
    tables = {
        "drivers": {"queue": {"plugin": "memory"}},
        "dispatchers": {"all": {"plugin": "consumer", "driver": "queue", "protocol": "json", "queue": "q"}},
        "workers": {"w": {"use": "crowd:Late", "dispatcher": "all", "instances": count}},
    }
    plan = resolve(from_mapping(tables), discover())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            kernel = await nursery.start(functools.partial(serve, plan, log=structlog.get_logger()))
            await kernel.wait_ready()
            kernel.request_stop()

    Late.born = itertools.count(1)
    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.slow
def test_start_and_stop_grow_with_the_number_of_instances_and_no_faster(crowd: ModuleType) -> None:
    vars(crowd)["Late"] = Late
    start_and_stop(1)

    few, many = calls_of(lambda: start_and_stop(60)), calls_of(lambda: start_and_stop(600))

    assert many < 10.5 * few
