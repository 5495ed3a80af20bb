"""Facts about services inside a service as they run: order, failures, restarts as a whole, and their ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock
from typing_extensions import override

from kernel import ComponentFailed, resolve
from kernel._core.events import KernelStopped
from kernel._core.lifecycle import State
from kernel._manifest.manifest import load
from kernel._manifest.registry import Registry, discover
from kernel.abc import Context, Driver, NoConfig
from kernel.testing import OpenKernel

DIARY: list[str] = []
FAILS: dict[str, list[float]] = {}
"""Component -> seconds after which each of its next lives raises."""


@attrs.define(eq=False)
class Line(Driver[object]):
    """A driver that notes when it is open."""

    config: NoConfig
    context: Context

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[object]:
        DIARY.append(f"+{self.context.id}")
        await trio.lowlevel.checkpoint()
        yield self
        DIARY.append(f"-{self.context.id}")


class Loop:
    """A worker that does as the test says."""

    def __init__(self, line: object, context: Context) -> None:
        self.id = context.id
        self.told = (context.name, context.service, context.directory.name)

    async def run(self) -> None:
        DIARY.append(f"+{self.id}")
        try:
            if FAILS.get(self.id):
                await trio.sleep(FAILS[self.id].pop(0))
                raise ValueError(self.id)
            await trio.sleep_forever()
        finally:
            DIARY.append(f"-{self.id}")


class Ends:
    """A worker whose `run` ends."""

    def __init__(self, line: object, status: object = None) -> None:
        self.status = status

    async def run(self) -> object:
        await trio.sleep(5)
        return STATUS[0]


STATUS: list[object] = [None]

INNER = """\
[kernel]
name = "inner"
[drivers.line]
plugin = "line"
[workers.loop]
use = "loop"
[workers.loop.restart]
max_restarts = 0
backoff_initial = 1.0
jitter = 0.0
[workers.other]
use = "loop"
"""
OUTER = """\
[kernel]
name = "outer"
[drivers.wire]
plugin = "line"
[workers.keep]
use = "loop"
drivers = { line = "wire" }
[services.in]
manifest = "below/inner.toml"
drivers = { line = "wire" }
"""


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    DIARY.clear()
    FAILS.clear()
    STATUS[:] = [None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/inner.toml").write_text(INNER)
    (tmp_path / "kernel.toml").write_text(OUTER)
    return tmp_path


def registry() -> Registry:
    own = Registry.of({"drivers": {"line": Line}, "workers": {"loop": Loop, "ends": Ends}})
    return Registry((*discover().plugins, *own.plugins))


async def test_what_is_inside_starts_after_what_it_borrows_and_stops_before_it(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    async with open_kernel(folder / "kernel.toml", registry=registry()) as service:
        assert service.kernel.states == dict.fromkeys(
            ["driver/wire", "worker/keep", "worker/in/loop", "worker/in/other"], State.READY
        )
        worker = service.resource("worker/in/loop")
        assert worker.told == ("loop", "inner", "below")

    assert DIARY[0] == "+driver/wire"
    assert DIARY[-1] == "-driver/wire"
    assert sorted(DIARY[1:4]) == ["+worker/in/loop", "+worker/in/other", "+worker/keep"]


async def test_the_failure_of_what_is_essential_inside_stops_everything(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    FAILS["worker/in/loop"] = [1.0]
    async with open_kernel(folder / "kernel.toml", registry=registry(), expected=Exception) as service:
        await service.wait_event(KernelStopped)
        result = await service.stop()
    assert [type(error).__name__ for error in result.errors] == ["RestartLimitError"]
    assert service.kernel.states["worker/in/loop"] is State.FAILED


async def test_one_that_is_not_essential_fails_alone_and_as_a_whole(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    FAILS["worker/in/loop"] = [1.0]
    (folder / "below/inner.toml").write_text(
        INNER.replace("[drivers.line]", "[drivers.own]\nplugin = 'line'\n[drivers.line]")
    )
    keys = {"services.in.essential": False}
    async with open_kernel(folder / "kernel.toml", registry=registry(), set=keys, expected=Exception) as service:
        await service.wait_event(ComponentFailed)
        await trio.sleep(5)
        assert service.kernel.is_ready
        assert service.kernel.states == {
            "driver/wire": State.READY,
            "worker/keep": State.READY,
            "driver/in/own": State.FAILED,
            "worker/in/loop": State.FAILED,
            "worker/in/other": State.FAILED,
        }
    assert DIARY.index("-worker/in/other") < DIARY.index("-driver/wire")
    assert DIARY.index("-driver/in/own") < DIARY.index("-worker/keep")


async def test_a_component_that_is_not_essential_inside_fails_alone(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    FAILS["worker/in/loop"] = [1.0]
    keys = {"services.in.essential": False, "services.in.set.workers.loop.essential": False}
    async with open_kernel(folder / "kernel.toml", registry=registry(), set=keys, expected=Exception) as service:
        await trio.sleep(5)
        assert service.kernel.states["worker/in/loop"] is State.FAILED
        assert service.kernel.states["worker/in/other"] is State.READY


async def test_it_is_started_again_as_a_whole_before_it_fails(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    FAILS["worker/in/loop"] = [1.0, 1.0]
    keys = {"services.in.restart": {"backoff_initial": 10.0, "jitter": 0.0}}
    async with open_kernel(folder / "kernel.toml", registry=registry(), set=keys, expected=Exception) as service:
        began = trio.current_time()
        await trio.sleep(5)
        assert service.kernel.states["worker/in/loop"] is service.kernel.states["worker/in/other"] is State.BACKOFF
        assert service.kernel.states["driver/wire"] is State.READY
        assert not service.kernel.is_ready
        await service.wait_ready()
        assert trio.current_time() - began == pytest.approx(11.0, abs=0.01)
        await trio.sleep(60)  # the second failure, 20 s of backoff, and it is up
        assert service.kernel.is_ready
    starts = [one for one in DIARY if one.startswith("+")]
    assert starts.count("+worker/in/loop") == starts.count("+worker/in/other") == 3
    assert starts.count("+driver/wire") == 1


async def test_too_many_restarts_as_a_whole_are_a_failure(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    FAILS["worker/in/loop"] = [1.0] * 3
    keys = {"services.in.restart": {"max_restarts": 2, "backoff_initial": 0.1}}
    async with open_kernel(folder / "kernel.toml", registry=registry(), set=keys, expected=Exception) as service:
        await service.wait_event(KernelStopped)
        assert (await service.stop()).errors
    assert DIARY.count("+worker/in/other") == 3


async def test_a_row_of_restarts_is_over_when_all_was_up_for_the_window(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    FAILS["worker/in/loop"] = [40.0] * 5
    keys = {"services.in.restart": {"max_restarts": 1, "window": 30.0}}
    async with open_kernel(folder / "kernel.toml", registry=registry(), set=keys, expected=Exception) as service:
        await trio.sleep(300)
        assert service.kernel.is_ready


async def test_two_that_fail_at_once_are_one_restart(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    FAILS["worker/in/loop"], FAILS["worker/in/other"] = [1.0], [1.0]
    limit = {"max_restarts": 0, "backoff_initial": 0.1}
    keys = {"services.in.restart": {"max_restarts": 1}, "services.in.set.workers.other.restart": limit}
    async with open_kernel(folder / "kernel.toml", registry=registry(), set=keys, expected=Exception) as service:
        await trio.sleep(30)
        assert service.kernel.is_ready
    assert DIARY.count("+worker/in/other") == DIARY.count("+worker/in/loop") == 2


async def test_a_stop_during_a_restart_as_a_whole_is_a_stop(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    FAILS["worker/in/loop"] = [1.0]
    keys = {"services.in.restart": {"backoff_initial": 20.0}}
    async with open_kernel(folder / "kernel.toml", registry=registry(), set=keys, expected=Exception) as service:
        await trio.sleep(5)
        began = trio.current_time()
        await service.stop()
        assert trio.current_time() - began < 1
    assert {state.value for state in service.kernel.states.values()} == {"stopped"}


async def test_who_depends_on_it_restarts_with_it(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    FAILS["worker/in/loop"] = [1.0]
    more = '[workers.last]\nuse = "loop"\ndrivers = { line = "wire" }\ndepends = ["service/in"]\n'
    (folder / "kernel.toml").write_text(OUTER + more)
    keys = {"services.in.restart": {}}
    async with open_kernel(folder / "kernel.toml", registry=registry(), set=keys, expected=Exception):
        await trio.sleep(5)
    assert DIARY.count("+worker/last") == 2
    first = DIARY.index("+worker/last")
    assert {"+worker/in/loop", "+worker/in/other"} <= set(DIARY[:first])


async def test_all_of_it_is_restarted_by_its_name(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    async with open_kernel(folder / "kernel.toml", registry=registry()) as service:
        assert sorted(service.kernel.restart("service/in")) == ["worker/in/loop", "worker/in/other"]
        await trio.sleep(1)
        await service.wait_ready()
    assert DIARY.count("+worker/in/loop") == DIARY.count("+worker/in/other") == 2


# --- its end ------------------------------------------------------------------------------------------------------

JOB = """\
[drivers.line]
plugin = "line"
[workers.job]
use = "ends"
main = true
"""


@pytest.mark.parametrize("how", ["main = true", 'restart = { policy = "never" }'])
async def test_what_is_done_ends_alone(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock, how: str
) -> None:
    (folder / "below/job.toml").write_text(JOB.replace("main = true", how))
    (folder / "kernel.toml").write_text(OUTER + '[services.job]\nmanifest = "below/job.toml"\n')
    async with open_kernel(folder / "kernel.toml", registry=registry()) as service:
        await trio.sleep(10)
        assert service.kernel.states["driver/job/line"] is service.kernel.states["worker/job/job"] is State.STOPPED
        assert service.kernel.is_ready
    assert DIARY.index("-driver/job/line") < DIARY.index("-driver/wire")


@pytest.mark.parametrize("how", ["main = true", 'restart = { policy = "never" }'])
async def test_what_the_service_is_there_for_ends_it(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock, how: str
) -> None:
    (folder / "below/job.toml").write_text(JOB.replace("main = true", how))
    (folder / "kernel.toml").write_text(OUTER + '[services.job]\nmain = true\nmanifest = "below/job.toml"\n')
    STATUS[:] = [7]
    async with open_kernel(folder / "kernel.toml", registry=registry()) as service:
        await service.wait_event(KernelStopped)
        result = await service.stop()
    assert result.returned == (7 if how == "main = true" else 0)
    assert result.ran_to_end


async def test_a_status_inside_is_a_failure_if_nothing_ends_with_it(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    (folder / "below/job.toml").write_text(JOB)
    (folder / "kernel.toml").write_text(OUTER + '[services.job]\nmanifest = "below/job.toml"\n')
    STATUS[:] = [7]
    async with open_kernel(folder / "kernel.toml", registry=registry(), expected=RuntimeError) as service:
        await service.wait_event(KernelStopped)
        result = await service.stop()
    assert [str(error) for error in result.errors] == ["worker/job/job returned 7"]


# --- reloads ------------------------------------------------------------------------------------------------------


async def test_a_reload_touches_what_has_changed_inside_and_nothing_else(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    again = '[services.more]\nmanifest = "below/inner.toml"\ndrivers = { line = "wire" }\n'
    async with open_kernel(folder / "kernel.toml", registry=registry()) as service:
        (folder / "kernel.toml").write_text(OUTER + "set.workers.loop.stop_timeout = 1.0\n" + again)
        done = await service.kernel.reload(resolve(load(folder / "kernel.toml", environ={}), registry()))
        assert done.restarted == ("worker/in/loop",)
        assert done.added == ("worker/more/loop", "worker/more/other")
        await service.wait_ready()
        (folder / "kernel.toml").write_text(OUTER)
        done = await service.kernel.reload(resolve(load(folder / "kernel.toml", environ={}), registry()))
        assert (done.restarted, done.removed) == (("worker/in/loop",), ("worker/more/loop", "worker/more/other"))
    assert DIARY.count("+worker/in/other") == DIARY.count("+worker/keep") == 1


async def test_a_reload_that_says_how_all_of_it_restarts_stops_nothing(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    FAILS["worker/in/loop"] = [10.0]
    async with open_kernel(folder / "kernel.toml", registry=registry(), expected=Exception) as service:
        (folder / "kernel.toml").write_text(OUTER + "restart = {}\n")
        done = await service.kernel.reload(resolve(load(folder / "kernel.toml", environ={}), registry()))
        assert not done.restarted
        await trio.sleep(20)
        assert service.kernel.is_ready
    assert DIARY.count("+worker/in/other") == DIARY.count("+worker/in/loop") == 2


async def test_what_has_failed_alone_may_start_again_when_it_is_changed(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock
) -> None:
    FAILS["worker/in/loop"] = [1.0]
    (folder / "kernel.toml").write_text(OUTER + "essential = false\n")
    async with open_kernel(folder / "kernel.toml", registry=registry(), expected=Exception) as service:
        await trio.sleep(5)
        assert service.kernel.states["worker/in/other"] is State.FAILED
        text = "set.workers.loop.stop_timeout = 1.0\nset.workers.other.stop_timeout = 1.0\n"
        (folder / "kernel.toml").write_text(OUTER + "essential = false\n" + text)
        await service.kernel.reload(resolve(load(folder / "kernel.toml", environ={}), registry()))
        await trio.sleep(1)
        assert service.kernel.states["worker/in/loop"] is service.kernel.states["worker/in/other"] is State.READY


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_restarts = 0", "max_restarts = 1"),
        ('[workers.other]\nuse = "loop"', '[workers.other]\nuse = "loop"\nstop_timeout = 3.0'),
        ("[workers.other]", '[workers.third]\nuse = "loop"\n[workers.other]'),
        ("[workers.loop]\n", "[workers.loop]\nenabled = false\n"),
    ],
    ids=["what has failed is changed", "another is changed", "one is added", "what has failed is left out"],
)
async def test_what_has_failed_as_a_whole_is_up_again_when_something_of_it_was_changed(
    open_kernel: OpenKernel, folder: Path, autojump_clock: MockClock, old: str, new: str
) -> None:
    FAILS["worker/in/loop"] = [1.0]
    (folder / "kernel.toml").write_text(f"{OUTER}essential = false\n")
    inner = INNER.replace("[drivers.line]", '[drivers.own]\nplugin = "line"\n[drivers.line]')
    (folder / "below/inner.toml").write_text(inner)
    async with open_kernel(folder / "kernel.toml", registry=registry(), expected=Exception) as service:
        await trio.sleep(5)
        failed = service.kernel.states["driver/in/own"]
        (folder / "below/inner.toml").write_text(inner.replace(old, new))
        done = await service.kernel.reload(resolve(load(folder / "kernel.toml", environ={}), registry()))

        assert failed is State.FAILED
        assert not done.failed
        assert set(service.kernel.states.values()) == {State.READY}
        assert "worker/keep" not in done.restarted
