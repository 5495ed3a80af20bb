"""Workers of a dispatcher with fan-out, which note what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import trio

from kernel import (
    Ack,
    DeliverySettled,
    Failure,
    Outcome,
)
from kernel.errors import PermanentError, TransientError

from ._feed import running

EXACT: dict[str, object] = {"retry": {"jitter": 0.0}}


class Note:
    """Workers that note what they do, each under its name."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.done: list[str] = []
        self.failures: list[Failure] = []

    def worker(
        self, name: str, *, seconds: float = 0.0, result: object = None, error: BaseException | None = None
    ) -> Callable[..., Any]:
        async def worker(payload: Any) -> object:
            self.began.append(name)
            await trio.sleep(seconds)
            if error is not None:
                raise error
            self.done.append(name)
            return result

        return worker

    async def last_resort(self, failure: Failure) -> None:
        self.failures.append(failure)


def fan_out(
    workers: Mapping[str, Any], tables: Mapping[str, Mapping[str, object]] | None = None, **dispatcher: Any
) -> Any:
    return running(workers, tables, fan_out=True, **dispatcher)


def settled(service: Any) -> list[DeliverySettled]:
    return [event for event in service.events if isinstance(event, DeliverySettled)]


def body(outcome: Outcome) -> bytes | None:
    assert isinstance(outcome, Ack)
    return None if outcome.reply is None else outcome.reply.body


FAILS = PermanentError("bad")
AGAIN = TransientError("busy", after=3.0)
LATER = TransientError("busier", after=8.0)
