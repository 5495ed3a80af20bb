"""Calls into a library: what is taken and given, how long it may take, how often it is tried, and when it is left alone."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
from kernel_external import External, ExternalConfig, ExternalDriver
from trio.testing import MockClock

from kernel import Event, State, StateChanged
from kernel.errors import ArgumentsError, CallTimeoutError, ConversionError, UnavailableError
from kernel.testing import check_driver, fake_context


@attrs.frozen
class Order:
    sku: str
    amount: int = 1


def price(order: Order, *, currency: str = "EUR") -> dict[str, int]:
    assert threading.current_thread() is not threading.main_thread()
    return {currency: 3 * order.amount}


def untyped(sku, amount=1):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  as libraries are
    return [sku, amount]


def promised(sku: str, amount: int = 1) -> list[int]:
    raise AssertionError("a contract is never called")


async def slow(seconds: float) -> str:
    await trio.sleep(seconds)
    return "done"


@asynccontextmanager
async def opened(
    target: Callable[..., object], *, events: list[Event] | None = None, **config: Any
) -> AsyncGenerator[External]:
    context = fake_context("driver/shop", events=events)
    async with ExternalDriver(config=ExternalConfig(target=target, **config), context=context).open() as external:
        yield external


async def test_it_keeps_the_promises_of_a_driver() -> None:
    async def use(external: External) -> None:
        assert await external(Order("tea")) == {"EUR": 3}

    await check_driver(
        lambda: ExternalDriver(config=ExternalConfig(target=price), context=fake_context("driver/shop")), use=use
    )


async def test_arguments_are_converted_and_what_is_wrong_is_never_called() -> None:
    async with opened(price) as external:
        assert await external({"sku": "tea", "amount": 2}, currency="USD") == {"USD": 6}
        with pytest.raises(ArgumentsError, match='order: amount: must be an integer, got "2"'):
            await external({"sku": "tea", "amount": "2"})
        with pytest.raises(ArgumentsError, match="missing a required argument: 'order'"):
            await external()
        with pytest.raises(ArgumentsError, match="unexpected keyword argument 'curency'"):
            await external(Order("tea"), curency="USD")


async def test_a_contract_speaks_for_a_library_without_annotations() -> None:
    async with opened(untyped) as external:
        assert await external(5) == [5, 1]
    async with opened(untyped, contract=promised) as external:
        with pytest.raises(ArgumentsError, match="sku: must be a string"):
            await external(5)
        with pytest.raises(ConversionError, match=r'result: \[0\]: must be an integer, got "tea"'):
            await external("tea")


async def test_what_takes_too_long_ends(autojump_clock: MockClock) -> None:
    async with opened(slow, timeout=5.0) as external:
        assert await external(4.0) == "done"
        with pytest.raises(CallTimeoutError):
            await external(6.0)


async def test_a_thread_that_nobody_waits_for_keeps_its_place() -> None:
    gate, began = threading.Event(), threading.Event()

    def block() -> None:
        began.set()
        gate.wait(10)

    async with opened(block, timeout=0.05, threads=1) as external:
        for _ in range(2):
            with pytest.raises(CallTimeoutError):
                await external()
        assert external._limiter.borrowed_tokens == 1
        gate.set()
        with trio.fail_after(5):
            while external._limiter.borrowed_tokens:
                await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(("attempts", "calls"), [(3, 3), (2, 2)])
async def test_it_is_tried_again_after_growing_waits(attempts: int, calls: int, autojump_clock: MockClock) -> None:
    times: list[float] = []

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        times.append(trio.current_time())
        raise OSError("away")

    async with opened(fail, attempts=attempts, backoff=1.0) as external:
        with pytest.raises(OSError, match="away"):
            await external()

    assert len(times) == calls
    waits = [round(after - before, 3) for before, after in pairwise(times)]
    assert waits == [1.0, 2.0][: calls - 1]


async def test_what_is_not_listed_is_not_tried_again() -> None:
    calls: list[int] = []

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        calls.append(1)
        raise ValueError("wrong")

    async with opened(fail, attempts=3, retry_on=(OSError,)) as external:
        with pytest.raises(ValueError, match="wrong"):
            await external()

    assert calls == [1]


async def test_too_many_failures_leave_it_alone_until_one_call_succeeds(autojump_clock: MockClock) -> None:
    fails, calls, events = [True], list[float](), list[Event]()

    async def library() -> str:
        await trio.lowlevel.checkpoint()
        calls.append(trio.current_time())
        if fails[0]:
            raise OSError("away")
        return "back"

    async with opened(library, max_failures=2, pause=10.0, events=events) as external:
        for _ in range(2):
            with pytest.raises(OSError, match="away"):
                await external()
        with pytest.raises(UnavailableError):
            await external()
        await trio.sleep(10.5)
        with pytest.raises(OSError, match="away"):  # the one that tries
            await external()
        with pytest.raises(UnavailableError):
            await external()
        await trio.sleep(10.5)
        fails[0] = False
        assert await external() == "back"
        assert await external() == "back"

    assert len(calls) == 5
    states = [event.new for event in events if isinstance(event, StateChanged)]
    assert (states[0], states[-1]) == (State.DEGRADED, State.READY)
