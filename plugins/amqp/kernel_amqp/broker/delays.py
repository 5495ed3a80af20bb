"""Where delayed messages wait: how such places are called, and how they are declared. Pure.

A delay queue holds each message for the same time and then has the broker send it on, to one exchange. It is reached
through a fanout exchange of its name, so that the message keeps its routing key. One of the type quorum keeps a message
until a queue has taken it, and stays for ever. A classic one forgets a message as soon as it has sent it on, and goes
away when nobody has declared it for a time: whoever uses it declares it again in time (`lease`).
"""

from __future__ import annotations

import hashlib
import math
from typing import ClassVar, Final, Literal, final

import attrs
from pamqp import base, commands

from kernel import DeadLetter, Retry

from ..core import with_names
from .letters import DELAY_PREFIX
from .topology import field_table

Kind = Literal["classic", "quorum"]
MAX_DELAY: Final = 1_000_000.0
"""Seconds; with what a queue lives on beyond it, the most that fits into the broker's 32 bits of milliseconds."""
_LONGEST_EXCHANGE: Final = 200
_SPARE: Final = 60_000
"""Milliseconds that a classic queue lives on beyond two of its delays."""


@final
@attrs.frozen
class DelayQueue:
    """One place where messages wait."""

    target: str
    """The exchange that the messages go to in the end; empty for the queue that their routing key names."""
    milliseconds: int
    kind: Kind

    @property
    def name(self) -> str:
        """What its exchange and its queue are called."""
        target = self.target
        if len(target.encode()) > _LONGEST_EXCHANGE:
            target = hashlib.sha256(target.encode()).hexdigest()
        mark = "kept." if self.kind == "quorum" else ""
        return f"{DELAY_PREFIX}{mark}{self.milliseconds}.{target}"

    @property
    def expires(self) -> int | None:
        """Milliseconds without a declaration after which it goes away; None for never, since it may hold messages."""
        return 2 * self.milliseconds + _SPARE if self.kind == "classic" else None

    @property
    def lease(self) -> float:
        """Seconds after a declaration in which it may be used: what is put in last still comes out in time."""
        return math.inf if self.expires is None else (self.expires - self.milliseconds) / 2000

    def methods(self) -> list[base.Frame]:
        """Return what makes it exist, or live on."""
        exchange = commands.Exchange.Declare(exchange_type="fanout", durable=True, auto_delete=True)
        queue = commands.Queue.Declare(durable=True, arguments=field_table(self._arguments()))
        return [
            # The exchange goes away with its only binding, so with the queue.
            with_names(exchange, exchange=self.name),
            with_names(queue, queue=self.name),
            with_names(commands.Queue.Bind(), queue=self.name, exchange=self.name),
        ]

    def _arguments(self) -> dict[str, object]:
        arguments: dict[str, object] = {"x-message-ttl": self.milliseconds, "x-dead-letter-exchange": self.target}
        if self.expires is not None:
            return arguments | {"x-queue-type": "classic", "x-expires": self.expires}
        return arguments | {
            "x-queue-type": "quorum",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }


def bounded(seconds: float) -> float:
    """Return a wait that the broker can hold: not longer than `MAX_DELAY`, and none for what is no time to wait."""
    return min(seconds, MAX_DELAY) if seconds > 0 else 0.0


def in_time(retry: Retry, *, deadline: float, now: float) -> Retry | DeadLetter:
    """Return a retry that the broker can hold, or what becomes of one that would come too late."""
    after = bounded(retry.after)
    return Retry(after) if now + after < deadline else DeadLetter("expired")


def round_up(seconds: float) -> int:
    """Return a delay as milliseconds, rounded up to two significant digits: few queues serve all delays.

    Raises:
        ValueError: if it is longer than `MAX_DELAY`.
    """
    if not seconds <= MAX_DELAY:
        raise ValueError(f"a delay is at most {MAX_DELAY:g} s, not {seconds:g} s")
    exact = max(1, math.ceil(seconds * 1000))
    unit = int(10 ** max(0, len(str(exact)) - 2))
    return -(-exact // unit) * unit


@final
@attrs.frozen
class DelayExchange:
    """The place where the broker's delayed message exchange holds messages for one exchange or queue."""

    target: str
    queue: str = ""
    """Where `target` is empty: the queue, which has to be bound."""
    lease: ClassVar[float] = math.inf
    """Seconds after a declaration in which it may be used."""

    @property
    def name(self) -> str:
        """What it is called."""
        return f"kernel.delayed.{self.target}" if self.target else "kernel.delayed"

    def methods(self) -> list[base.Frame]:
        """Return what makes it exist and leads on from it."""
        type_ = "fanout" if self.target else "direct"
        declare = commands.Exchange.Declare(
            exchange_type="x-delayed-message", durable=True, arguments={"x-delayed-type": type_}
        )
        with_names(declare, exchange=self.name)
        if self.target:
            return [declare, with_names(commands.Exchange.Bind(), destination=self.target, source=self.name)]
        bind = with_names(commands.Queue.Bind(), queue=self.queue, exchange=self.name, routing_key=self.queue)
        return [declare, bind]


PLUGIN: Final = DelayExchange("")
"""The one that every service with `delayed_exchange = true` has."""
