"""RabbitMQ's STOMP plugin. Sources: RabbitMQ, STOMP plugin; rabbit_stomp_processor, rabbit_routing_util.

Exchanges cannot be made over STOMP: each is the first word of the keys of `amq.topic`, unless the manifest says that it
exists. A queue is made by a subscription to it, with what is asked for in the headers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final
from urllib.parse import unquote

import attrs
import trio
from typing_extensions import override

from kernel import Envelope
from kernel.abc import DEADLINE_HEADER, Binding, Capability, Queue
from kernel.errors import ConflictError

from .._config import StompOptions
from ..core import Frame, named
from ..link.link import Link
from .dialect import Dialect, Supply, Wish
from .letters import TARGET

DELAY_PREFIX: Final = "kernel.delay."
"""What the names of the queues begin with in which messages wait for their time."""
EXCLUSIVE_PREFETCH: Final = 100
"""What is taken ahead of a queue that is one connection's: it is declared before anybody says how much he takes."""
_ID: Final = "1"
_SPECIAL: Final = frozenset("~.*#/")
"""What the name of an exchange has as another character in a key."""
_LONGEST: Final = 2**32 - 1
"""Milliseconds; the server takes no longer `expiration`."""
_REASONS: Final = {"expired": "expired", "maxlen": "overflow"}
_CAPABILITIES: Final = frozenset({
    Capability.DEAD_LETTERS,
    Capability.DELAY,
    Capability.DURABLE,
    Capability.PRIORITY,
    Capability.REQUEST_REPLY,
    Capability.TTL,
})


