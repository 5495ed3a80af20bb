"""Sends messages that are to arrive later: through queues with a time to live, or with a delay that the broker knows.

A delay queue holds each message for the same time and then has RabbitMQ send it on, to one exchange. It is reached
through a fanout exchange of its name, so that the message keeps its routing key. It is a quorum queue, which keeps a
message until a queue has taken it. Names and arguments are those of the plugin `amqp`: both may use the same ones.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final, final

import attrs
import trio

from .._addresses import Rabbit4Addresses, RabbitAddresses, Route
from ..management.directory import Directory

MAX_DELAY: Final = 1_000_000.0
"""Seconds; the most that fits into the broker's 32 bits of milliseconds."""
_LONGEST: Final = 200
_MAX_KNOWN: Final = 1024


def bounded(seconds: float) -> float:
    """Return a wait that the broker can hold: not longer than `MAX_DELAY`, and none for what is no time to wait."""
    return min(seconds, MAX_DELAY) if seconds > 0 else 0.0


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


def place_name(target: str, milliseconds: int) -> str:
    """Return what the exchange and the queue are called in which messages for an exchange wait."""
    if len(target.encode()) > _LONGEST:
        target = hashlib.sha256(target.encode()).hexdigest()
    return f"kernel.delay.kept.{milliseconds}.{target}"


@final
@attrs.define(eq=False, repr=False)
class Postponer:
    """Has messages wait in RabbitMQ, not in this process."""

    _addresses: RabbitAddresses | Rabbit4Addresses
    _directory: Directory
    _known: set[str] = attrs.field(factory=set[str], init=False)
    _declaring: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def route(self, exchange: str, key: str, *, delay: float) -> Route:
        """Return where to send what an exchange, or the queue `key`, is to get after `delay` seconds.

        Raises:
            UnroutableError: if no queue would get it.
            ValueError: if it is too long a delay.
            ManagementError: if the place has to be declared and that cannot be done.

        Cancellation: Is a checkpoint.
        """
        milliseconds = round_up(delay)
        await self._directory.check_route(exchange, key)
        name = place_name(exchange, milliseconds)
        async with self._declaring:
            if name not in self._known:
                await self._directory.declare_waiting_place(name, _arguments(exchange, milliseconds))
                self._remember(name)
        return self._addresses.delayed(name, key)

    def forget(self) -> None:
        """Declare all places again before they are used, as on a broker that was made anew."""
        self._known.clear()

    @property
    def places(self) -> tuple[str, ...]:
        """Return the places that were declared."""
        return tuple(self._known)

    def _remember(self, name: str) -> None:
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known.add(name)


def _arguments(exchange: str, milliseconds: int) -> dict[str, object]:
    return {
        "x-message-ttl": milliseconds,
        "x-dead-letter-exchange": exchange,
        "x-queue-type": "quorum",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
