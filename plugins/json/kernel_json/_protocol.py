"""The protocol itself: envelopes <-> messages, and the shape of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, cast, final

from typing_extensions import override

from kernel import Envelope, Message
from kernel.abc import Protocol
from kernel.errors import DecodeError, RemoteError

from ._config import MIB, JsonConfig
from ._reading import read, shown
from ._writing import write

if TYPE_CHECKING:
    from kernel.abc import Context

CONTENT_TYPE: Final = "application/json"
_MESSAGE_CHARACTERS: Final = 2000


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

    @override
    def decode(self, envelope: Envelope) -> Message:
        _refuse_other_types(envelope.content_type)
        payload = read(envelope.body, max_bytes=self._max_bytes, max_depth=self._max_depth)
        return Message(subject=envelope.subject, payload=payload, headers=envelope.headers)

    @override
    def encode(self, message: Message) -> Envelope:
        body = write(message.payload, max_bytes=self._max_bytes, max_depth=self._max_depth)
        return Envelope(subject=message.subject, body=body, headers=message.headers, content_type=CONTENT_TYPE)

    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        return super().encode_reply(request, {"result": result})

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        described = {"type": _printable(type(error).__name__), "message": _message(error)}
        if not request.reply_to:
            return None
        body = write({"error": described}, max_bytes=MIB, max_depth=2)
        return Envelope(
            subject=request.reply_to, body=body, content_type=CONTENT_TYPE, correlation_id=request.correlation_id
        )

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


def _refuse_other_types(content_type: str) -> None:
    essence, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if essence not in {"", CONTENT_TYPE, "text/json"} and not essence.endswith("+json"):
        raise DecodeError(f"content type {shown(content_type)} is not JSON")
    charsets = [part.partition("=")[2].strip("\"' ") for part in parameters if part.startswith("charset")]
    if any(charset not in {"utf-8", "utf8", "us-ascii"} for charset in charsets):
        raise DecodeError(f"content type {shown(content_type)} names another charset than UTF-8")


def _message(error: Exception) -> str:
    try:
        return _printable(str(error))
    except Exception as broken:  # noqa: BLE001  the caller must get an answer (test_an_error_without_text_is_written)
        return f"its text cannot be made: {type(broken).__name__}"


def _printable(text: str) -> str:
    """Return text that can be written in UTF-8, and is not too long."""
    return text[:_MESSAGE_CHARACTERS].encode("utf-8", "backslashreplace").decode()
