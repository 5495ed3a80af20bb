"""What holds for threads and for processes."""

from __future__ import annotations

import inspect
import logging
import os
import threading
import traceback
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from kernel_pools import (
    PlainCallDone,
    ProcessPool,
    ProcessPoolConfig,
    ProcessPoolDriver,
    ThreadPool,
    ThreadPoolConfig,
    ThreadPoolDriver,
)

from kernel import Ack, DeadLetter, Event, Retry, Return, Usage
from kernel.abc import Delivery, PlainWorker
from kernel.errors import PlanError, RemoteError
from kernel.testing import OpenKernel, check_driver, fake_context

from . import _workers
from ._workers import LET_GO, Calls, where
from .conftest import CALLS, OpenPool, manifest

THREADS = {"plugin": "thread_pool"}
PROCESSES = {"plugin": "process_pool", "processes": 1}

pytestmark = pytest.mark.slow
each_pool = pytest.mark.parametrize("pool", [THREADS, PROCESSES], ids=["threads", "processes"])


async def test_threads_keep_the_promises_of_a_driver() -> None:
    worker = PlainWorker(id="worker/w", use=where, is_function=True, arguments={})

    async def use(pool: ThreadPool) -> None:
        assert await pool.call(worker, "", [None], {})

    await check_driver(
        lambda: ThreadPoolDriver(config=ThreadPoolConfig(), context=fake_context("driver/pool")), use=use
    )


async def test_processes_keep_the_promises_of_a_driver() -> None:
    """Without calls, each of which would start a process: to cancel one at each of its steps takes too long."""

    async def use(pool: ProcessPool) -> None:
        await trio.lowlevel.checkpoint()

    await check_driver(
        lambda: ProcessPoolDriver(config=ProcessPoolConfig(), context=fake_context("driver/pool")), use=use
    )


@each_pool
async def test_a_handler_is_given_what_it_is_annotated_with_and_its_result_is_the_answer(
    pool: dict[str, Any], open_pool: OpenPool
) -> None:
    async with open_pool(pool, {"config": {"by": 3}}) as client:
        first = await client.ask("scale", {"sku": "tea", "quantity": 2})
        second = await client.ask("scale", {"sku": "tea"})

        assert (first["quantity"], first["count"]) == (6, 1)
        assert (second["quantity"], second["count"]) == (3, 2)


@each_pool
async def test_a_handler_runs_somewhere_else(pool: dict[str, Any], open_pool: OpenPool) -> None:
    async with open_pool(pool) as client:
        process, thread = await client.ask("where")

        assert (process == os.getpid()) is (pool is THREADS)
        assert thread != threading.get_ident() or pool is PROCESSES


@each_pool
async def test_a_function_is_a_worker_too(pool: dict[str, Any], open_pool: OpenPool) -> None:
    async with open_pool(pool, {"use": CALLS.replace(":Calls", ":where")}) as client:
        process, _ = await client.ask("anything")

        assert (process == os.getpid()) is (pool is THREADS)


@each_pool
async def test_what_a_handler_raises_is_the_deliverys_error(pool: dict[str, Any], open_pool: OpenPool) -> None:
    async with open_pool(pool, {"retry": {"attempts": 1}}, expected=ZeroDivisionError) as client:
        with pytest.raises(RemoteError, match="oops") as told:
            await client.ask("raise", "oops")
        await client.tell("raise", "oops")
        *_, settled = await client.service.wait_settled(2)

        assert told.value.kind == "ZeroDivisionError"
        assert isinstance(settled.outcome, DeadLetter)


@each_pool
async def test_a_handler_decides_the_outcome(pool: dict[str, Any], open_pool: OpenPool) -> None:
    async with open_pool(pool, {"retry": {"attempts": 2}}) as client:
        await client.tell("retry")
        (settled, *_) = await client.service.wait_settled(1)

        assert settled.outcome == Retry(0.0, "not yet")


@each_pool
async def test_a_handler_knows_how_much_time_it_has(pool: dict[str, Any], open_pool: OpenPool) -> None:
    async with open_pool(pool, {"timeout": 20.0}) as client:
        assert 1 < await client.ask("remaining") <= 20.1


async def test_a_thread_that_takes_too_long_is_left_to_itself_and_keeps_its_place(open_pool: OpenPool) -> None:
    async with open_pool({**THREADS, "threads": 1}, {"timeout": 1.0}, expected=TimeoutError) as client:
        with trio.fail_after(5), pytest.raises(RemoteError, match="more than timeout"):
            await client.ask("sleep", 1.1)

        assert await client.ask("where"), "it did not wait for the thread to end"


async def test_a_timeout_names_the_line_that_a_thread_is_at(open_pool: OpenPool) -> None:
    async with open_pool({**THREADS, "threads": 1}, {"timeout": 0.2}, expected=TimeoutError) as client:
        await client.tell("hold")
        (settled,) = await client.service.wait_settled(1)
        LET_GO.set()

        assert isinstance(settled.error, TimeoutError)
        assert lines_of_handlers(settled.error) == [line_of(Calls.hold, "LET_GO.wait")]


