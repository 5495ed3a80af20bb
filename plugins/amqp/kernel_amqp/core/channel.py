"""The state machine of one channel: what may be asked of it, what the peer may send on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, final

import attrs
from pamqp import base, commands

from .acks import Acks
from .assembly import Assembly, Expected
from .confirms import Confirms
from .errors import UNEXPECTED_FRAME, EncodingError, LocalError, ViolationError
from .events import ChannelClosed, ChannelOpened, Confirmed, ConsumerCancelled, Event, Replied
from .messages import (
    ACK,
    DELIVER,
    LONGEST,
    NACK,
    decode_deliver,
    decode_settle,
    encode_ack,
    encode_frame,
    encode_message,
    encode_nack,
)
from .methods import decode_method, encode_method, method_name
from .properties import Properties
from .reader import BODY, HEADER, METHOD, OVERHEAD
from .states import CHANNEL_ASKED, CHANNEL_RECEIVES, DISCARDING, ChannelState, asked, received
from .text import readable

_OPEN: Final = ChannelState.OPEN
_CALLED: Final = frozenset({"Exchange", "Queue", "Basic", "Confirm", "Tx"})


@final
@attrs.define(eq=False)
class Channel:
    """One channel of a connection; made by `Connection.open_channel`.

    Every method raises `LocalError` when the channel is not open, and then nothing was queued.
    What the broker answers comes as events of `Connection.receive`.
    """

    number: int
    _out: list[bytes] = attrs.field(repr=False)
    """What the connection is to send."""
    _acking: list[Channel] = attrs.field(repr=False)
    """Channels with acknowledgements that are to be sent, after what is in `_out`."""
    _frame_max: int = attrs.field(repr=False)
    _max_message_bytes: int = attrs.field(repr=False)
    _release: Callable[[int], None] = attrs.field(repr=False)
    """Called when the number may be used again."""
    state: ChannelState = ChannelState.OPENING
    _calls: deque[base.Frame] = attrs.field(factory=deque[base.Frame], repr=False)
    """Those without an answer, oldest first."""
    _confirms: Confirms | None = attrs.field(default=None, repr=False)
    _assembly: Assembly = attrs.field(init=False, repr=False)
    _acks: Acks = attrs.field(factory=Acks, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Send what opens the channel."""
        self._assembly = Assembly(self.number, self._max_message_bytes)
        self._send(commands.Channel.Open())

    def call(self, method: base.Frame) -> None:
        """Queue a synchronous method; its answer is an event `Replied`, in the order of the calls.

        `Confirm.Select` begins the confirm mode for whatever is published after it.

        Raises:
            LocalError: if the channel is not open, or the method has no answer or is not for here.
            EncodingError: if a value has no place on the wire, or it does not fit one frame.
        """
        self._ask("call")
        if not _can_be_called(method):
            raise LocalError(f"{method.name} cannot be called: it has no answer, or is not for here")
        self._send(method)
        self._calls.append(method)
        if isinstance(method, commands.Confirm.Select) and self._confirms is None:
            self._confirms = Confirms()

    def publish(
        self, *, exchange: str, routing_key: str, properties: Properties, body: bytes, mandatory: bool = False
    ) -> int:
        """Queue a message.

        Args:
            exchange: Its name; empty is the default exchange.
            routing_key: Of at most 255 bytes.
            properties: Read at once; may be used again.
            body: Kept until it is sent.
            mandatory: Ask for an event `Returned` if no queue takes it.

        Returns:
            In confirm mode the number that its `Confirmed` will have, beginning with 1; else 0.

        Raises:
            LocalError: if the channel is not open.
            EncodingError: if a value has no place on the wire, or the properties do not fit one frame.
        """
        if self.state is not _OPEN:
            self._ask("publish")
        self._out += encode_message(
            self.number,
            exchange=exchange,
            routing_key=routing_key,
            mandatory=mandatory,
            properties=properties,
            body=body,
            frame_max=self._frame_max,
        )
        confirms = self._confirms
        if confirms is None:
            return 0
        confirms.published += 1
        return confirms.published

    def ack(self, delivery_tag: int, *, multiple: bool = False) -> None:
        """Queue that a delivery is done with; with `multiple`, those before it too.

        Those that stand next to each other and are sent together become one frame.

        Raises:
            LocalError: if the channel is not open.
            EncodingError: if no delivery can have this tag.
        """
        if self.state is not _OPEN:
            self._ask("ack")
        if multiple or not 0 < delivery_tag <= LONGEST:
            self.send_acks()
            self._out.append(encode_ack(self.number, delivery_tag, multiple=multiple))
            self._acks.settled(delivery_tag, below=multiple)
        elif self._acks.add(delivery_tag):
            self._acking.append(self)

    def send_acks(self) -> None:
        """Queue the acknowledgements that wait; for the connection, when it is about to send."""
        if self.state is _OPEN:
            for tag, multiple in self._acks.take():
                self._out.append(encode_ack(self.number, tag, multiple=multiple))

    def nack(self, delivery_tag: int, *, requeue: bool) -> None:
        """Queue that a delivery is refused: it goes back to its queue, or is dead-lettered or dropped.

        Raises:
            LocalError: if the channel is not open.
            EncodingError: if no delivery can have this tag.
        """
        if self.state is not _OPEN:
            self._ask("nack")
        self._out.append(encode_nack(self.number, delivery_tag, requeue=requeue))
        self._acks.settled(delivery_tag)

    def close(self) -> None:
        """Queue that the channel ends; the answer is an event `Replied` with `Channel.CloseOk`.

        Whatever the broker sends on it before that is discarded.

        Raises:
            LocalError: if it is closing or closed.
        """
        after = self._ask("close")
        self._send(commands.Channel.Close(200, "", 0, 0))
        self.state = after

    def lost(self) -> None:
        """Take that the connection is over, or about to be; for the connection."""
        self.state = ChannelState.CLOSED

    def take(self, kind: int, data: bytes, at: int, end: int, events: list[Event]) -> None:
        """Take a frame of the peer and add what it means; for the connection.

        Raises:
            ViolationError: if it is malformed, or not allowed here.
        """
        if kind == BODY and self.state is _OPEN:
            message = self._assembly.body(data, at, end)
            if message is not None:
                events.append(message)
        elif kind == HEADER and self.state is _OPEN:
            message = self._assembly.header(data, at, end)
            if message is not None:
                events.append(message)
        elif self.state is _OPEN and data[at : at + 4] == DELIVER and self._assembly.expected is Expected.METHOD:
            deliver = decode_deliver(data, at + 4, end)
            self._acks.delivered(deliver[1])
            self._assembly.deliver(deliver)
        elif kind == METHOD:
            self._take_method(data, at, end, events)
        elif self.state is _OPEN:
            raise ViolationError(UNEXPECTED_FRAME, f"the peer sent a heartbeat on channel {self.number}")
        elif self.state is ChannelState.OPENING:
            raise ViolationError(UNEXPECTED_FRAME, f"the peer sent content on channel {self.number} before it is open")

    def _take_method(self, data: bytes, at: int, end: int, events: list[Event]) -> None:
        index = data[at : at + 4]
        if index in {ACK, NACK} and self.state is _OPEN and self._assembly.expected is Expected.METHOD:
            self._settled(data, at + 4, end, taken=index == ACK, events=events)
            return
        method = decode_method(data, at, end)
        known = CHANNEL_RECEIVES[self.state]
        if self.state in DISCARDING and method.name not in known:
            return
        if self._assembly.expected is not Expected.METHOD and not isinstance(method, commands.Channel.Close):
            raise ViolationError(UNEXPECTED_FRAME, f"the peer sent {method.name} in the middle of a message")
        name = method.name if method.name in known or not self._answered(method) else "reply"
        before, self.state = self.state, received(CHANNEL_RECEIVES, self.state, name)
        self._act(method, before, events)

    def _answered(self, method: base.Frame) -> bool:
        """Whether a method is the answer to the oldest call; if so, that call is done."""
        if not self._calls or method.name not in self._calls[0].valid_responses:
            return False
        self._calls.popleft()
        return True

    def _act(self, method: base.Frame, before: ChannelState, events: list[Event]) -> None:
        match method:
            case commands.Channel.OpenOk():
                events.append(ChannelOpened(self.number))
            case commands.Channel.Close():
                self._closed(method, events)
            case commands.Channel.CloseOk():
                self._release(self.number)
                if before is ChannelState.CLOSING:
                    events.append(Replied(self.number, method))
            case commands.Basic.Return():
                self._assembly.returned(method)
            case commands.Basic.Cancel():
                self._cancelled(method, events)
            case _:
                events.append(Replied(self.number, method))

    def _closed(self, method: commands.Channel.Close, events: list[Event]) -> None:
        self._send(commands.Channel.CloseOk())
        if self.state is ChannelState.CLOSED:
            self._release(self.number)
        failed = method_name(method.class_id or 0, method.method_id or 0)
        events.append(ChannelClosed(self.number, method.reply_code or 0, readable(method.reply_text), failed))

    def _cancelled(self, method: commands.Basic.Cancel, events: list[Event]) -> None:
        if not method.nowait:
            self._send(commands.Basic.CancelOk(method.consumer_tag))
        events.append(ConsumerCancelled(self.number, method.consumer_tag or ""))

    def _settled(self, data: bytes, at: int, end: int, *, taken: bool, events: list[Event]) -> None:
        number, multiple = decode_settle(data, at, end)
        if self._confirms is None:
            raise ViolationError(UNEXPECTED_FRAME, f"the peer confirmed on channel {self.number} without being asked")
        for first, last in self._confirms.settle(number, multiple=multiple):
            events.append(Confirmed(self.number, first, last, taken))

    def _ask(self, what: str) -> ChannelState:
        return asked(CHANNEL_ASKED, self.state, what, f"channel {self.number}")

    def _send(self, method: base.Frame) -> None:
        payload = encode_method(method)
        if len(payload) + OVERHEAD > self._frame_max:
            raise EncodingError(f"{method.name} has {len(payload)} bytes; one frame has room for {self._frame_max}")
        self.send_acks()
        self._out.append(encode_frame(METHOD, self.number, payload))


def _can_be_called(method: base.Frame) -> bool:
    """Whether a method has an answer, which is nothing but a method."""
    if isinstance(method, commands.Channel.Flow):
        return True
    known = method.synchronous and method.name.partition(".")[0] in _CALLED
    return known and not isinstance(method, commands.Basic.Get) and not getattr(method, "nowait", False)
