"""The state machine of one connection: bytes in, events and bytes out.

It does no I/O and knows no clock: whoever uses it reads and writes the socket, and sends heartbeats.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast, final

import attrs
from pamqp import base, commands

from .channel import Channel
from .errors import (
    CHANNEL_ERROR,
    FRAME_ERROR,
    NOT_IMPLEMENTED,
    UNEXPECTED_FRAME,
    LocalError,
    ViolationError,
)
from .events import Blocked, Closed, Event, Opened, Unblocked
from .messages import HEARTBEAT_FRAME, encode_frame
from .methods import decode_method, encode_method, method_name, with_names
from .reader import HEARTBEAT, METHOD, FrameReader
from .settings import FRAME_MIN, Settings
from .states import CONNECTION_ASKED, CONNECTION_RECEIVES, DISCARDING, ConnectionState, asked, received
from .text import readable, shortened

if TYPE_CHECKING:
    from pamqp.common import FieldTable

_PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
_CAPABILITIES: Final[dict[str, object]] = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "exchange_exchange_bindings": True,
    "publisher_confirms": True,
}
_TOLD: Final = frozenset({ConnectionState.TUNING, ConnectionState.OPENING, ConnectionState.OPEN})
"""The states in which a peer that breaks the protocol is told so."""
_TUNED: Final = frozenset({ConnectionState.OPENING, ConnectionState.OPEN, ConnectionState.CLOSING})
"""The states in which heartbeats may be sent."""


@final
@attrs.define(eq=False)
class Connection:
    """One connection to a broker.

    Args:
        settings: What is asked of the broker, and the bounds it is held to.

    Raises:
        EncodingError: if a value of the settings has no place on the wire.
    """

    _settings: Settings
    state: ConnectionState = attrs.field(default=ConnectionState.IDLE, init=False)
    heartbeat: float = attrs.field(default=0.0, init=False)
    """Seconds between two heartbeats, as negotiated; 0 means none, and 0 before `Opened`."""
    frame_max: int = attrs.field(init=False)
    """Bytes of the largest frame, as negotiated."""
    channel_max: int = attrs.field(init=False)
    """The highest channel number, as negotiated."""
    _login: bytes = attrs.field(init=False, repr=False)
    """The frame with the credentials. It is made first, so that nothing of ours can fail when the peer is read."""
    _entry: bytes = attrs.field(init=False, repr=False)
    """The frame with the virtual host."""
    _reader: FrameReader = attrs.field(init=False, repr=False)
    _out: list[bytes] = attrs.field(factory=list[bytes], init=False, repr=False)
    _acking: list[Channel] = attrs.field(factory=list[Channel], init=False, repr=False)
    """Channels with acknowledgements to send."""
    _channels: dict[int, Channel] = attrs.field(factory=dict[int, Channel], init=False, repr=False)
    _free: list[int] = attrs.field(factory=list[int], init=False, repr=False)
    """Numbers that were used before, as a heap."""
    _highest: int = attrs.field(default=0, init=False, repr=False)
    """Numbers beyond this one were never used."""
    _farewell: tuple[int, str] = attrs.field(default=(200, ""), init=False, repr=False)
    """What `close` was called with."""
    _server_properties: dict[str, object] = attrs.field(factory=dict[str, object], init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Begin with the bounds of the settings."""
        self.frame_max = self._settings.frame_max
        self.channel_max = self._settings.channel_max
        self._reader = FrameReader(self.frame_max)
        self._login, self._entry = (
            _login(self._settings),
            _frame(with_names(commands.Connection.Open(), virtual_host=self._settings.virtual_host)),
        )

    @property
    def server_properties(self) -> Mapping[str, object]:
        """What the peer says of itself; empty until it has."""
        return self._server_properties

    def start(self) -> None:
        """Queue the protocol header.

        Raises:
            LocalError: if it was called before.
        """
        self.state = self._ask("start")
        self._out.append(_PROTOCOL_HEADER)

    def receive(self, data: bytes) -> list[Event]:
        """Take what the peer sent, cut anywhere, and return what it means, in order.

        Never raises for what the peer sends: what breaks the protocol ends the connection with an event `Closed`, code
        0, and queues what tells the peer. After `Closed` everything is ignored.
        """
        events: list[Event] = []
        if self.state is ConnectionState.CLOSED:
            return events
        try:
            self._take(data, events)
        except ViolationError as error:
            self._violated(error, events)
        return events

    @property
    def has_data_to_send(self) -> bool:
        """Whether `data_to_send` would return something."""
        return bool(self._out or self._acking)

    def data_to_send(self) -> bytes:
        """Return everything that was queued since the last call, whole frames and whole messages; empty if nothing."""
        if self._acking:
            self._send_acks()
        data = b"".join(self._out)
        self._out.clear()
        return data

    def send_heartbeat(self) -> None:
        """Queue a heartbeat frame; nothing if the connection is closed.

        Raises:
            LocalError: before the limits are negotiated.
        """
        if self.state in _TUNED:
            self._out.append(HEARTBEAT_FRAME)
        elif self.state is not ConnectionState.CLOSED:
            raise LocalError(f"the connection is {self.state.value}: it does not take heartbeats")

    def open_channel(self) -> Channel:
        """Queue that a channel is opened; an event `ChannelOpened` follows.

        Raises:
            LocalError: if the connection is not open, or all numbers are in use.
        """
        self._ask("open_channel")
        number = self._number()
        channel = Channel(
            number, self._out, self._acking, self.frame_max, self._settings.max_message_bytes, self._release
        )
        self._channels[number] = channel
        return channel

    def close(self, code: int = 200, text: str = "") -> None:
        """Queue that the connection ends; an event `Closed` with code and text follows.

        Channels are closed at once. Before the peer has introduced itself nothing is queued and no event follows.
        Does nothing if it is closing or closed.

        Args:
            code: Reply code for the broker; 200 is success.
            text: The reason, for the broker's log; cut to 255 bytes.

        Raises:
            EncodingError: if the code has no place on the wire.
        """
        before, after = self.state, self._ask("close")
        if before is after:
            return
        if after is ConnectionState.CLOSING:
            self._send_acks()
            self._send(commands.Connection.Close(code, shortened(text), 0, 0))
            self._farewell = (code, text)
        self.state = after
        self._lose_channels()

    def _ask(self, what: str) -> ConnectionState:
        return asked(CONNECTION_ASKED, self.state, what, "the connection")

    def _number(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        if self._highest >= self.channel_max:
            raise LocalError(f"all {self.channel_max} channels of the connection are in use")
        self._highest += 1
        return self._highest

    def _release(self, number: int) -> None:
        del self._channels[number]
        heapq.heappush(self._free, number)

    def _send_acks(self) -> None:
        for channel in self._acking:
            channel.send_acks()
        self._acking.clear()

    def _lose_channels(self) -> None:
        for channel in self._channels.values():
            channel.lost()
        self._channels.clear()

    def _send(self, method: base.Frame) -> None:
        self._out.append(_frame(method))

    def _take(self, data: bytes, events: list[Event]) -> None:
        for kind, number, payload, at, end in self._reader.feed(data):
            channel = self._channels.get(number)
            if channel is not None:
                channel.take(kind, payload, at, end, events)
            elif number == 0:
                self._take_control(kind, payload, at, end, events)
                if self.state is ConnectionState.CLOSED:
                    return
            elif self.state is not ConnectionState.CLOSING:
                raise ViolationError(CHANNEL_ERROR, f"the peer sent a frame on channel {number}, which is not open")

    def _take_control(self, kind: int, data: bytes, at: int, end: int, events: list[Event]) -> None:
        if kind == HEARTBEAT:
            return
        if kind != METHOD:
            raise ViolationError(UNEXPECTED_FRAME, "the peer sent content on channel 0")
        method = decode_method(data, at, end)
        if self.state in DISCARDING and method.name not in CONNECTION_RECEIVES[self.state]:
            return
        after = received(CONNECTION_RECEIVES, self.state, method.name)
        self._act(method, events)
        self.state = after

    def _act(self, method: base.Frame, events: list[Event]) -> None:
        match method:
            case commands.Connection.Start():
                self._started(method)
            case commands.Connection.Tune():
                self._tuned(method)
            case commands.Connection.OpenOk():
                events.append(Opened(self._server_properties, self.heartbeat))
            case commands.Connection.Blocked():
                events.append(Blocked(readable(method.reason)))
            case commands.Connection.Unblocked():
                events.append(Unblocked())
            case commands.Connection.Close():
                failed = method_name(method.class_id or 0, method.method_id or 0)
                self._end(method.reply_code or 0, readable(method.reply_text), events, method=failed)
                self._send(commands.Connection.CloseOk())
            case _:
                self._end(*self._farewell, events)

    def _started(self, method: commands.Connection.Start) -> None:
        if (method.version_major, method.version_minor) != (0, 9):
            raise ViolationError(NOT_IMPLEMENTED, "the peer does not speak AMQP 0-9-1")
        settings = self._settings
        if settings.mechanism not in method.mechanisms.split():
            offered = readable(method.mechanisms)
            raise ViolationError(NOT_IMPLEMENTED, f"the peer offers {offered} and not {settings.mechanism}")
        self._server_properties = {**method.server_properties}
        self._out.append(self._login)

    def _tuned(self, method: commands.Connection.Tune) -> None:
        settings = self._settings
        if 0 < method.frame_max < FRAME_MIN:
            raise ViolationError(FRAME_ERROR, f"the peer takes frames of {method.frame_max} bytes only")
        self.frame_max = min(settings.frame_max, method.frame_max or settings.frame_max)
        self.channel_max = min(settings.channel_max, method.channel_max or settings.channel_max)
        ours = max(1, int(settings.heartbeat)) if settings.heartbeat else 0
        self.heartbeat = float(min(ours, method.heartbeat or ours))
        self._reader.frame_max = self.frame_max
        self._send(commands.Connection.TuneOk(self.channel_max, self.frame_max, int(self.heartbeat)))
        self._out.append(self._entry)

    def _violated(self, error: ViolationError, events: list[Event]) -> None:
        told = self.state in _TOLD
        self._end(0, error.text, events)
        if told:
            self._send(commands.Connection.Close(error.code, shortened(error.text), 0, 0))

    def _end(self, code: int, text: str, events: list[Event], *, method: str = "") -> None:
        """End the connection; what was queued and not sent never is."""
        self.state = ConnectionState.CLOSED
        self._out.clear()
        self._lose_channels()
        events.append(Closed(code, text, method))


def _frame(method: base.Frame) -> bytes:
    return encode_frame(METHOD, 0, encode_method(method))


def _login(settings: Settings) -> bytes:
    method = commands.Connection.StartOk(None, settings.mechanism, settings.response, "en_US")
    method.client_properties = cast("FieldTable", {**settings.properties, "capabilities": _CAPABILITIES})
    return _frame(method)
