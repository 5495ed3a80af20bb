"""h2 as a server at the edge needs it, and what its events mean. Sans I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, final

import h2.config
import h2.connection
import h2.events
import h2.settings
from h2.errors import ErrorCodes
from h2.utilities import HeaderValidationFlags, validate_headers
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame
from typing_extensions import override

from ..asgi.fields import are_sound, is_host, is_path, is_token
from .known import Decoder, Encoder

Fields = list[tuple[bytes, bytes]]
_HOP_BY_HOP: Final = frozenset({
    b"connection",
    b"transfer-encoding",
    b"keep-alive",
    b"upgrade",
    b"proxy-connection",
    b"te",
})
STREAMS_MAX: Final = 100
"""Streams that a client may have open at a time."""
_EMPTY: Final = (
    h2.events.PingReceived,
    h2.events.PingAckReceived,
    h2.events.PriorityUpdated,
    h2.events.RemoteSettingsChanged,
    h2.events.SettingsAcknowledged,
    h2.events.StreamReset,
    h2.events.UnknownFrameReceived,
    h2.events.WindowUpdated,
)


_REQUEST: Final = HeaderValidationFlags(
    is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False
)
_TRAILER: Final = _REQUEST._replace(is_trailer=True)


class UnsoundFieldError(RuntimeError):
    """An application answers with a header field that cannot be said in HTTP."""


@final
class Protocol(h2.connection.H2Connection):
    """h2, which would drop the answers that still run when a client says that it will ask for nothing more.

    It would also look at each head as if it had never seen one: a third of what a small request costs.
    """

    client_leaves = False
    decoder: Decoder
    encoder: Encoder

    @override
    def _receive_headers_frame(self, frame: HeadersFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        frames, events = super()._receive_headers_frame(frame)
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                if not self.decoder.is_known:
                    _validate(event.headers, _REQUEST)
                    self.decoder.remember(frame.data, event.headers)
            elif isinstance(event, h2.events.TrailersReceived):
                _validate(event.headers, _TRAILER)
        return frames, events

    @override
    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        if frame.error_code == ErrorCodes.NO_ERROR:  # RFC 9113, 6.8: streams that are open go on
            self.client_leaves = True
            return [], []
        return super()._receive_goaway_frame(frame)


def build_protocol(max_header_bytes: int) -> Protocol:
    """Return h2 for a new connection, whose headers may be that long."""
    # What is received is validated above, cookies are joined below; what is sent is sound before it comes here.
    config = h2.config.H2Configuration(
        client_side=False,
        header_encoding=None,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
        validate_inbound_headers=False,
        normalize_inbound_headers=False,
    )
    protocol = Protocol(config)
    protocol.decoder, protocol.encoder = Decoder(), Encoder()
    protocol.local_settings = h2.settings.Settings(
        client=False,
        initial_values={
            h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
            h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: max_header_bytes,
            h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
        },
    )
    # h2 would go by this limit only once the client has acknowledged it.
    protocol.decoder.max_header_list_size = max_header_bytes
    return protocol


def _validate(headers: Any, flags: HeaderValidationFlags) -> None:  # noqa: ANN401  h2 leaves it open
    """Raise a `ProtocolError` if header fields are not what they may be."""
    for _ in validate_headers(headers, flags):
        pass


def brings_nothing(event: h2.events.Event) -> bool:
    """Whether a frame is no part of a request; a reset is the end of one, but costs as much again."""
    if isinstance(event, h2.events.DataReceived):
        return not event.data and event.stream_ended is None
    return isinstance(event, _EMPTY)


def parted(headers: Any) -> tuple[dict[bytes, bytes], Fields]:  # noqa: ANN401  h2 leaves it open
    """Return the pseudo headers, and the others as an application that knows HTTP/1.1 expects them."""
    pseudo: dict[bytes, bytes] = {}
    fields: Fields = []
    cookies: list[bytes] = []
    for name, value in headers:
        if name[:1] == b":":
            pseudo[bytes(name)] = bytes(value)
        elif name == b"cookie":
            cookies.append(bytes(value))
        elif name != b"host" or b":authority" not in pseudo:
            fields.append((bytes(name), bytes(value)))
    if cookies:  # RFC 9113, 8.2.3
        fields.append((b"cookie", b"; ".join(cookies)))
    if b":authority" in pseudo:
        fields.insert(0, (b"host", pseudo[b":authority"]))
    return pseudo, fields


def sendable(headers: Iterable[Any]) -> Fields:
    """Return header fields as HTTP/2 writes them, without those that are about a connection of HTTP/1.1.

    Raises:
        UnsoundFieldError: if one must not be sent.
    """
    lows = ((bytes(name).lower(), bytes(value).strip(b" \t")) for name, value in headers)
    fields = [field for field in lows if field[0] not in _HOP_BY_HOP]
    if not are_sound(fields):
        raise UnsoundFieldError("a header of the answer is not allowed")
    return fields


def is_sound(pseudo: dict[bytes, bytes], fields: Fields) -> bool:
    """Whether a request has all that it must; a CONNECT must be that of a websocket."""
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) != 1 or not is_host(hosts[0]):
        return False
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    is_proxying = method == b"CONNECT" and pseudo.get(b":protocol") != b"websocket"
    asks_for_all = path == b"*" and method == b"OPTIONS"
    return is_token(method) is not None and (asks_for_all or is_path(path) is not None) and not is_proxying


def asked_for(pseudo: dict[bytes, bytes]) -> tuple[str, bytes]:
    """Return method and path of a request that is not sound; `-` for what is none."""
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    return method.decode() if is_token(method) else "-", path if is_path(path) else b"-"
