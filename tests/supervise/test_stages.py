"""Facts about stages: what runs when, what is undone after a failure, and what holds in time. In virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio
import trio.testing

import kernel
from kernel import at
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry
from kernel._supervise.process import run
from kernel.testing import fake_context

NAMES = "abc"
STAGES = ("before_start", "after_start", "before_stop", "after_stop")
KERNEL = {"name": "test", "drain_timeout": 1.0}


class Script:
    """What the workers of one test do, and what they did."""

    def __init__(self, fails: str = "") -> None:
        self.happened: list[str] = []
        self.fails = fails

    def note(self, stage: str, name: str) -> None:
        self.happened.append(f"{stage} {name}")
        if self.fails == f"{stage} {name}":
            raise LookupError(self.fails)


def worker(name: str, script: Script) -> type[object]:
    """Return a worker that does something at each stage."""

    class Worker:
        @classmethod
        @at("init")
        def init(cls) -> None:
            script.note("init", name)

        @classmethod
        @at("before_start")
        async def before_start(cls) -> None:
            await trio.lowlevel.checkpoint()
            script.note("before_start", name)

        async def __aenter__(self) -> None:
            await trio.lowlevel.checkpoint()
            script.note("start", name)

        @at("after_start")
        async def after_start(self) -> None:
            await trio.sleep(0.5)
            script.note("after_start", name)

        async def run(self) -> None:
            await trio.sleep_forever()

        @at("before_stop")
        async def before_stop(self, reason: str) -> None:
            await trio.sleep(0.5)
            script.note("before_stop", name)
            script.happened.append(reason)

        async def __aexit__(self, *_: object) -> None:
            await trio.lowlevel.checkpoint()
            script.note("stop", name)

        @staticmethod
        @at("after_stop")
        def after_stop() -> None:
            script.note("after_stop", name)

        @classmethod
        @at("exit")
        def exit(cls, reason: str = "") -> None:
            assert reason
            script.note("exit", name)

    return Worker


def plan_of(script: Script, **stages: Mapping[str, Any]) -> kernel.Plan:
    """Return the plan of three workers, each on the one before it."""
    workers: dict[str, object] = {
        name: {"use": name, "restart": {"policy": "never"}, **({"depends": [before]} if before else {})}
        for before, name in zip(["", *NAMES], NAMES, strict=False)
    }
    tables = {"kernel": KERNEL, "workers": workers, "stages": {"before_stop": {"timeout": 5.0}, **stages}}
    return kernel.resolve(
        from_mapping(tables), Registry.of({"workers": {name: worker(name, script) for name in NAMES}})
    )


async def lived(plan: kernel.Plan, script: Script) -> kernel.Result:
    """Run a service, and stop it when it is ready."""
    results: list[kernel.Result] = []

    async def serve(task_status: trio.TaskStatus[kernel.Kernel]) -> None:
        results.append(await kernel.serve(plan, log=fake_context("worker/x").log, task_status=task_status))

    async with trio.open_nursery() as nursery:
        service: kernel.Kernel = await nursery.start(serve)
        try:
            await service.wait_ready()
            script.happened.append("ready")
        except kernel.errors.StartupError:
            pass
        service.request_stop("enough")
    return results[0]


def up(stage: str, names: str = NAMES) -> list[str]:
    return [f"{stage} {name}" for name in names]


def down(stage: str, names: str = NAMES) -> list[str]:
    return up(stage, names[::-1])


def told(names: str = NAMES, reason: str = "enough") -> list[str]:
    return [line for name in names[::-1] for line in (f"before_stop {name}", reason)]


WHOLE = [
    *up("before_start"), *up("start"), *up("after_start"), "ready",
    *told(), *down("stop"), *down("after_stop"),
]  # fmt: skip
FAILURES = {
    "": WHOLE,
    "before_start b": [*up("before_start", "ab"), *down("after_stop", "a")],
    "start b": [*up("before_start"), *up("start", "ab"), *down("stop", "a"), *down("after_stop")],
    "after_start b": [
        *up("before_start"), *up("start"), *up("after_start", "ab"),
        *told("a", "a stage failed"), *down("stop"), *down("after_stop"),
    ],
    "before_stop b": [line for number, line in enumerate(WHOLE) if number != WHOLE.index("before_stop b") + 1],
    "stop b": WHOLE,
    "after_stop b": WHOLE,
}  # fmt: skip


@pytest.mark.parametrize("fails", FAILURES)
async def test_what_was_done_is_undone_in_reverse_and_nothing_else(
    fails: str, autojump_clock: trio.testing.MockClock
) -> None:
    script = Script(fails)

    result = await lived(plan_of(script), script)

    assert script.happened == FAILURES[fails]
    assert [str(error) for error in result.errors] == ([fails] if fails else [])
    assert result.status == (kernel.ExitStatus.FAILED if fails else kernel.ExitStatus.STOPPED)


@pytest.mark.parametrize("fails", ["init b", "exit b", ""])
def test_around_the_loop_it_is_the_same(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(fails)
    plan = plan_of(script)
    hub = kernel.EventHub()
    stop = [lambda: None]

    def ready(event: kernel.Event) -> None:
        stop[0]()

    hub.subscribe(ready, kernel.KernelReady)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("kernel._supervise.process.serve", _stopping(kernel.serve, stop))
    result = run(plan, log=fake_context("worker/x").log, hub=hub)

    expected = [line for line in script.happened if line.split()[0] in {"init", "exit"}]
    failed = {"init b": [*up("init", "ab"), "exit a"]}.get(fails, [*up("init"), *down("exit")])
    assert expected == failed
    assert [str(error) for error in result.errors] == ([fails] if fails else [])


def _stopping(serve: Callable[..., Any], stop: list[Callable[[], None]]) -> Callable[..., Any]:
    async def stopping(plan: kernel.Plan, **given: Any) -> kernel.Result:
        status = given.pop("task_status")

        class Status:
            def started(self, value: kernel.Kernel) -> None:
                stop[0] = lambda: value.request_stop("enough")
                status.started(value)

        result: kernel.Result = await serve(plan, **given, task_status=Status())
        return result

    return stopping


async def test_nobody_is_told_that_it_is_ready_before_the_stages_are_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = Script()
    service: list[kernel.Kernel] = []

    async def serve(task_status: trio.TaskStatus[kernel.Kernel]) -> None:
        await kernel.serve(plan_of(script), log=fake_context("worker/x").log, task_status=task_status)

    async with trio.open_nursery() as nursery:
        service.append(await nursery.start(serve))
        await trio.sleep(1.2)
        seen = [
            service[0].is_ready,
            service[0].snapshot().is_ready,
            all(state.value == "ready" for state in service[0].states.values()),
        ]
        await service[0].wait_ready()
        seen.append(service[0].snapshot().is_ready)
        service[0].request_stop()

    assert seen == [False, False, True, True]


async def test_gathered_hooks_run_at_once(autojump_clock: trio.testing.MockClock) -> None:
    script = Script()
    plan = plan_of(script, after_start={"direction": "gather"}, before_stop={"direction": "gather"})
    began = trio.current_time()

    await lived(plan, script)

    assert trio.current_time() - began < 1.1
    assert len(script.happened) == len(WHOLE)


async def test_a_stage_ends_at_its_timeout(autojump_clock: trio.testing.MockClock) -> None:
    script = Script()
    began = trio.current_time()

    result = await lived(plan_of(script, before_stop={"timeout": 0.7}, after_start={"timeout": 2.0}), script)

    assert trio.current_time() - began == pytest.approx(1.5 + 0.7)
    assert [str(error) for error in result.errors] == ["stage before_stop was not over within its timeout = 0.7 s"]
    assert script.happened.count("enough") == 1


async def test_a_stop_ends_the_way_up(autojump_clock: trio.testing.MockClock) -> None:
    script = Script()
    stopped: list[kernel.Result] = []

    async def serve(task_status: trio.TaskStatus[kernel.Kernel]) -> None:
        log = fake_context("worker/x").log
        stopped.append(await kernel.serve(plan_of(script), log=log, task_status=task_status))

    async with trio.open_nursery() as nursery:
        service: kernel.Kernel = await nursery.start(serve)
        await trio.sleep(0.75)
        service.request_stop("enough")

    assert script.happened[6:9] == ["after_start a", "before_stop a", "enough"]
    assert stopped[0].status == kernel.ExitStatus.STOPPED


async def test_every_instance_takes_part(autojump_clock: trio.testing.MockClock) -> None:
    script = Script()
    tables: dict[str, object] = {"kernel": KERNEL, "workers": {"a": {"use": "a", "instances": 3}}}
    tables["stages"] = {"before_stop": {"timeout": 5.0}}
    plan = kernel.resolve(from_mapping(tables), Registry.of({"workers": {"a": worker("a", script)}}))

    await lived(plan, script)

    assert script.happened.count("after_start a") == script.happened.count("before_stop a") == 3
    assert script.happened.count("before_start a") == 1
