"""The worker of the chaos: what a message asks for, it does; each run is written down, and each end."""

from __future__ import annotations

import math
import os
from typing import TypedDict

import attrs
import trio
from kernel_messaging import Publisher

from kernel import DeadLetter, Retry, handles
from kernel.abc import Delivery
from kernel.errors import TransientError


class Task(TypedDict):
    """One message."""

    id: int
    does: str
    seconds: float


@attrs.frozen(kw_only=True)
class ChaosConfig:
    """The table of the worker."""

    effects: str
    """The file that the ends of messages are appended to."""
    runs: str
    """The file that runs of the handler are appended to."""


class Chaos:
    """Handles each message as it says itself."""

    def __init__(self, config: ChaosConfig, targets: Publisher, straight: Publisher) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._effects = os.open(config.effects, flags)
        self._runs = os.open(config.runs, flags)
        self._targets = targets
        self._straight = straight

    @handles("#")
    async def work(self, task: Task, delivery: Delivery) -> object:
        os.write(self._runs, b"%09d\n" % task["id"])
        await trio.sleep(task["seconds"])
        kind, _, rest = task["does"].partition(" ")
        match kind:
            case "send":  # whoever takes from the target writes the end down
                await self._send(rest, task)
                return None
            case "bury":
                return DeadLetter("as the message says")
            case "fail":
                raise ValueError("as the message says")
            case "retry" if delivery.attempt == 1:
                return Retry(float(rest))
            case "raise" if delivery.attempt == 1:
                raise TransientError(after=math.nan if rest == "nan" else float(rest))
        os.write(self._effects, b"%09d\n" % task["id"])
        return "an answer" if kind == "answer" else None

    async def _send(self, how: str, task: Task) -> None:
        """Send on to a target, at once or later, through the exchange or straight to its queue."""
        way, target, delay = how.split()
        sender = self._targets if way == "exchange" else self._straight
        await sender.publish(target, task["id"], delay=float(delay))
