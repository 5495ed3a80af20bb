"""The protocols themselves: what they share, events, and calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final, cast, final

from typing_extensions import override

from kernel import Arguments, Envelope, Message, read_json, write_json
from kernel.abc import Protocol
from kernel.errors import DecodeError, EncodeError

from ._chain import continued, without_none
from ._config import NamekoConfig, NamekoRpcConfig
from ._errors import MalformedRequestError, UnserializableResultError, read_error, write_error
from ._values import as_table

if TYPE_CHECKING:
    from kernel.abc import Context

_CONTENT_TYPE: Final = "application/json"


class _NamekoProtocol(Protocol):
    """What events and calls have in common: JSON, the headers of the context, and answers."""

    def __init__(self, *, config: NamekoConfig, context: Context | None) -> None:
        self._config = config
        self._service = "" if context is None else context.service
        self._exceptions = config.exceptions if isinstance(config, NamekoRpcConfig) else ()

    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        if not request.reply_to:
            return None
        try:
            return self._answer(request, {"result": result, "error": None})
        except EncodeError as error:
            raise UnserializableResultError(str(error)) from error

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        if not request.reply_to:
            return None
        return self._answer(request, {"result": None, "error": write_error(error, request)})

    @override
    def decode_reply(self, reply: Envelope) -> object:
        fields = as_table(self._read(reply))
        if not {"result", "error"} & fields.keys():
            raise DecodeError("body is not an answer: neither a result nor an error")
        if fields.get("error") is not None:
            raise read_error(fields["error"], self._exceptions)
        return fields.get("result")

    @override
    def continued(self, cause: Envelope) -> Mapping[str, object]:
        return continued(cause, service=self._service, tracked=self._config.parent_calls_tracked)

    def _answer(self, request: Envelope, body: object) -> Envelope:
        return Envelope(
            subject=request.reply_to,
            body=self._write(body),
            content_type=_CONTENT_TYPE,
            correlation_id=request.correlation_id,
        )

    def _read(self, envelope: Envelope) -> object:
        return read_json(
            envelope.body,
            content_type=envelope.content_type,
            max_bytes=self._config.max_bytes,
            max_depth=self._config.max_depth,
        )

    def _write(self, body: object) -> bytes:
        return write_json(body, sort_keys=False, max_bytes=self._config.max_bytes, max_depth=self._config.max_depth)

    def _sent(self, message: Message, body: object) -> Envelope:
        return Envelope(
            subject=message.subject,
            body=self._write(body),
            headers=without_none(message.headers),
            content_type=_CONTENT_TYPE,
        )


@final
class NamekoEventsProtocol(_NamekoProtocol):
    """Events: the subject is the type of the event, the payload is its data."""

    Config: ClassVar[type[object]] = NamekoConfig

    def __init__(self, *, config: NamekoConfig = NamekoConfig(), context: Context | None = None) -> None:  # noqa: B008  frozen
        super().__init__(config=config, context=context)

    @override
    def decode(self, envelope: Envelope) -> Message:
        return Message(subject=envelope.subject, payload=self._read(envelope), headers=envelope.headers)

    @override
    def encode(self, message: Message) -> Envelope:
        return self._sent(message, message.payload)


@final
class NamekoRpcProtocol(_NamekoProtocol):
    """Calls: the subject is `<service>.<method>`, the payload is `Arguments`."""

    Config: ClassVar[type[object]] = NamekoRpcConfig

    def __init__(
        self,
        *,
        config: NamekoRpcConfig = NamekoRpcConfig(),  # noqa: B008  frozen
        context: Context | None = None,
    ) -> None:
        super().__init__(config=config, context=context)

    @override
    def decode(self, envelope: Envelope) -> Message:
        try:
            body = self._read(envelope)
        except DecodeError as error:
            raise MalformedRequestError(str(error)) from error
        return Message(subject=envelope.subject, payload=_arguments_in(body), headers=envelope.headers)

    @override
    def encode(self, message: Message) -> Envelope:
        """Return the request; an object that is no `Arguments` gives them by name, an array by position.

        Raises:
            EncodeError: if the payload is neither, or cannot be written.
        """
        arguments = Arguments.of(message.payload)
        return self._sent(message, {"args": arguments.args, "kwargs": arguments.kwargs})


def _arguments_in(body: object) -> Arguments:
    fields = as_table(body)
    args, kwargs = fields.get("args"), fields.get("kwargs")
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise MalformedRequestError("Message missing `args` or `kwargs`")
    return Arguments(cast("list[object]", args), cast("dict[str, object]", kwargs))
