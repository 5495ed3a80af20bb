"""The protocol `msgpack`: bodies are MessagePack, and answers have the shape that those of `json` have."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, cast, final

import attrs
from typing_extensions import override

from kernel import Envelope, Message
from kernel.abc import Protocol
from kernel.errors import DecodeError, RemoteError, error_text

from ._config import MsgpackConfig
from ._packing import pack, unpack

if TYPE_CHECKING:
    from kernel.abc import Context

CONTENT_TYPE: Final = "application/msgpack"


@final
class MsgpackProtocol(Protocol):
    """Bodies are MessagePack.

    An answer is `{"result": ...}` or `{"error": {"type": ..., "message": ...}}`; a caller gets a `RemoteError` that
    names the type.
    """

    Config: ClassVar[type[object]] = MsgpackConfig

    def __init__(
        self,
        *,
        config: MsgpackConfig = MsgpackConfig(),  # noqa: B008  frozen
        context: Context | None = None,
    ) -> None:
        self._limits = attrs.asdict(config)

    @override
    def decode(self, envelope: Envelope) -> Message:
        payload = unpack(envelope.body, **self._limits)
        return Message(subject=envelope.subject, payload=payload, headers=envelope.headers)

    @override
    def encode(self, message: Message) -> Envelope:
        body = pack(message.payload, **self._limits)
        return Envelope(subject=message.subject, body=body, headers=message.headers, content_type=CONTENT_TYPE)

    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        return self._answer(request, {"result": result})

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        return self._answer(request, {"error": {"type": type(error).__name__, "message": error_text(error)}})

    def _answer(self, request: Envelope, body: object) -> Envelope | None:
        if not request.reply_to:
            return None
        reply = self.encode(Message(subject=request.reply_to, payload=body))
        return attrs.evolve(reply, correlation_id=request.correlation_id)

    @override
    def decode_reply(self, reply: Envelope) -> object:
        answer = unpack(reply.body, **self._limits)
        fields = cast("dict[str, object]", answer) if isinstance(answer, dict) else {}
        match fields.get("error"):
            case {"type": str(kind), "message": str(message)}:
                raise RemoteError(kind, message)
            case None if "result" in fields:
                return fields["result"]
            case _:
                raise DecodeError("body is not an answer: neither a result nor an error with type and message")
