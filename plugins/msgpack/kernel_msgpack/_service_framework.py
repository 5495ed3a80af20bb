"""The protocol `service_framework`: what service-framework packs, with its ids of workflows and its own types.

What it writes for a type that MessagePack does not have is a map with a mark in it. Source: service-framework 0.0.20,
`utils/msgpack_utils.py`.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast, final
from uuid import UUID

import attrs
from typing_extensions import override

from kernel import NO_HEADERS, Arguments, Envelope, Message, new_id
from kernel.abc import Protocol
from kernel.errors import DecodeError, EncodeError, RemoteError, error_text

from ._config import MsgpackConfig
from ._packing import Table, pack, plainer, unpack
from ._protocol import CONTENT_TYPE

if TYPE_CHECKING:
    from kernel.abc import Context

WORKFLOW_HEADER: Final = "workflow-id"
"""The header in which the id of a workflow reaches a handler, as text; the id itself stands in the body."""


@final
class ServiceFrameworkProtocol(Protocol):
    """Bodies are `{"args": {...}, "workflow_id": ...}`, answers `{"return_args": ..., "workflow_id": ...}`.

    An error is `{"return_args": null, "workflow_id": ..., "error": {"type": ..., "message": ...}}`: service-framework
    has none, and its requester raises about the answer without arguments instead of waiting for ever.

    Args:
        config: What bodies may be.
        context: From the kernel.
        make_id: Returns the id of a new workflow, of 32 hexadecimal digits.
    """

    Config: ClassVar[type[object]] = MsgpackConfig

    def __init__(
        self,
        *,
        config: MsgpackConfig = MsgpackConfig(),  # noqa: B008  frozen
        context: Context | None = None,
        make_id: Callable[[], str] = new_id,
    ) -> None:
        self._limits = attrs.asdict(config)
        self._make_id = make_id
        self._workflows: Final = dict[int, tuple[weakref.ref[Envelope], object]]()
        """Of the requests that were decoded and still exist, by their `id()`: to read a body again for its answer
        takes as long as all else that is done for that."""

    @override
    def decode(self, envelope: Envelope) -> Message:
        fields = self._fields(envelope)
        if not isinstance(fields.get("args"), dict):
            raise DecodeError("body is no map with args, which is a map too")
        workflow = fields.get("workflow_id")
        if envelope.reply_to:
            self._remember(envelope, workflow)
        headers = {**envelope.headers, WORKFLOW_HEADER: str(workflow)}
        return Message(subject=envelope.subject, payload=fields["args"], headers=headers)

    @override
    def encode(self, message: Message) -> Envelope:
        """Return the envelope for a message.

        Raises:
            EncodeError: if the payload cannot be written, or is no object, and no `Arguments` given by name.
        """
        body = {"args": _by_name(message.payload), "workflow_id": self._workflow_of(message.headers)}
        return Envelope(
            subject=message.subject, body=self._pack(body), headers=message.headers, content_type=CONTENT_TYPE
        )

    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        return self._answer(request, {"return_args": result})

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        told = {"type": type(error).__name__, "message": error_text(error)}
        return self._answer(request, {"return_args": None, "error": told})

    @override
    def decode_reply(self, reply: Envelope) -> object:
        fields = self._fields(reply)
        match fields.get("error"):
            case {"type": str(kind), "message": str(message)}:
                raise RemoteError(kind, message)
            case None if "return_args" in fields:
                return fields["return_args"]
            case _:
                raise DecodeError("body is not an answer: it has no return_args")

    @override
    def continued(self, cause: Envelope) -> Mapping[str, object]:
        """Return the id of the workflow, which stands in the body."""
        try:
            workflow = self._fields(cause).get("workflow_id")
        except DecodeError:
            return NO_HEADERS
        return {WORKFLOW_HEADER: str(workflow)} if isinstance(workflow, str | UUID) else NO_HEADERS

    def _workflow_of(self, headers: Mapping[str, object]) -> object:
        given = headers.get(WORKFLOW_HEADER)
        return given if isinstance(given, str) and given else UUID(self._make_id())

    def _answer(self, request: Envelope, answer: Table) -> Envelope | None:
        if not request.reply_to:
            return None
        return Envelope(
            subject=request.reply_to,
            body=self._pack({"return_args": answer.pop("return_args"), "workflow_id": self._asked(request), **answer}),
            content_type=CONTENT_TYPE,
            correlation_id=request.correlation_id,
        )

    def _remember(self, request: Envelope, workflow: object) -> None:
        key, workflows = id(request), self._workflows
        workflows[key] = weakref.ref(request, lambda _: workflows.pop(key, None)), workflow

    def _asked(self, request: Envelope) -> object:
        """Return the id of the workflow that a request belongs to, as it came; None if it cannot be read."""
        known = self._workflows.get(id(request))
        if known is not None and known[0]() is request:
            return known[1]
        try:
            return self._fields(request).get("workflow_id")
        except DecodeError:
            return None

    def _fields(self, envelope: Envelope) -> Table:
        value = unpack(envelope.body, hook=_own, **self._limits)
        return cast("Table", value) if isinstance(value, dict) else {}

    def _pack(self, body: object) -> bytes:
        return pack(body, default=_marked, **self._limits)


def _by_name(payload: object) -> object:
    if isinstance(payload, Arguments):
        named = payload.by_name()
        if named is None:
            raise EncodeError("service-framework has arguments by name alone: give all of them by name")
        return named
    if isinstance(payload, dict):
        return cast("Table", payload)
    plain = plainer(payload)
    if not isinstance(plain, dict):
        raise EncodeError(f"service-framework sends an object, not {type(payload).__name__}")
    return cast("Table", plain)


def _marked(value: object) -> object:
    """Return how service-framework writes a value of a type that MessagePack does not have."""
    numpy: Any = sys.modules.get("numpy")
    match value:
        case Decimal():
            return {"__decimal__": True, "as_str": str(value)}
        case set() | frozenset():
            items = cast("frozenset[object]", value)
            return {"__set__": True, "value": sorted(items, key=repr)}
        case UUID():
            return {"__uuid__": True, "as_str": str(value)}
        case _ if numpy is not None and isinstance(value, numpy.ndarray):
            return {"__numpy.ndarray__": True, "as_bytes": cast("Any", value).tobytes()}
        case _:
            return plainer(value)


def _own(fields: Table) -> object:
    """Return what a map stands for, as service-framework reads it; raises whatever is wrong with it."""
    if "__decimal__" in fields:
        return Decimal(cast("str", fields["as_str"]))
    if "__set__" in fields:
        return set(cast("list[object]", fields["value"]))
    if "__uuid__" in fields:
        return UUID(cast("str", fields["as_str"]))
    if "__numpy.ndarray__" in fields and find_spec("numpy") is not None:
        numpy: Any = import_module("numpy")  # heavy, and only where there is one
        return numpy.frombuffer(cast("bytes", fields["as_bytes"]))
    return fields