@final
@attrs.frozen(repr=False)
class RabbitMq(Dialect):
    """RabbitMQ 3.10 or later."""

    _exchanges: frozenset[str]
    """Those that others have made."""

    @property
    @override
    def capabilities(self) -> frozenset[Capability]:
        return _CAPABILITIES

    @property
    @override
    def keeps_exclusive(self) -> bool:
        return True

    @override
    def may_consume(self, queue: str) -> bool:
        return True  # it tells if there is none

    @override
    def queue_problems(self, queue: Queue) -> Sequence[str]:
        options = options_of(queue)
        if options.type == "quorum" and (queue.exclusive or options.max_priority or not queue.durable):
            kind = "such a queue is durable, not exclusive, and has no priorities"
            return [f'queue "{queue.name}" cannot be of `type = "quorum"`: {kind}']
        return []

    @override
    def declarations(self, queue: Queue, bindings: Sequence[Binding]) -> Sequence[Frame]:
        own = self._declaration(queue)
        frames = [Frame("SUBSCRIBE", {"destination": f"/queue/{quote(queue.name)}", **own})]
        for binding in bindings:
            where = self.destination(exchange=binding.exchange, subject=binding.pattern)
            frames.append(Frame("SUBSCRIBE", {"destination": where, "x-queue-name": queue.name, **own}))
        return frames

    def _declaration(self, queue: Queue) -> dict[str, str]:
        options = options_of(queue)
        prefetch = EXCLUSIVE_PREFETCH if queue.exclusive else 1
        return {
            "ack": "client-individual",
            "prefetch-count": str(prefetch),
            "durable": _word(queue.durable and not queue.exclusive),
            "auto-delete": _word(queue.exclusive),
            "exclusive": _word(queue.exclusive),
            **({} if queue.exclusive else {"x-priority": "-1000"}),  # whoever really consumes comes first
            **_arguments(queue, options),
        }

    @override
    def destination(self, *, exchange: str, subject: str) -> str:
        if not exchange:
            return subject if subject.startswith("/") else f"/amq/queue/{quote(subject)}"
        if exchange in self._exchanges:
            return f"/exchange/{quote(exchange)}/{quote(subject)}" if subject else f"/exchange/{quote(exchange)}"
        return (
            f"/topic/{quote(_word_of(exchange))}.{quote(subject)}" if subject else f"/topic/{quote(_word_of(exchange))}"
        )

    @override
    def outside(self, envelope: Envelope, *, exchange: str) -> Mapping[str, str]:
        headers = {"amqp-message-id": envelope.id}
        if envelope.reply_to:
            reply_to = envelope.reply_to
            headers["reply-to"] = reply_to if "/" not in reply_to or reply_to[0] == "/" else f"/queue/{quote(reply_to)}"
        return headers

    @override
    def id_of(self, headers: Mapping[str, str]) -> str:
        return headers.get("amqp-message-id", "")

    @override
    def reply_to_of(self, headers: Mapping[str, str]) -> str:
        reply_to = headers.get("reply-to", "").removeprefix("/reply-queue/")
        return unquote(reply_to.removeprefix("/queue/")) if reply_to.startswith("/queue/") else reply_to

    @override
    def subject_of(self, headers: Mapping[str, str]) -> str:
        where = headers.get("destination", "")
        name = next(
            (where[len(start) :] for start in ("/queue/", "/amq/queue/", "/topic/") if where.startswith(start)), ""
        )
        if not name and where.startswith("/exchange/"):
            name = where.removeprefix("/exchange/").partition("/")[2]
        return unquote(name)

    @override
    def death_of(self, headers: Mapping[str, str], *, queue: str) -> tuple[str, str] | None:
        reason, place = headers.get("x-first-death-reason", ""), headers.get("x-first-death-queue", "")
        if not reason:
            return None
        if not place.startswith(DELAY_PREFIX):
            return _REASONS.get(reason, reason), place
        # It has waited for its time, which is no death. If it is not where it went from there, it has died there.
        target, where = headers.get(TARGET, ""), headers.get("destination", "")
        if target == queue or (not target and not where.startswith("/queue/")):
            return None
        return "expired", target

    @override
    def supply(self, wish: Wish) -> Supply:
        return RabbitSupply(wish)

    @override
    def holds(self, delay: float) -> Mapping[str, str] | None:
        return None

    def expiration(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return by which the server puts aside what is too late."""
        deadline = headers.get(DEADLINE_HEADER, "")
        return {"expiration": deadline} if deadline and int(deadline) <= _LONGEST else {}


@final
@attrs.define(eq=False, repr=False)
class RabbitSupply(Supply):
    """One subscription. What is not settled when it ends stays so, and can be, as long as there is one of that id."""

    _wish: Wish
    _link: Link | None = attrs.field(default=None, init=False)

    @override
    async def begin(self, link: Link) -> None:  # noqa: ASYNC910  who declared it has waited
        await trio.lowlevel.checkpoint_if_cancelled()
        self._link, spec = link, self._wish.spec
        if spec is None or not spec.exclusive:  # that one is subscribed to since it was declared
            await link.request(self._subscription(f"/amq/queue/{quote(self._wish.queue)}", self._wish.prefetch))

    @override
    def wants(self, frame: Frame) -> bool:
        return True

    @override
    def ack(self, frame: Frame) -> None:
        self._open.acknowledge(frame)

    @override
    def give_back(self, frame: Frame) -> None:
        self._open.write(Frame("NACK", {**named(frame), "requeue": "true"}))

    @override
    def put_aside(self, frame: Frame) -> None:
        self._open.write(Frame("NACK", {**named(frame), "requeue": "false"}))

    @override
    async def leave(self, untaken: Callable[[], Sequence[Frame]], *, taken: Sequence[Frame]) -> None:
        link, spec = self._open, self._wish.spec
        if spec is not None and spec.exclusive and taken:
            untaken()  # it goes away with the queue, as soon as the last is settled
            await trio.lowlevel.checkpoint()
            return
        if not taken:
            untaken()
            await link.aclose()  # whatever is not settled is delivered to others
            return
        # An acknowledgement is taken only as long as there is a subscription of its id: this one gets nothing. The two
        # go out together, so that none of those who settle meanwhile comes between them and ends the connection.
        link.write(Frame("UNSUBSCRIBE", {"id": _ID}))
        await link.request(self._subscription("/topic/kernel.nowhere", 1))
        for frame in untaken():
            self.give_back(frame)

    @property
    def _open(self) -> Link:
        assert self._link is not None
        return self._link

    def _subscription(self, destination: str, prefetch: int) -> Frame:
        own = {"id": _ID, "ack": "client-individual", "prefetch-count": str(min(prefetch, 65535))}
        return Frame("SUBSCRIBE", {**own, "destination": destination})


def options_of(queue: Queue) -> StompOptions:
    """Return the options of a queue."""
    if queue.options is None:
        return StompOptions()
    if not isinstance(queue.options, StompOptions):
        raise ConflictError(f'queue "{queue.name}" has options of {type(queue.options).__name__}, not StompOptions')
    return queue.options


def quote(name: str) -> str:
    """Return a name as a part of a destination."""
    return name.replace("/", "%2F")


def _arguments(queue: Queue, options: StompOptions) -> dict[str, str]:
    arguments: dict[str, str] = {}
    if options.type is not None:
        arguments["x-queue-type"] = options.type
    if options.max_priority is not None:
        arguments["x-max-priority"] = str(options.max_priority)
    if options.expires is not None:
        arguments["x-expires"] = str(math.ceil(options.expires * 1000))
    if queue.ttl is not None:
        arguments["x-message-ttl"] = str(math.ceil(queue.ttl * 1000))
    if queue.dead_letters:
        arguments |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue.dead_letters}
    return arguments


def _word(flag: bool) -> str:  # noqa: FBT001  it is what the word says
    return "true" if flag else "false"


def _word_of(exchange: str) -> str:
    """Return an exchange as one word of a key, whatever its name."""
    return "".join(f"~{ord(char):02X}" if char in _SPECIAL else char for char in exchange)
