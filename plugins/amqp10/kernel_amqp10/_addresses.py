"""How brokers name queues and exchanges in addresses of AMQP 1.0. Pure.

Sources: RabbitMQ, AMQP 1.0 plugin of 3.x, "Routing and Addressing"; RabbitMQ 4, "AMQP 1.0 Addresses", v2; Apache
ActiveMQ Artemis, "Address Model", fully qualified queue names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Literal, final
from urllib.parse import quote, unquote

import attrs
from typing_extensions import override

Dialect = Literal["rabbitmq", "rabbitmq4", "artemis"]


@final
@attrs.frozen
class Route:
    """Where a message goes."""

    address: str | None
    """What a sender is attached to; None for one that is attached to nothing, where each message says `to`."""
    to: str | None = None


class Addresses(ABC):
    """One way to name queues and exchanges."""

    __slots__ = ()

    is_counting: bool = False
    """Whether the broker counts deliveries that failed, and holds messages back by itself."""

    @abstractmethod
    def queue(self, name: str) -> str:
        """Return the address of a queue."""

    @abstractmethod
    def route(self, exchange: str, key: str) -> Route:
        """Return where a message for an exchange goes, or for the queue `key` if that is empty."""

    @abstractmethod
    def sources(self, queue: str, bound: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
        """Return what a queue is consumed from; `bound` are the exchanges and patterns that it is bound to."""

    def name_of(self, address: str) -> str:
        """Return the name of the queue that an address means, or the address if it is no such one."""
        return address


@final
class RabbitAddresses(Addresses):
    """`/amq/queue/NAME` and `/exchange/NAME`: the plugin of RabbitMQ 3.x.

    `/queue/NAME` would declare the queue, without what it was declared with. Of what is escaped in an address, the plugin
    reads `%2F` and nothing else; and what is no ASCII it does not read at all, so that stays escaped, and is not found.
    """

    __slots__ = ()

    @override
    def queue(self, name: str) -> str:
        return f"/amq/queue/{_escaped(name)}"

    @override
    def route(self, exchange: str, key: str) -> Route:
        if not exchange:
            return Route(self.queue(key))
        return Route(f"/exchange/{_escaped(exchange)}")  # the subject of a message is its routing key

    def delayed(self, exchange: str, key: str) -> Route:
        """Return where a message goes whose routing key is not its subject."""
        return Route(f"/exchange/{_escaped(exchange)}/{_escaped(key)}")

    @override
    def sources(self, queue: str, bound: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
        return (self.queue(queue),)

    @override
    def name_of(self, address: str) -> str:
        return _without(address, "/amq/queue/", "/queue/", "/reply-queue/", read=_unescaped)


@final
class Rabbit4Addresses(Addresses):
    """`/queues/NAME` and `/exchanges/NAME/KEY`: RabbitMQ 4."""

    __slots__ = ()

    @override
    def queue(self, name: str) -> str:
        return f"/queues/{quote(name, safe='')}"

    @override
    def route(self, exchange: str, key: str) -> Route:
        return Route(None, self.queue(key) if not exchange else self._exchange(exchange, key))

    def delayed(self, exchange: str, key: str) -> Route:
        """Return where a message goes whose routing key is not its subject."""
        return Route(None, self._exchange(exchange, key))

    @staticmethod
    def _exchange(exchange: str, key: str) -> str:
        return f"/exchanges/{quote(exchange, safe='')}/{quote(key, safe='')}"

    @override
    def sources(self, queue: str, bound: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
        return (self.queue(queue),)

    @override
    def name_of(self, address: str) -> str:
        return _without(address, "/queues/", read=unquote)


@final
@attrs.frozen
class ArtemisAddresses(Addresses):
    """`ADDRESS::QUEUE`, which the broker makes when somebody attaches to it: ActiveMQ Artemis.

    Each queue has an address of its own, for what is sent straight to it; and at the address of each pattern that it is
    bound with, a queue that gets a copy of what is sent there.
    """

    is_counting = True
    with_exchange: bool = True
    """Whether the name of the exchange is in the address: `EXCHANGE.SUBJECT`, or `SUBJECT` alone."""

    @override
    def queue(self, name: str) -> str:
        return name.replace("::", ".")

    @override
    def route(self, exchange: str, key: str) -> Route:
        return Route(self._address(exchange, key) if exchange else self.queue(key))

    def _address(self, exchange: str, key: str) -> str:
        return f"{exchange}.{key}" if self.with_exchange else key

    @override
    def sources(self, queue: str, bound: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
        listener = queue.partition("::")[2] if len(bound) == 1 else ""
        copies = (
            f"{self._address(exchange, pattern)}::{listener or f'{queue}.{pattern}'}" for exchange, pattern in bound
        )
        return (self.queue(queue), *copies)


_PLAIN: Final = "".join(map(chr, range(ord(" "), 127))).replace("/", "")


def _without(address: str, *prefixes: str, read: Callable[[str], str]) -> str:
    found = next((prefix for prefix in prefixes if address.startswith(prefix)), None)
    return address if found is None else read(address.removeprefix(found))


def _escaped(name: str) -> str:
    return quote(name, safe=_PLAIN)


def _unescaped(name: str) -> str:
    return name.replace("%2F", "/")


def addresses(dialect: Dialect, *, with_exchange: bool = True) -> Addresses:
    """Return the addresses that a dialect has."""
    match dialect:
        case "rabbitmq":
            return RABBITMQ
        case "rabbitmq4":
            return RABBITMQ4
        case "artemis":
            return ArtemisAddresses(with_exchange)


RABBITMQ: Final = RabbitAddresses()
RABBITMQ4: Final = Rabbit4Addresses()
