"""The protocol itself: envelopes <-> messages, and the shape of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, cast, final

from typing_extensions import override

from kernel import Envelope, Message, read_json, write_json
from kernel.abc import Protocol
from kernel.errors import DecodeError, RemoteError, error_text

from ._config import MIB, JsonConfig

if TYPE_CHECKING:
    from kernel.abc import Context

CONTENT_TYPE: Final = "application/json"


@final
class JsonProtocol(Protocol):
    """Bodies are JSON in UTF-8.

    An answer is `{"result": ...}` or `{"error": {"type": ..., "message": ...}}`. Errors are never made into
    exceptions of the sender's class: a caller gets a `RemoteError` that names it.
    """

    Config: ClassVar[type[object]] = JsonConfig

    def __init__(self, *, config: JsonConfig = JsonConfig(), context: Context | None = None) -> None:  # noqa: B008  frozen
        self._max_bytes = config.max_bytes
        self._max_depth = config.max_depth
        self._foreign = frozenset(map(str.lower, config.content_types))

    @override
    def decode(self, envelope: Envelope) -> Message:
        content_type = self._meant(envelope.content_type) if self._foreign else envelope.content_type
        payload = read_json(
            envelope.body, content_type=content_type, max_bytes=self._max_bytes, max_depth=self._max_depth
        )
        return Message(subject=envelope.subject, payload=payload, headers=envelope.headers)

    def _meant(self, content_type: str) -> str:
        """Return JSON's own content type in place of one that the manifest allows; the charset still has to be UTF-8."""
        name, semicolon, parameters = content_type.partition(";")
        return f"{CONTENT_TYPE}{semicolon}{parameters}" if name.strip().lower() in self._foreign else content_type

    @override
    def encode(self, message: Message) -> Envelope:
        body = write_json(message.payload, max_bytes=self._max_bytes, max_depth=self._max_depth)
        return Envelope(subject=message.subject, body=body, headers=message.headers, content_type=CONTENT_TYPE)

    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        if not request.reply_to:
            return None
        body = write_json({"result": result}, max_bytes=self._max_bytes, max_depth=self._max_depth)
        return _answer(request, body)

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        described = {"type": type(error).__name__, "message": error_text(error)}
        if not request.reply_to:
            return None
        body = write_json({"error": described}, max_bytes=MIB, max_depth=2)
        return _answer(request, body)

    @override
    def decode_reply(self, reply: Envelope) -> object:
        answer = self.decode(reply).payload
        fields = cast("dict[str, object]", answer) if isinstance(answer, dict) else {}
        match fields.get("error"):
            case {"type": str(kind), "message": str(message)}:
                raise RemoteError(kind, message)
            case None if "result" in fields:
                return fields["result"]
            case _:
                raise DecodeError("body is not an answer: neither a result nor an error with type and message")


def _answer(request: Envelope, body: bytes) -> Envelope:
    return Envelope(
        subject=request.reply_to, body=body, content_type=CONTENT_TYPE, correlation_id=request.correlation_id
    )
