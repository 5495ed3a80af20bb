"""Conversations with a real broker, mutated and played to the core, which may say what it wants but must not break.

A conversation is what the broker sent, in the segments between which the client had something to say; `Client` says
the same again when it is played. The files in `conversations` were recorded by `benchmarks/fuzz_amqp.py --record`.
What must hold for any input stands in `Client` and `play`, as assertions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from kernel_amqp.core import (
    Channel,
    ChannelClosed,
    ChannelOpened,
    Closed,
    Confirmed,
    Connection,
    ConnectionState,
    ConsumerCancelled,
    Delivered,
    Event,
    LocalError,
    Opened,
    Properties,
    Replied,
    Settings,
    TooLarge,
)
from kernel_amqp.core.reader import ADDED
from pamqp import commands

FOLDER: Final = Path(__file__).parent / "conversations"
SETTINGS: Final = Settings(response="\0guest\0guest", frame_max=4096, max_message_bytes=8000)
HEADERS: Final[dict[str, object]] = {"text": "straße", "list": [1, {"a": 2.5}, None], "bytes": b"\xff", "big": 1 << 40}
MESSAGES: Final = [
    (Properties(), b""),
    (Properties(content_type="application/json", headers=HEADERS, message_id="m", delivery_mode=2), b'{"a": 1}'),
    (Properties(correlation_id="c", reply_to="r", expiration="60000", timestamp=5, type="t", app_id="a"), b"x" * 6000),
    (Properties(priority=1, content_encoding="utf-8", headers={"x": {"y": {}}}), b"x" * 9000),
]

Frame = tuple[int, int, bytes]
"""Type, channel, payload."""
Segments = list[bytes]


@attrs.define
class Client:
    """Does the same things in every conversation, each as an answer to an event; checks what must hold for any event."""

    queue: str = "q"
    core: Connection = attrs.field(factory=lambda: Connection(SETTINGS))
    opened: list[Channel] = attrs.field(factory=list)
    """All that there were, in their order."""
    channels: list[Channel] = attrs.field(factory=list)
    """Those that the conversation uses."""
    told: list[Event] = attrs.field(factory=list)
    over: set[int] = attrs.field(factory=set)
    """Numbers of channels whose last event was told, and that no new channel has."""
    waiting: dict[int, set[int]] = attrs.field(factory=dict)
    """Numbers of messages without a confirm."""
    deliveries: int = 0

    def take(self, data: bytes) -> list[Event]:
        """Give a chunk to the core and check what it means."""
        events = self.core.receive(data)
        for event in events:
            self.check(event)
        assert len(self.core._reader._rest) <= SETTINGS.frame_max + ADDED + len(data)
        for channel in self.core._channels.values():
            assert len(channel._assembly._body) <= SETTINGS.max_message_bytes
        return events

    def check(self, event: Event) -> None:
        """Assert what must hold for an event, whatever the broker did."""
        assert not any(isinstance(before, Closed) for before in self.told[-1:]), "nothing follows Closed"
        assert getattr(event, "channel", None) not in self.over, "nothing follows the last event of a channel"
        self.told.append(event)
        match event:
            case Delivered():
                assert len(event.body) <= SETTINGS.max_message_bytes
                assert type(event.body) is bytes
            case Confirmed():
                numbers = set(range(event.first, event.last + 1))
                assert numbers
                assert numbers <= self.waiting[event.channel], "each number is confirmed once"
                self.waiting[event.channel] -= numbers
            case ChannelClosed():
                self.over.add(event.channel)
            case Replied() if event.method.name == "Channel.CloseOk":
                self.over.add(event.channel)
            case _:
                pass
        str(getattr(event, "text", "")).encode()

    def react(self, events: Sequence[Event]) -> None:
        """Do what the conversation does next; the core may not be in the state for it any more."""
        for event in events:
            try:
                self.react_to(event)
            except LocalError:
                continue

    def react_to(self, event: Event) -> None:
        """Do what the conversation does after an event."""
        match event:
            case Opened():
                self.channels += [self.open_channel(), self.open_channel()]
            case ChannelOpened():
                self.begin(self.named(event.channel))
            case Delivered() | TooLarge():
                self.settle(event)
            case ConsumerCancelled():
                self.named(event.channel).call(commands.Queue.Declare(queue=self.queue + "-none", passive=True))
            case ChannelClosed():
                self.channels.append(self.open_channel())
            case Replied() if event.method.name == "Channel.CloseOk":
                self.core.close()
            case _:
                pass

    def open_channel(self) -> Channel:
        """Open one more; it may have the number of one that is over."""
        channel = self.core.open_channel()
        self.opened.append(channel)
        self.over.discard(channel.number)
        self.waiting[channel.number] = set()
        return channel

    def named(self, number: int) -> Channel:
        """Return the channel that has a number."""
        return next(channel for channel in reversed(self.opened) if channel.number == number)

    def begin(self, channel: Channel) -> None:
        """Use a channel that is open: the first confirms, the second does not, the third only closes."""
        place = self.channels.index(channel) if channel in self.channels else 2
        if place > 1:
            channel.call(commands.Basic.Qos(prefetch_count=5))
            channel.close()
            return
        queue = f"{self.queue}-{place}"
        channel.call(commands.Queue.Declare(queue=queue, exclusive=True))
        if place == 0:
            channel.call(commands.Confirm.Select())
        channel.call(commands.Basic.Consume(queue=queue, consumer_tag=f"c{place}"))
        for properties, body in MESSAGES:
            self.publish(channel, queue, properties, body)
        self.publish(channel, f"{self.queue}-none", MESSAGES[1][0], b"comes back")

    def publish(self, channel: Channel, key: str, properties: Properties, body: bytes) -> None:
        """Publish, and remember the number that must be confirmed once."""
        number = channel.publish(exchange="", routing_key=key, properties=properties, body=body, mandatory=True)
        self.waiting[channel.number].add(number)

    def settle(self, event: Delivered | TooLarge) -> None:
        """Settle in turns; after the last delivery the queue of the second channel goes away."""
        channel = self.named(event.channel)
        if event.delivery_tag % 2:
            channel.ack(event.delivery_tag, multiple=event.delivery_tag % 3 == 0)
        else:
            channel.nack(event.delivery_tag, requeue=False)
        self.deliveries += 1
        if self.deliveries == 2 * len(MESSAGES):
            self.channels[0].call(commands.Queue.Delete(queue=f"{self.queue}-1"))


def load() -> list[Segments]:
    """Return the recorded conversations."""
    return [unpack(path.read_bytes()) for path in sorted(FOLDER.glob("*.bin"))]


def pack(segments: Segments) -> bytes:
    """Return a conversation as it is kept in a file: each segment with its length before it."""
    return b"".join(len(segment).to_bytes(4, "big") + segment for segment in segments)


def unpack(data: bytes) -> Segments:
    """Return the conversation of a file."""
    segments: Segments = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        segments.append(data[4:end])
        data = data[end:]
    return segments


def play(rng: random.Random, segments: Segments, *, disturb: bool = False) -> Client:
    """Play a conversation, each segment cut at random; fail if the core does not behave.

    Args:
        rng: Where to cut, and what else happens.
        segments: What the broker sends.
        disturb: Also do things that the conversation does not do.
    """
    client = Client()
    client.core.start()
    for segment in segments:
        events = [event for chunk in cut(rng, segment) for event in client.take(chunk)]
        client.react(events)
        if disturb and rng.random() < 0.2:
            interfere(rng, client)
        check_frames(client.core.data_to_send())
        if not events and client.core.state is ConnectionState.CLOSED:
            break  # one segment was ignored; the others would be
    return client


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    """Return the data in chunks: one, some, or rarely a byte each."""
    if len(data) < 300 and rng.random() < 0.03:
        return [data[at : at + 1] for at in range(len(data))]
    points = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 1, 2, 5))))
    return [data[begin:end] for begin, end in zip([0, *points], [*points, len(data)], strict=True)]


def interfere(rng: random.Random, client: Client) -> None:
    """Do something at a time of its own."""
    channel = rng.choice(client.channels) if client.channels else None
    try:
        if channel is None or rng.random() < 0.2:
            rng.choice((client.core.close, client.open_channel, client.core.send_heartbeat))()
        else:
            rng.choice((channel.close, lambda: channel.ack(1), lambda: client.publish(channel, "k", *MESSAGES[2])))()
    except LocalError:
        return


def check_frames(data: bytes) -> None:
    """Assert that what is sent are whole frames, none larger than the peer takes."""
    at = 8 if data.startswith(b"AMQP") else 0
    while at < len(data):
        size = int.from_bytes(data[at + 3 : at + 7], "big") + 8
        assert size <= SETTINGS.frame_max
        assert (data[at] in {1, 2, 3, 8}, data[at + size - 1]) == (True, 0xCE)
        at += size


def meaning(client: Client) -> list[tuple[Any, ...]]:
    """Return what was told, in a form that can be compared; of a violation not the text, which may see what follows."""
    return [
        (type(event).__name__, *(plain(getattr(event, field.name)) for field in attrs.fields(type(event))))
        for event in client.told
        if outcome_of(event) != "violation"
    ]


def plain(value: Any) -> object:
    """Return a value that can be compared."""
    if isinstance(value, Properties):
        return repr(attrs.astuple(value))
    return repr(dict(value)) if hasattr(value, "amqp_type") else repr(value)


def mutated(rng: random.Random, conversations: Sequence[Segments]) -> Segments:
    """Return a conversation with some things changed that were well before."""
    segments = list(rng.choice(conversations))
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(segments))
        if rng.random() < 0.7:
            segments[place] = on_frames(rng, segments[place])
        else:
            segments[place] = on_bytes(rng, segments[place])
        if rng.random() < 0.1:
            segments.insert(rng.randrange(len(segments)), rng.choice(rng.choice(conversations)))
        if rng.random() < 0.05:
            del segments[rng.randrange(len(segments))]
    return segments or [b""]


def on_frames(rng: random.Random, data: bytes) -> bytes:
    """Change whole frames, or the payload of one, so that the frames themselves stay well."""
    frames = split(data)
    if not frames:
        return on_bytes(rng, data)
    rng.choice(FRAME_CHANGES)(rng, frames, rng.randrange(len(frames)))
    return b"".join(join(*each) for each in frames)


def split(data: bytes) -> list[Frame]:
    """Return the whole frames of a segment."""
    frames: list[Frame] = []
    while len(data) >= 8:
        size = int.from_bytes(data[3:7], "big")
        frames.append((data[0], int.from_bytes(data[1:3], "big"), data[7 : 7 + size]))
        data = data[size + 8 :]
    return frames


def join(kind: int, channel: int, payload: bytes) -> bytes:
    """Return a frame."""
    return bytes((kind,)) + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + b"\xce"


def change_payload(rng: random.Random, frames: list[Frame], at: int) -> None:
    """Change bytes in a payload; what a frame says about its size stays true."""
    kind, channel, payload = frames[at]
    frames[at] = kind, channel, on_bytes(rng, payload)


def change_head(rng: random.Random, frames: list[Frame], at: int) -> None:
    """Change type or channel of a frame."""
    kind, channel, payload = frames[at]
    frames[at] = (
        (rng.choice((1, 2, 3, 8)), channel, payload) if rng.random() < 0.5 else (kind, rng.randrange(4), payload)
    )


def drop(_rng: random.Random, frames: list[Frame], at: int) -> None:
    """Leave a frame out."""
    del frames[at]


def repeat(rng: random.Random, frames: list[Frame], at: int) -> None:
    """Send a frame again, now or later."""
    frames.insert(rng.randrange(len(frames) + 1), frames[at])


def swap(rng: random.Random, frames: list[Frame], at: int) -> None:
    """Send two frames in the other order."""
    other = rng.randrange(len(frames))
    frames[at], frames[other] = frames[other], frames[at]


def invent(rng: random.Random, frames: list[Frame], at: int) -> None:
    """Send a method that exists, with fields that mean nothing."""
    index = rng.choice(list(commands.INDEX_MAPPING))
    frames.insert(at, (1, rng.randrange(4), index.to_bytes(4, "big") + rng.randbytes(rng.randrange(20))))


FRAME_CHANGES: Final[list[Callable[[random.Random, list[Frame], int], None]]] = [
    change_payload, change_payload, change_payload, change_head, drop, repeat, swap, invent,
]  # fmt: skip
NUMBERS: Final = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xCE,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    (1 << 64) - 1,
]
TYPES: Final = b"tbBsuIilLfdDSATFVx\x00z"


def on_bytes(rng: random.Random, data: bytes) -> bytes:
    """Change some bytes."""
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 2, 4, 8, 40)))
    return rng.choice(BYTE_CHANGES)(rng, data, at, end)


def flip(rng: random.Random, data: bytes, at: int, end: int) -> bytes:
    """Change one bit."""
    return data[:at] + bytes(byte ^ 1 << rng.randrange(8) for byte in data[at:end][:1]) + data[at + 1 :]


def put_number(rng: random.Random, data: bytes, at: int, _end: int) -> bytes:
    """Put a number there that may be a length."""
    size = rng.choice((1, 2, 4, 8))
    number = rng.choice(NUMBERS) & ((1 << 8 * size) - 1)
    return data[:at] + number.to_bytes(size, "big") + data[at + size :]


def put_type(rng: random.Random, data: bytes, at: int, _end: int) -> bytes:
    """Put the type of a field there."""
    return data[:at] + bytes((rng.choice(TYPES),)) + data[at + 1 :]


def put_noise(rng: random.Random, data: bytes, at: int, end: int) -> bytes:
    """Put any bytes there."""
    return data[:at] + rng.randbytes(end - at) + data[end:]


def cut_out(_rng: random.Random, data: bytes, at: int, end: int) -> bytes:
    """Leave bytes out."""
    return data[:at] + data[end:]


def cut_off(_rng: random.Random, data: bytes, at: int, _end: int) -> bytes:
    """Leave everything out that follows."""
    return data[:at]


def double(rng: random.Random, data: bytes, at: int, end: int) -> bytes:
    """Have bytes twice, or very often."""
    return data[:end] + data[at:end] * rng.choice((1, 1, 50)) + data[end:]


def put_nest(rng: random.Random, data: bytes, at: int, _end: int) -> bytes:
    """Put a table there, or an array, that nests up to 60 deep."""
    return data[:at] + nest(rng) + data[at:]


BYTE_CHANGES: Final[list[Callable[[random.Random, bytes, int, int], bytes]]] = [
    flip, put_number, put_type, put_noise, cut_out, cut_off, double, put_nest,
]  # fmt: skip


def nest(rng: random.Random) -> bytes:
    """Return a table or an array in others."""
    data = bytes(4)
    for _ in range(rng.randrange(60)):
        data = (b"\x01k" if rng.random() < 0.5 else b"") + rng.choice((b"F", b"A")) + data
        data = len(data).to_bytes(4, "big") + data
    return rng.choice((b"F", b"A", b"")) + data


def try_one(seed: int, conversations: Sequence[Segments]) -> Client:
    """Play one input; the same seed is the same input."""
    rng = random.Random(seed)
    segments = mutated(rng, conversations)
    if rng.random() < 0.3:
        return play(rng, segments, disturb=True)
    client = play(rng, segments)
    if rng.random() < 0.2:
        assert meaning(play(rng, segments)) == meaning(client), "however it is cut, it means the same"
    return client


def outcome(client: Client) -> str:
    """Return in a few words how an input ended."""
    return (outcome_of(client.told[-1]) if client.told else "") or f"left {client.core.state.value}"


def outcome_of(event: Event) -> str:
    """Return how the connection ended, if this is its end."""
    if not isinstance(event, Closed):
        return ""
    return {0: "violation", 200: "closed by us"}.get(event.code, "closed by the broker")
