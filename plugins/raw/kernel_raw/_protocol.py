"""The protocol itself: bodies are not looked into; that an answer is an error stands in its headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, cast, final

import attrs
from typing_extensions import override

from kernel import Envelope, Message
from kernel.abc import Protocol
from kernel.errors import DecodeError, EncodeError, RemoteError, error_text

if TYPE_CHECKING:
    from kernel.abc import Context

ERROR_TYPE: Final = "kernel-error-type"
"""The header of an answer that is an error: what kind of error."""
ERROR_MESSAGE: Final = "kernel-error-message"
"""The header of an answer that is an error: its text."""
_MIB: Final = 1024 * 1024


@final
@attrs.frozen(kw_only=True)
class RawConfig:
    """The table of a protocol with `plugin = "raw"`."""

    max_bytes: int = attrs.field(default=16 * _MIB, validator=attrs.validators.ge(1))
    """Bytes of a body, in both directions."""


@final
class RawProtocol(Protocol):
    """The payload is the body: handlers get `bytes`, and send bytes or text."""

    Config: ClassVar[type[object]] = RawConfig

    def __init__(self, *, config: RawConfig = RawConfig(), context: Context | None = None) -> None:
        self._max_bytes = config.max_bytes

    @override
    def decode(self, envelope: Envelope) -> Message:
        if len(envelope.body) > self._max_bytes:
            raise DecodeError(f"body has {len(envelope.body)} bytes, more than max_bytes = {self._max_bytes}")
        return Message(subject=envelope.subject, payload=envelope.body, headers=envelope.headers)

    @override
    def encode(self, message: Message) -> Envelope:
        body = _bytes(message.payload)
        if len(body) > self._max_bytes:
            raise EncodeError(f"payload has {len(body)} bytes, more than max_bytes = {self._max_bytes}")
        return Envelope(subject=message.subject, body=body, headers=message.headers)

    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        """Return the answer; a result of None is no bytes at all."""
        return super().encode_reply(request, b"" if result is None else result)

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        headers = {ERROR_TYPE: type(error).__name__, ERROR_MESSAGE: error_text(error)}
        if not request.reply_to:
            return None
        return Envelope(subject=request.reply_to, headers=headers, correlation_id=request.correlation_id)

    @override
    def decode_reply(self, reply: Envelope) -> object:
        kind = reply.headers.get(ERROR_TYPE)
        if kind is not None:
            raise RemoteError(str(kind), str(reply.headers.get(ERROR_MESSAGE, "")))
        return super().decode_reply(reply)


def _bytes(payload: object) -> bytes:
    kind: type[object] = type(payload)
    if issubclass(kind, str):
        try:
            return cast("str", payload).encode()
        except UnicodeEncodeError as error:
            raise EncodeError("payload holds a lone surrogate, which is not text") from error
    if issubclass(kind, bytes | bytearray | memoryview):
        return bytes(cast("bytes | bytearray | memoryview", payload))
    raise EncodeError(f"payload is of type {kind.__name__}; raw takes bytes, bytearray, memoryview and str only")
