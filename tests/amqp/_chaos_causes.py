"""What may be wrong with a message, of what it carries and of what its handler does; and queues full of such messages."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final
from unittest.mock import patch

import attrs
import trio
from kernel_amqp import AmqpOptions
from kernel_amqp.core import Properties
from kernel_amqp.core import properties as codec
from kernel_amqp.link.connect import LinkSettings
from kernel_amqp.link.link import Link, open_link

from kernel.abc import Binding, Exchange, Queue, Topology

TARGETS: Final = ("full", "gone", "foreign")
"""Queues that are sent on to: one is full at times, one is deleted and made again, one has a bound by policy."""
_SENDERS: Final = 30


def _table(*fields: bytes) -> bytes:
    return struct.pack(">I", sum(map(len, fields))) + b"".join(fields)


def _field(name: bytes, kind: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + kind + value


def _nested(depth: int) -> bytes:
    inner = _table()
    for _ in range(depth):
        inner = _table(_field(b"a", b"F", inner))
    return _table(_field(b"deep", b"F", inner))


def _time(seconds: int) -> bytes:
    return _table(_field(b"born", b"T", struct.pack(">q", seconds)))


LARGE: Final = _table(_field(b"long", b"S", struct.pack(">I", 130_900) + b"x" * 130_900))
"""A copy with headers of our own has no place in a frame."""


class Raw(dict[str, object]):
    """Headers as the bytes that they are on the wire."""

    def __init__(self, data: bytes) -> None:
        super().__init__(raw=True)
        self.data = data


@attrs.frozen
class Cause:
    """What is wrong with a message."""

    does: str = "end"
    """What the handler does; see `Chaos`."""
    headers: bytes | None = None
    properties: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    padding: int = 0
    is_heavy: bool = False
    """Whether it is drawn a hundred times less: it fills the disk."""


CAUSES: Final[Mapping[str, Cause]] = {
    "none": Cause(),
    "tried again at once": Cause("retry 0"),
    "tried again later": Cause("retry 0.2"),
    "a wait that is no number": Cause("raise nan"),
    "a wait beyond all": Cause("raise 1209600000"),
    "a wait that is negative": Cause("raise -1"),
    "tried again by an error": Cause("raise 0.3"),
    "fails for good": Cause("fail"),
    "put aside": Cause("bury"),
    "a time before 1970, again": Cause("retry 0", headers=_time(-86_400)),
    "a time before 1970, aside": Cause("bury", headers=_time(-(2**62))),
    "a time after all others": Cause("retry 0.2", headers=_time(2**63 - 1)),
    "an id that is no text": Cause("retry 0", properties={"message_id": "\udcff" * 100}),
    "names that are no text": Cause("bury", properties={"type": "\udcff" * 255, "app_id": "\udcff" * 255}),
    "a key that is no text": Cause("retry 0.2", headers=_table(_field(b"\xff" * 255, b"t", b"\x01"))),
    "nesting to the bound": Cause("retry 0", headers=_nested(30)),
    "attempts that are no number": Cause("fail", headers=_table(_field(b"kernel-attempts", b"S", b"\0\0\0\1x"))),
    "headers that fill a frame, again": Cause("retry 0", headers=LARGE, is_heavy=True),
    "headers that fill a frame, aside": Cause("bury", headers=LARGE, is_heavy=True),
    "too large": Cause(padding=70_000, is_heavy=True),
    "an answer for nobody": Cause("answer", properties={"reply_to": "chaos.nobody", "correlation_id": "1"}),
    "an answer to one who is gone": Cause("answer", properties={"reply_to": "amq.rabbitmq.reply-to.g1h2AA"}),
    "a delay to a full queue": Cause("send exchange full 0.2"),
    "a delay to a queue that is gone": Cause("send exchange gone 0.2"),
    "a delay to a queue of others": Cause("send exchange foreign 0.2"),
    "a delay straight to a full queue": Cause("send straight full 0.3"),
    "straight to a full queue": Cause("send straight full 0"),
    "to a queue that is gone": Cause("send exchange gone 0"),
    "straight to a queue of others": Cause("send straight foreign 0"),
}
_WEIGHTS: Final = [1 if cause.is_heavy else 100 for cause in CAUSES.values()]


@attrs.frozen
class Place:
    """The names of one trial."""

    queue: str

    @property
    def grave(self) -> str:
        return f"{self.queue}.dead"

    def target(self, name: str) -> str:
        return f"{self.queue}.{name}"

    @property
    def sources(self) -> Sequence[str]:
        """What the harness takes from."""
        return [self.grave, *map(self.target, TARGETS)]

    def topology(self) -> Topology:
        return Topology(
            exchanges=[Exchange(name=self.queue)],
            queues=[
                *(Queue(name=name, options=AmqpOptions(type="classic")) for name in map(self.target, TARGETS)),
                Queue(name=self.grave, options=AmqpOptions(type="classic")),
                Queue(name=self.queue, dead_letters=self.grave, options=AmqpOptions(type="quorum")),
            ],
            bindings=[
                Binding(queue=self.target(name), exchange=self.queue, pattern=self.target(name)) for name in TARGETS
            ],
        )


def drawn(chance: random.Random, messages: int) -> list[Cause]:
    """Return the cause of each message."""
    return chance.choices(list(CAUSES.values()), _WEIGHTS, k=messages)


async def fill(settings: LinkSettings, place: Place, causes: Sequence[Cause], seconds: float) -> None:
    """Send a message for each cause, confirmed."""
    numbers = iter(range(len(causes)))
    encode = codec.encode_table

    async def send(link: Link) -> None:
        async with link.open_channel() as channel:
            await channel.confirm_select()
            for number in numbers:
                cause = causes[number]
                properties = Properties(delivery_mode=2, **cause.properties)
                properties.headers = Raw(cause.headers) if cause.headers is not None else None
                await channel.publish(
                    exchange="",
                    routing_key=place.queue,
                    properties=properties,
                    body=_body(place, number, cause, seconds),
                    mandatory=True,
                )

    raw = patch.object(codec, "encode_table", lambda table: table.data if isinstance(table, Raw) else encode(table))
    async with open_link(settings) as link:
        with raw:
            async with trio.open_nursery() as nursery:
                for _ in range(_SENDERS):
                    nursery.start_soon(send, link)


def _body(place: Place, number: int, cause: Cause, seconds: float) -> bytes:
    does = cause.does
    if does.startswith("send "):
        way, target, delay = does.split()[1:]
        does = f"send {way} {place.target(target)} {delay}"
    return json.dumps({"id": number, "does": does, "seconds": seconds}).encode() + b" " * cause.padding
