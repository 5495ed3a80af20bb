"""A reload that never comes to an end, or leaves nothing to run, is refused; the service goes on."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import structlog
import trio

from kernel import Kernel, Plan, ReloadFailed, State, serve
from kernel._core.events import Event, EventHub
from kernel._supervise import reading
from kernel._supervise.reload import Again
from kernel.errors import PlanError, UnavailableError
from kernel.testing import open_kernel

from ._reloaded import REGISTRY, SHOP, planned

ONLY: dict[str, Any] = {"kernel": {"name": "shop"}, "workers": {"watchman": {"use": "watchman"}}}


def only(**tables: Any) -> dict[str, Any]:
    return {"kernel": {"name": "shop"}, **tables}


# --- what hangs -----------------------------------------------------------------------------------------------------------


class Hanging:
    """Reads a manifest, and hangs while it is to."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.reads = 0

    def read(self) -> Plan:
        self.reads += 1
        self.goes_on.wait()
        return planned(SHOP, workers__packer__timeout=3.0)


@contextmanager
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    monkeypatch.setattr(reading, "WITHIN", 0.05)
    manifest = Hanging()
    try:
        yield manifest
    finally:
        manifest.goes_on.set()


@asynccontextmanager
async def running(read: Callable[[], Plan], told: list[Event]) -> AsyncIterator[Kernel]:
    hub = EventHub()
    hub.subscribe(told.append, ReloadFailed)

    async def live(task_status: trio.TaskStatus[Kernel]) -> None:
        await serve(planned(SHOP), log=structlog.get_logger(), hub=hub, again=Again(read=read), task_status=task_status)

    async with trio.open_nursery() as nursery:
        kernel: Kernel = await nursery.start(live)
        await kernel.wait_ready()
        yield kernel
        kernel.request_stop()


async def test_one_that_hangs_while_it_is_read_is_refused_with_the_line_and_the_service_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Event] = []
    with hanging(monkeypatch) as manifest:
        async with running(manifest.read, told) as kernel:
            with pytest.raises(PlanError, match=rf"within 0.05 s: it is at {__file__}:\d+$"):
                await kernel.reload()

            assert [type(event) for event in told] == [ReloadFailed]
            assert kernel.is_ready


async def test_while_one_hangs_no_other_is_read_and_when_it_does_not_any_more_the_next_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with hanging(monkeypatch) as manifest:
        async with running(manifest.read, []) as kernel:
            for ask in (kernel.reload, kernel.preview, kernel.reload):
                with pytest.raises(PlanError, match="was not read and imported"):
                    await ask()
            reads = manifest.reads
            monkeypatch.setattr(reading, "WITHIN", 60.0)
            manifest.goes_on.set()
            done = await kernel.reload()

            assert reads == 1
            assert done.restarted == ("worker/packer",)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_one_whose_reading_would_end_a_program_is_refused(error: type[BaseException]) -> None:
    def read() -> Plan:
        raise error

    async with running(read, []) as kernel:
        with pytest.raises(PlanError, match=error.__name__):
            await kernel.reload()

        assert kernel.is_ready


async def test_a_stop_does_not_wait_for_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    with hanging(monkeypatch) as manifest:
        monkeypatch.setattr(reading, "WITHIN", 3600.0)

        async def ask(kernel: Kernel) -> None:
            with pytest.raises(UnavailableError) as caught:
                await kernel.reload()
            refused.append(str(caught.value))

        async with running(manifest.read, []) as kernel, trio.open_nursery() as nursery:
            nursery.start_soon(ask, kernel)
            await trio.testing.wait_all_tasks_blocked()
            kernel.request_stop("enough")

    assert refused == ["the service stops: enough"]


# --- what leaves nothing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tables",
    [
        only(),
        only(workers={"watchman": {"use": "watchman", "enabled": False}}),
        only(drivers={"shelf": {"plugin": "shelf"}}),
    ],
    ids=["empty", "disabled", "drivers alone"],
)
async def test_one_that_leaves_nothing_to_run_is_refused(tables: dict[str, Any], autojump_clock: Any) -> None:
    async with open_kernel(ONLY, registry=REGISTRY) as service:
        with pytest.raises(PlanError, match="leaves nothing to run"):
            await service.kernel.reload(planned(tables))
        await trio.sleep(1)

        assert service.kernel.states == {"worker/watchman": State.READY}
        assert not service.kernel.stop_reason


async def test_a_service_that_has_had_nothing_to_run_is_reloaded_as_any(autojump_clock: Any) -> None:
    async with open_kernel(only(drivers={"shelf": {"plugin": "shelf"}}), registry=REGISTRY) as service:
        for tables in (
            only(drivers={"shelf": {"plugin": "shelf"}}),
            only(drivers={"shelf": {"plugin": "shelf", "size": 2}}),
            only(),
            ONLY,
        ):
            await service.kernel.reload(planned(tables))
            await trio.sleep(1)
            assert not service.kernel.stop_reason

        assert service.kernel.states == {"worker/watchman": State.READY}


async def test_one_that_leaves_only_what_is_done_ends_the_service_and_says_why(autojump_clock: Any) -> None:
    both = only(workers={"watchman": {"use": "watchman"}, "once": {"use": "once", "oneshot": True}})
    async with open_kernel(both, registry=REGISTRY) as service:
        await trio.sleep(1)
        with pytest.raises(UnavailableError, match=r"^the service stops: nothing is left to run$"):
            await service.kernel.reload(planned(only(workers={"once": {"use": "once", "oneshot": True}})))
        result = await service.stop()

        assert result.status == 0
        assert result.ran_to_end
