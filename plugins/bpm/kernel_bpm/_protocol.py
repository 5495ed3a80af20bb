"""The protocol itself: envelopes <-> messages, and replies."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar, Final, cast, final

from typing_extensions import override

from kernel import Envelope, Message
from kernel.abc import Protocol
from kernel.errors import DecodeError, RemoteError, error_text

from ._body import REPLY, Body, Heading, params_of, read_body, split_subject, subject_of, write_body
from ._config import BpmConfig
from ._routed import Routed

if TYPE_CHECKING:
    from kernel.abc import Context

_FAILED: Final = "Error"
"""The kind of a remote error whose text names none."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _new_uuid() -> str:
    return str(uuid.uuid4())


@final
class BpmProtocol(Protocol):
    """Bodies are the routed JSON messages of Shiva.

    The subject of what comes in is `<object>.<action>` of the body, whatever the broker routed it by; the payload is
    its `params`. A result that is not empty is replied to `<object>.<action>_reply`, also if nobody asked for it by a
    `reply_to`.

    Every body has an id and a time of its own, so that equal messages are only written equally where the two
    functions that give them return the same.
    """

    Config: ClassVar[type[object]] = BpmConfig
    always_replies: ClassVar[bool] = True

    def __init__(
        self,
        *,
        config: BpmConfig = BpmConfig(),  # noqa: B008  frozen
        context: Context | None = None,
        now: Callable[[], datetime] = _utc_now,
        new_id: Callable[[], str] = _new_uuid,
    ) -> None:
        self._config = config
        self._system = config.system or (context.service if context is not None else "")
        self._now = now
        self._new_id = new_id

    @override
    def decode(self, envelope: Envelope) -> Message:
        fields = self._read(envelope)
        return Message(subject=subject_of(fields), payload=fields["params"], headers=envelope.headers)

    @override
    def encode(self, message: Message) -> Envelope:
        routed, message_id = _as_routed(message.payload), self._new_id()
        heading = Heading(
            system_from=self._system,
            system_to=routed.system_to or self._config.system_to,
            subject=split_subject(message),
            reference_id=routed.reference_id or message_id,
            message_id=message_id,
            created=self._now(),
        )
        params = params_of(routed, request_id=routed.request_id, config=self._config)
        body = write_body(heading.body(params), config=self._config)
        return Envelope(subject=routed.route_key or message.subject, body=body, headers=message.headers, id=message_id)

    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        if not request.reply_to and not _is_something(result):
            return None
        return self._reply(request, _as_routed(result))

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        """Return a reply whose status says what went wrong; Shiva itself never sends one."""
        if not request.reply_to:
            return None
        return self._reply(request, Routed(success=False, errors=(f"{type(error).__name__}: {error_text(error)}",)))

    @override
    def decode_reply(self, reply: Envelope) -> object:
        """Return the params without their status.

        Raises:
            RemoteError: if the status says that it went wrong.
        """
        params = self._read(reply)["params"]
        fields = _table(params)
        status = _table(fields.get("status"))
        if status.get("success") is False:
            raise _remote_error(status.get("errors"))
        if status.get("success") is True:
            return {key: value for key, value in fields.items() if key != "status"}
        return params

    def _read(self, envelope: Envelope) -> Body:
        return read_body(envelope.body, content_type=envelope.content_type, config=self._config)

    def _reply(self, request: Envelope, routed: Routed) -> Envelope | None:
        source = self._source(request)
        if source is None:
            return None
        heading = Heading(
            system_from=source.get("system_to") or self._system,
            system_to=source.get("system_from"),
            subject=(str(source["object"]), f"{source['action']}{REPLY}"),
            reference_id=source.get("reference_id"),
            message_id=self._new_id(),
            created=self._now(),
        )
        params = params_of(routed, request_id=source.get("message_id") or request.id, config=self._config)
        return Envelope(
            subject=request.reply_to or ".".join(heading.subject),
            body=write_body(heading.body(params), config=self._config),
            id=heading.message_id,
            correlation_id=request.correlation_id,
        )

    def _source(self, request: Envelope) -> Body | None:
        """Return what a reply takes from its request; None if it says nothing, and nobody waits for the reply."""
        try:
            return self._read(request)
        except DecodeError:
            noun, _, action = request.subject.partition(".")
            return {"object": noun, "action": action} if request.reply_to else None


def _as_routed(payload: object) -> Routed:
    return payload if isinstance(payload, Routed) else Routed(params=payload)


def _is_something(result: object) -> bool:
    """Return whether a result is worth a reply: Shiva sends none for an empty one."""
    try:
        return bool(result)
    except Exception:  # noqa: BLE001  the result's own code; such a value is at least not empty
        return True


def _table(value: object) -> Body:
    return cast("Body", value) if isinstance(value, dict) else {}


def _remote_error(errors: object) -> RemoteError:
    text = "; ".join(map(str, cast("list[object]", errors) if isinstance(errors, list) else []))
    kind, colon, message = text.partition(": ")
    return RemoteError(kind, message) if colon and kind.isidentifier() else RemoteError(_FAILED, text)
