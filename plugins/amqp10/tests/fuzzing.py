"""A conversation with a broker, mutated: what the far side may send, whatever it is, must not break or hold up ours.

The far side of the conversation is the engine's own server. One seed is one input.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import attrs
from kernel_amqp10._addresses import RABBITMQ
from kernel_amqp10.broker.letters import write_letter
from kernel_amqp10.broker.reading import Reader
from kernel_amqp10.link.engine import Engine, EngineSettings
from kernel_amqp10.link.proton import Proton
from kernel_amqp10.link.receiver import Arrived, ReceiverLink
from kernel_amqp10.link.sender import SenderLink

from kernel import Envelope

MESSAGES: Final = 5
SETTINGS: Final = EngineSettings(
    container="fuzz", hostname="broker", mechanism="ANONYMOUS", max_frame_bytes=4096, max_message_bytes=20_000
)
_STRANGE: Final = (
    b"\x00",
    b"\xff",
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"AMQP\x00\x01\x00\x00",
    b"\x00\x53\x10\x45",
)
_MOST_ROUNDS: Final = 1000


@attrs.define(eq=False)
class Ours:
    """Our side, with a link for each direction, and what it came to."""

    proton: Proton
    engine: Engine = attrs.field(init=False)
    receiver: ReceiverLink = attrs.field(init=False)
    sender: SenderLink = attrs.field(init=False)
    arrived: list[Arrived] = attrs.field(factory=list, init=False)
    seen: Counter[str] = attrs.field(factory=Counter[str], init=False)
    lost: list[Exception] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.engine = Engine(self.proton, SETTINGS, lambda: None)
        self.receiver = ReceiverLink("/amq/queue/in", self.engine, self._take, self._lose, self._drop)
        self.receiver.flow(10)
        self.sender = SenderLink("/amq/queue/out", self.engine)

    def _take(self, arrived: Arrived) -> None:
        self.arrived.append(arrived)
        try:
            Reader(self.proton, RABBITMQ).read(arrived.data, now=0.0)
        except ValueError:
            self.seen["unreadable"] += 1
            arrived.link.settle(arrived, arrived.link.rejected)
        else:
            arrived.link.settle(arrived, arrived.link.accepted)
        arrived.link.flow(1)

    def _lose(self, error: Exception) -> None:
        self.seen["lost"] += 1
        self.lost.append(error)

    def _drop(self, link: ReceiverLink, size: int) -> None:
        self.seen["too large"] += size > 0
        link.flow(1)

    def take_all(self) -> bytes:
        """Return what it has to say; bounded, so that one who never ends is found."""
        parts: list[bytes] = []
        while part := self.engine.data_to_send():
            parts.append(part)
            assert len(parts) < _MOST_ROUNDS, "it has ever more to say"
        return b"".join(parts)

    def hear(self, *data: bytes) -> None:
        for piece in data:
            self.engine.receive(piece)
            self.take_all()


def messages(proton: Proton) -> list[bytes]:
    """Return what the far side sends: small, with headers, in several frames, too large, and none at all."""
    envelope = Envelope(subject="order.paid", body=b"{}", headers={"a": 1, "list": [1]}, reply_to="answers")
    foreign: Any = proton.Message()
    foreign.body, foreign.properties = {"a": [1, 2.5, None]}, {"x": b"\xff"}
    bodies = [b"{}", b"x" * 5000, b"x" * 21_000]
    letters = [attrs.evolve(envelope, body=body) for body in bodies]
    return [*(write_letter(proton, RABBITMQ, letter, now=0.0) for letter in letters), bytes(foreign.encode()), b"junk"]


def record(proton: Proton, *, ends: bool = False) -> list[bytes]:
    """Return what a server says to our side, in turns with it: no answer comes before its question.

    Args:
        proton: The package.
        ends: Whether it ends the link that it sends on, and says why.
    """
    ours, said = Ours(proton), list[bytes]()
    module: Any = proton
    transport, connection, collector = (
        module.Transport(module.Transport.SERVER),
        module.Connection(),
        module.Collector(),
    )
    connection.collect(collector)
    sasl = transport.sasl()
    sasl.allowed_mechs("ANONYMOUS")
    transport.bind(connection)
    letters = messages(proton)
    for _ in range(30):
        if data := ours.take_all():
            transport.push(data)
        while (event := collector.peek()) is not None:
            serve(module, event, letters)
            if ends and event.type is module.Event.LINK_FLOW and not letters:
                event.link.condition = module.Condition("amqp:not-found", "there is none")
                event.link.close()
                ends = False
            collector.pop()
        if (pending := transport.pending()) > 0:
            data = transport.peek(pending)
            transport.pop(len(data))
            said.append(bytes(data))
            ours.engine.receive(bytes(data))
    assert len(ours.arrived) == MESSAGES - 1, "the conversation is worth nothing"
    return said


def serve(module: Any, event: Any, letters: list[bytes]) -> None:
    """Do what a server does about an event: answer, and send the messages that are left."""
    kind = event.type
    if kind is module.Event.CONNECTION_REMOTE_OPEN:
        event.connection.open()
    elif kind is module.Event.SESSION_REMOTE_OPEN:
        event.session.open()
    elif kind is module.Event.LINK_REMOTE_OPEN:
        link = event.link
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        link.open()
        if link.is_receiver:
            link.flow(100)
    elif kind is module.Event.LINK_FLOW and event.link.is_sender:
        while letters and event.link.credit > 0:
            event.link.delivery(str(len(letters)))
            event.link.send(letters.pop(0))
            event.link.advance()


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Return the same with some bytes changed, left out, put in, said twice, or in another order."""
    ways: list[Callable[[random.Random, bytearray], None]] = [_flip, _cut, _insert, _repeat, _number]
    text = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        chance.choice(ways)(chance, text)
    return bytes(text)