async def test_a_timeout_in_a_process_names_no_line_of_the_handler(open_pool: OpenPool) -> None:
    worker = {"timeout": 1.0, "retry": {"attempts": 1}}
    async with open_pool(PROCESSES, worker, expected=TimeoutError) as client:
        await client.tell("spin", 60.0)
        (settled,) = await client.service.wait_settled(1)

        assert isinstance(settled.error, TimeoutError)
        assert lines_of_handlers(settled.error) == []


def lines_of_handlers(error: BaseException) -> list[int | None]:
    """Return the lines of the user's code that an exception shows, of which the last is logged as `where`."""
    return [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _workers.__file__]


def line_of(function: Callable[..., object], text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


@each_pool
async def test_calls_beyond_the_limit_wait_in_turn_and_are_told(pool: dict[str, Any]) -> None:
    events: list[Event] = []
    context = fake_context("driver/pool", events=events)
    worker = PlainWorker(id="worker/w", use=Calls, is_function=False, arguments={}, instance=Calls())
    driver: Any = (
        ThreadPoolDriver(config=ThreadPoolConfig(threads=1), context=context)
        if pool is THREADS
        else ProcessPoolDriver(config=ProcessPoolConfig(processes=1), context=context)
    )
    async with driver.open() as executor, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(executor.call, worker, "sleep", [0.05], {})

    calls = [event for event in events if isinstance(event, PlainCallDone)]
    assert [call.worker for call in calls] == ["worker/w"] * 3
    assert calls[2].waited >= 0.09


@each_pool
@pytest.mark.parametrize("finish", ["running", "pending"])
async def test_a_stop_finishes_what_runs_and_if_wanted_what_waits(
    pool: dict[str, Any], finish: str, open_pool: OpenPool
) -> None:
    one = {"threads": 1} if pool is THREADS else {}
    async with open_pool({**pool, **one, "finish": finish}) as client:
        await client.ask("where")
        for _ in range(3):
            await client.tell("sleep", 0.2)
        await trio.sleep(0.1)
        await client.service.stop()
        outcomes = [type(event.outcome) for event in client.service.settled][1:]

    expected = [Ack, Return, Return] if finish == "running" else [Ack, Ack, Ack]
    assert sorted(outcomes, key=str) == sorted(expected, key=str)


async def test_what_is_logged_in_a_process_is_logged_by_the_service(
    open_pool: OpenPool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with open_pool(PROCESSES) as client:
            await client.ask("log", "tea")

    assert "heard tea" in [record.getMessage() for record in caplog.records if record.name == "shop"]


@pytest.mark.parametrize(
    ("worker", "pool", "problem"),
    [
        ({"runs_in": "nowhere"}, THREADS, 'there is no driver "nowhere"'),
        ({"runs_in": "queue"}, THREADS, "driver/queue calls no handlers"),
        ({"use": CALLS.replace("Calls", "Asking")}, PROCESSES, "asks for queue, which cannot go to another process"),
        (
            {"use": f"{__name__}:waits"},
            THREADS,
            'waits is called outside of the event loop, since runs_in is given; write "def"',
        ),
        ({"use": f"{__name__}:WithRun"}, THREADS, "WithRun has run, which is for the event loop"),
        ({"use": f"{__name__}:WantsDelivery"}, PROCESSES, 'asks for "delivery", which cannot go to another process'),
    ],
)
async def test_check_says_what_cannot_run_there(
    worker: dict[str, Any], pool: dict[str, Any], problem: str, open_kernel: OpenKernel
) -> None:
    with pytest.raises(PlanError, match=problem):
        async with open_kernel(manifest(pool, worker)):
            pytest.fail("it opened")


async def waits(payload: Any) -> None:
    """Is async."""


class WantsDelivery:
    def __call__(self, payload: Any, delivery: Delivery) -> None:
        """Wants what has a connection."""


class WithRun:
    async def run(self) -> None:
        """Runs in the loop."""

    def __call__(self, payload: Any) -> None:
        """Handles."""


async def test_whoever_looks_sees_how_many_places_are_taken() -> None:
    asked: list[Callable[[], Usage]] = []
    context = attrs.evolve(fake_context("driver/pool"), report_usage=asked.append)
    came, release = threading.Semaphore(0), threading.Event()

    def hold(payload: object) -> None:
        came.release()
        release.wait(5)

    worker = PlainWorker(id="worker/w", use=hold, is_function=True, arguments={})
    driver = ThreadPoolDriver(config=ThreadPoolConfig(threads=2), context=context)
    async with driver.open() as pool, trio.open_nursery() as nursery:
        [look] = asked
        for _ in range(3):
            nursery.start_soon(pool.call, worker, "", [None], {})
        for _ in range(2):
            await trio.to_thread.run_sync(came.acquire)
        assert look() == Usage(used=2, waiting=1, limit=2)
        release.set()

    assert look() == Usage(used=0, limit=2)
