"""The protocol `ufw_websocket`: what micro-framework says over websockets, one request at a time on each connection.

Its own pool answers `MaxConnectionsReached` when it is full, and its clients ask again; ours waits for a slot.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, cast, final

from typing_extensions import override

from kernel import Arguments, Envelope, Message, error_args, read_json, write_json
from kernel.errors import ArgumentsError, DecodeError, EncodeError, NoWorkerError, RemoteError, error_text

from ._config import FormatConfig
from ._format import Answer, Format, Item, Refusal, Request

if TYPE_CHECKING:
    from kernel.abc import Context

_REPLY_TO: Final = "websocket"
_MODULE: Final = "micro_framework.exceptions"
_BROADCAST: Final = "_broadcast."
_INTERNAL: Final = frozenset({"__list_targets__", "__get_target__"})
_ONE: Final = "the one"
"""The key of the only request of a connection."""


@final
class UfwWebSocketProtocol(Format):
    """The subject is `<service>.<target>`, as over RabbitMQ, the payload is `Arguments`.

    A target may have a dot, as `Class.method`. What comes names no service, so it is for ours. The commands about the
    targets have the subject `<service>._broadcast.<command>`.
    """

    Config: ClassVar[type[object]] = FormatConfig
    is_serial: ClassVar[bool] = True

    def __init__(
        self,
        *,
        config: FormatConfig = FormatConfig(),  # noqa: B008  frozen
        context: Context | None = None,
    ) -> None:
        self._config = config
        self._service = "service" if context is None else context.service

    @override
    def decode(self, envelope: Envelope) -> Message:
        fields = self._parse(envelope.body)
        command = fields.get("command")
        args, kwargs = fields.get("command_args", []), fields.get("command_kwargs", {})
        if not isinstance(command, str) or not command or not isinstance(args, list) or not isinstance(kwargs, dict):
            raise DecodeError("body is no object with command, command_args and command_kwargs")
        arguments = Arguments(cast("list[object]", args), cast("dict[str, object]", kwargs))
        return Message(subject=envelope.subject or self._subject(command), payload=arguments, headers=envelope.headers)

    @override
    def encode(self, message: Message) -> Envelope:
        body = self.write_request(message, key="", deadline=None, extends=False)
        return Envelope(subject=message.subject, body=body, headers=message.headers)

    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        return self._answer(request, {"data": result, "exception": None})

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        return self._answer(request, {"data": None, "exception": _told(error, _command(request.subject))})

    @override
    def decode_reply(self, reply: Envelope) -> object:
        match self._parse(reply.body):
            case {"exception": {"exception": str(kind)} as error}:
                text = cast("Mapping[str, object]", error).get("message")
                raise RemoteError(kind, text if isinstance(text, str) else error_text(text))
            case {"data": data, "exception": None}:
                return data
            case _:
                raise DecodeError("body is no answer: it has no data and exception")

    @override
    def read(self, text: bytes, *, now: float) -> tuple[Sequence[Item], bool]:
        try:
            fields = self._parse(text)
            if "command" not in fields and "data" in fields:
                return [Answer(key=_ONE, envelope=Envelope(subject=_REPLY_TO, body=text))], False
            message = self.decode(Envelope(subject="", body=text))
        except DecodeError as error:
            told = _own("RPCMalformedMessage", error_text(error))
            return [Refusal(body=self._write({"data": None, "exception": told}))], False
        envelope = Envelope(subject=message.subject, reply_to=_REPLY_TO, correlation_id=_ONE)
        return [Request(key=_ONE, envelope=envelope, message=message)], False

    @override
    def write_request(self, message: Message, *, key: str, deadline: str | None, extends: bool) -> bytes:
        call = Arguments.of(message.payload)
        return self._write({
            "command": _command(message.subject),
            "command_args": list(call.args),
            "command_kwargs": dict(call.kwargs),
        })

    @override
    def write_cancel(self, key: str) -> bytes | None:
        return None

    @override
    def write_batch(self, answers: Sequence[bytes]) -> bytes:
        return answers[0]

    def _subject(self, command: str) -> str:
        return f"{self._service}.{_BROADCAST if command in _INTERNAL else ''}{command}"

    def _answer(self, request: Envelope, body: object) -> Envelope | None:
        if not request.reply_to:
            return None
        written = self._write(body)
        return Envelope(subject=request.reply_to, body=written, correlation_id=request.correlation_id)

    def _parse(self, text: bytes) -> Mapping[str, object]:
        value = read_json(text, max_bytes=self._config.max_bytes, max_depth=self._config.max_depth)
        if not isinstance(value, dict):
            raise DecodeError("body is no object")
        return cast("Mapping[str, object]", value)

    def _write(self, value: object) -> bytes:
        config = self._config
        return write_json(value, sort_keys=False, max_bytes=config.max_bytes, max_depth=config.max_depth)


def _command(subject: str) -> str:
    """Return the target in a subject.

    Raises:
        EncodeError: if there is none.
    """
    service, _, target = subject.partition(".")
    if not service or not target:
        raise EncodeError('the subject of a call must be "<service>.<target>"')
    return target.removeprefix(_BROADCAST)


def _told(error: Exception, target: str) -> Mapping[str, object]:
    match error:
        case NoWorkerError():
            return _own("RPCTargetDoesNotExist", f"{target} does not exist or is not exposed through a RPC method.")
        case ArgumentsError():
            return _written("TypeError", error_text(error), [error_text(error)], None)
        case _:
            kind = type(error)
            module = None if kind.__module__ == builtins.__name__ else kind.__module__
            return _written(kind.__name__, error_text(error), error_args(error), module)


def _own(name: str, text: str) -> Mapping[str, object]:
    return _written(name, text, [text], _MODULE)


def _written(name: str, text: str, args: object, module: str | None) -> Mapping[str, object]:
    return {"exception": name, "message": text, "args": args, "kwargs": {}, "module": module}
