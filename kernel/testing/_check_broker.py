"""The conformance check of brokers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Final

import trio

from ..abc import Broker, Capability
from ._broker_bench import Bench, Promise
from ._broker_cancels import CANCELS
from ._broker_deliveries import DELIVERIES
from ._broker_keys import KEYS
from ._broker_nowait import NOWAIT
from ._broker_once import ONCE
from ._broker_queues import QUEUES

_LIMIT: Final = 60.0
"""Seconds that one case may take."""


async def check_broker(
    open_broker: Callable[[], AbstractAsyncContextManager[Broker]],
    *,
    capabilities: Collection[Capability],
    durable: bool = False,
    prioritised: object = None,
) -> None:
    """Test a broker against every promise of `kernel.abc.Broker`.

    Each promise is tested on a broker of its own, with names of queues and exchanges that are new in the world, so
    it may run against a server that others use. Works on the real clock and on an autojump clock; on the real one
    it takes about 20 s.

    Args:
        open_broker: Opens a broker, for example `lambda: MyDriver(config=..., context=...).open()`.
        capabilities: What the broker can do: usually the driver's `capabilities`. Promises that need others are
            skipped.
        durable: Whether the queues and exchanges of the cases outlive the broker, for one that has no others. They
            stay: `open_broker` has to remove what was declared.
        prioritised: `Queue.options` with which a queue tells priorities apart; None if each does.

    Raises:
        AssertionError: if a promise is broken, with the promise and what happened instead.

    Cancellation: Is a checkpoint.
    """
    for promise in (*DELIVERIES, *QUEUES, *NOWAIT, *KEYS, *ONCE, *CANCELS):
        if promise.needs <= frozenset(capabilities):
            await _check(promise, open_broker, durable=durable, prioritised=prioritised)
    await trio.lowlevel.checkpoint()


async def _check(
    promise: Promise,
    open_broker: Callable[[], AbstractAsyncContextManager[Broker]],
    *,
    durable: bool = False,
    prioritised: object = None,
) -> None:
    failures: list[Exception] = []
    with trio.move_on_after(_LIMIT) as scope:
        async with open_broker() as broker:
            try:
                await promise.case(Bench(broker, durable=durable, prioritised=prioritised))
            except Exception as error:  # noqa: BLE001  raised again below, outside of the broker's own nurseries
                failures.append(error)
    if failures:
        raise AssertionError(f"{promise.text}: {_told(failures[0])}") from failures[0]
    if scope.cancelled_caught:
        raise AssertionError(f"{promise.text}: this was not decided within {_LIMIT:g} s")


def _told(error: BaseException) -> str:
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    if inner:
        return _told(inner[0])
    return str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
