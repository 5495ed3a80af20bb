"""The protocol `jsonrpc`: JSON-RPC 2.0. Source: its specification at jsonrpc.org.

To peers that name the subprotocol `kernel-jsonrpc` a request may say more: `"kernel": {"deadline": ..., "headers":
{...}}`, and the notification `$/cancelRequest`, as the Language Server Protocol has it, takes one back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, cast, final

from typing_extensions import override

from kernel import NO_HEADERS, Arguments, Envelope, Message, read_json, write_json
from kernel.abc import read_deadline
from kernel.errors import (
    ConversionError,
    DecodeError,
    EncodeError,
    NoWorkerError,
    RemoteError,
    UnavailableError,
    error_text,
)

from ._config import FormatConfig
from ._format import Answer, Cancel, Format, Item, Refusal, Request

if TYPE_CHECKING:
    from kernel.abc import Context

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
FAILED: Final = -32000
"""The handler raised; `data.type` is the class."""
UNAVAILABLE: Final = -32001
"""It was not handled, or not to its end."""
_CANCEL: Final = "$/cancelRequest"
_NAMES: Final = {
    PARSE_ERROR: "ParseError",
    INVALID_REQUEST: "InvalidRequest",
    METHOD_NOT_FOUND: "MethodNotFound",
    INVALID_PARAMS: "InvalidParams",
    -32603: "InternalError",
}
_REPLY_TO: Final = "websocket"
_MAX_ID: Final = 256
"""Characters of an id, as JSON writes it."""


@final
class JsonRpcProtocol(Format):
    """JSON-RPC 2.0: the subject is the method, the payload `Arguments`: an object by name, an array by position."""

    Config: ClassVar[type[object]] = FormatConfig
    is_serial: ClassVar[bool] = False
    subprotocols: ClassVar[Sequence[str]] = ("kernel-jsonrpc", "jsonrpc")

    def __init__(
        self,
        *,
        config: FormatConfig = FormatConfig(),  # noqa: B008  frozen
        context: Context | None = None,
    ) -> None:
        self._config = config

    # --- one message ----------------------------------------------------------------------------------------------

    @override
    def decode(self, envelope: Envelope) -> Message:
        fields = _table(self._parse(envelope.body))
        method, params = fields.get("method"), fields.get("params", [])
        if not isinstance(method, str) or not method or not isinstance(params, list | dict):
            raise DecodeError("body is no request: it has no method, or params that are neither array nor object")
        return Message(subject=method, payload=Arguments.of(cast("object", params)), headers=envelope.headers)

    @override
    def encode(self, message: Message) -> Envelope:
        """Return the envelope of a notification.

        Raises:
            EncodeError: if the payload cannot be written, or has arguments both by position and by name.
        """
        body = self.write_request(message, key="", deadline=None, extends=False)
        return Envelope(subject=message.subject, body=body, headers=message.headers, content_type="application/json")

    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        return self._answer(request, {"result": result})

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        return self._answer(request, {"error": _told(error)})

    @override
    def decode_reply(self, reply: Envelope) -> object:
        fields = _table(self._parse(reply.body))
        match _table(fields.get("error")):
            case {"code": int(code), "message": str(text), **more}:
                kind = _table(more.get("data")).get("type")
                raise RemoteError(kind if isinstance(kind, str) else _NAMES.get(code, str(code)), text)
            case _ if "result" in fields:
                return fields["result"]
            case _:
                raise DecodeError("body is no answer: it has neither a result nor an error with code and message")

    def _answer(self, request: Envelope, answer: dict[str, object]) -> Envelope | None:
        if not request.reply_to:
            return None
        body = self._write({"jsonrpc": "2.0", **answer, "id": _id_of(request.correlation_id)})
        return Envelope(subject=request.reply_to, body=body, correlation_id=request.correlation_id)

    # --- whole texts ----------------------------------------------------------------------------------------------

    @override
    def read(self, text: bytes, *, now: float) -> tuple[Sequence[Item], bool]:
        try:
            value = self._parse(text)
        except DecodeError as error:
            return [self._refusal(PARSE_ERROR, error_text(error))], False
        if not isinstance(value, list):
            return list(self._items(value, now)), False
        batch = cast("list[object]", value)
        if not 0 < len(batch) <= self._config.max_batch:
            return [self._refusal(INVALID_REQUEST, f"a batch has 1 to {self._config.max_batch} requests")], False
        return [item for part in batch for item in self._items(part, now)], True

    def _items(self, value: object, now: float) -> Iterator[Item]:
        fields = _table(value)
        key = _key_of(fields.get("id")) if "id" in fields else ""
        method, params = fields.get("method"), fields.get("params", [])
        if key is None:
            yield self._refusal(INVALID_REQUEST, "an id is a string, a number or null")
        elif isinstance(method, str) and method and isinstance(params, list | dict):
            yield self._meant(fields, key, method, cast("object", params), now)
        elif key and ("result" in fields or "error" in fields):
            yield Answer(key=key, envelope=Envelope(subject=_REPLY_TO, body=self._write(dict(fields))))
        else:
            text = "it has no method, or params that are neither array nor object"
            yield self._refusal(INVALID_REQUEST, text, key)

    def _meant(self, fields: Mapping[str, object], key: str, method: str, params: object, now: float) -> Item:
        """Return a request, or what takes one back; a refusal with its id if what only ours may say makes no sense."""
        try:
            return _cancel(key, params) if method == _CANCEL else _request(fields, key, method, params, now)
        except DecodeError as error:
            return self._refusal(INVALID_REQUEST, error_text(error), key)

    @override
    def write_request(self, message: Message, *, key: str, deadline: str | None, extends: bool) -> bytes:
        fields: dict[str, object] = {"jsonrpc": "2.0", "method": message.subject}
        arguments = Arguments.of(message.payload)
        if arguments.args or arguments.kwargs:
            fields["params"] = _params(arguments)
        if key:
            fields["id"] = _id_of(key)
        more = {"deadline": deadline, "headers": dict(message.headers)} if extends else {}
        if more := {name: value for name, value in more.items() if value}:
            fields["kernel"] = more
        return self._write(fields)

    @override
    def write_cancel(self, key: str) -> bytes | None:
        return self._write({"jsonrpc": "2.0", "method": _CANCEL, "params": {"id": _id_of(key)}})

    @override
    def write_batch(self, answers: Sequence[bytes]) -> bytes:
        return b"[" + b",".join(answers) + b"]"

    def _refusal(self, code: int, text: str, key: str = "") -> Refusal:
        to = _id_of(key) if key else None
        return Refusal(body=self._write({"jsonrpc": "2.0", "error": {"code": code, "message": text}, "id": to}))

    def _parse(self, text: bytes) -> object:
        return read_json(text, max_bytes=self._config.max_bytes, max_depth=self._config.max_depth)

    def _write(self, value: object) -> bytes:
        config = self._config
        return write_json(value, sort_keys=False, max_bytes=config.max_bytes, max_depth=config.max_depth)


def _table(value: object) -> Mapping[str, object]:
    """Return an object as it is, and nothing of all else."""
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else NO_HEADERS


def _cancel(key: str, params: object) -> Cancel:
    cancelled = _key_of(_table(params).get("id"))
    if key or not cancelled or "id" not in _table(params):
        raise DecodeError(f'{_CANCEL} is a notification, and its params are {{"id": ID}}')
    return Cancel(key=cancelled)


def _request(fields: Mapping[str, object], key: str, method: str, params: object, now: float) -> Request:
    headers, deadline = _added(fields["kernel"], now) if "kernel" in fields else (NO_HEADERS, math.inf)
    message = Message(subject=method, payload=Arguments.of(params), headers=headers)
    envelope = Envelope(
        subject=method,
        headers=headers,
        reply_to=_REPLY_TO if key else "",
        correlation_id=key,
        deadline=deadline,
    )
    return Request(key=key, envelope=envelope, message=message)


def _added(more: object, now: float) -> tuple[Mapping[str, object], float]:
    """Return the headers and the deadline in what ours add to a request.

    Raises:
        DecodeError: if it makes no sense: who sent it relies on it.
    """
    headers = _table(more).get("headers", NO_HEADERS)
    deadline = read_deadline(_table(more)["deadline"], now=now) if "deadline" in _table(more) else None
    if not isinstance(more, dict) or not isinstance(headers, Mapping) or deadline == math.inf:
        raise DecodeError('"kernel" is an object with headers, an object, and a deadline, milliseconds from now')
    return cast("Mapping[str, object]", headers), math.inf if deadline is None else deadline


def _key_of(value: object) -> str | None:
    """Return an id as text that tells 1 from "1"; None if it is no id."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        return None
    text = write_json(value, max_bytes=65536, max_depth=1).decode()
    return text if len(text) <= _MAX_ID else None


def _id_of(key: str) -> object:
    """Return the id that a text tells; a text that is none is an id itself."""
    try:
        value = read_json(key.encode(), max_bytes=65536, max_depth=1)
    except DecodeError:
        return key
    return value if isinstance(value, str | int | float | None) else key


def _told(error: Exception) -> dict[str, object]:
    match error:
        case NoWorkerError():
            code = METHOD_NOT_FOUND
        case ConversionError():
            code = INVALID_PARAMS
        case UnavailableError():
            code = UNAVAILABLE
        case DecodeError():
            code = INVALID_REQUEST
        case _:
            code = FAILED
    return {"code": code, "message": error_text(error), "data": {"type": type(error).__name__}}


def _params(arguments: Arguments) -> list[object] | dict[str, object]:
    """Return arguments by position or by name: those that are given in both ways by name, if all names are known."""
    if not arguments.kwargs:
        return list(arguments.args)
    named = arguments.by_name()
    if named is None:
        raise EncodeError("JSON-RPC has arguments by position or by name, and not both: give all of them by name")
    return named