def _flip(chance: random.Random, text: bytearray) -> None:
    if text:
        text[chance.randrange(len(text))] = chance.randrange(256)


def _cut(chance: random.Random, text: bytearray) -> None:
    at = chance.randrange(len(text) + 1)
    del text[at : at + chance.choice((1, 2, 8, 100, 10_000))]


def _insert(chance: random.Random, text: bytearray) -> None:
    at = chance.randrange(len(text) + 1)
    text[at:at] = chance.choice((*_STRANGE, chance.randbytes(chance.randrange(20))))


def _repeat(chance: random.Random, text: bytearray) -> None:
    at, size = chance.randrange(len(text) + 1), chance.choice((1, 8, 60, 500))
    to = chance.randrange(len(text) + 1)
    text[to:to] = text[at : at + size]


def _number(chance: random.Random, text: bytearray) -> None:
    """Change a size or a count: most are of four bytes, near the head of a frame."""
    at = chance.randrange(max(1, len(text) - 4))
    text[at : at + 4] = chance.choice((0, 1, 7, 8, 2**16, 2**31 - 1, 2**31, 2**32 - 1)).to_bytes(4, "big")


def pieces(chance: random.Random, data: bytes) -> list[bytes]:
    """Return the same in pieces, as a network hands them over."""
    if chance.random() < 0.5:
        return [data]
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 6)))
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def play_conversation(proton: Proton, seed: int, said: list[bytes]) -> str:
    """Hear a conversation of which one turn is mutated; return what it came to."""
    chance = random.Random(seed)
    ours = Ours(proton)
    ours.take_all()
    strange = chance.randrange(len(said))
    for number, data in enumerate(said):
        for piece in pieces(chance, mutated(chance, data)) if number == strange else [data]:
            ours.hear(piece)
    ours.engine.tick(chance.uniform(1, 100))
    ours.take_all()
    state = "heard to its end" if ours.engine.over is None else "ended"
    ours.engine.close()
    ours.take_all()
    return state


def play_message(proton: Proton, seed: int, letters: list[bytes]) -> str:
    """Read a mutated message; return what it came to."""
    chance = random.Random(seed)
    try:
        Reader(proton, RABBITMQ).read(mutated(chance, chance.choice(letters)), now=0.0)
    except ValueError:
        return "refused"
    return "read"


def play(proton: Proton, seed: int, said: list[bytes], letters: list[bytes]) -> str:
    """Play one input: every second one is a message alone, of the sizes that no frame cuts."""
    if seed % 2:
        return f"message {play_message(proton, seed, letters)}"
    return f"conversation {play_conversation(proton, seed, said)}"
