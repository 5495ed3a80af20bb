"""The body of a message: an object of JSON with ten keys, in the order in which Shiva writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Final, TypeAlias, cast, final

import attrs

from kernel import Arguments, Message, read_json, write_json
from kernel.errors import DecodeError, EncodeError

from ._config import BpmConfig
from ._routed import Routed

Body: TypeAlias = dict[str, object]

REPLY: Final = "_reply"
"""What the action of a reply ends in."""
_PRIORITY: Final = 1
_API_VERSION: Final = "1.0"


@final
@attrs.frozen(kw_only=True)
class Heading:
    """What a body says besides its params."""

    system_from: object = attrs.field(repr=False)
    system_to: object = attrs.field(repr=False)
    subject: tuple[str, str]
    """Object and action."""
    reference_id: object = attrs.field(repr=False)
    message_id: str
    created: datetime
    """In UTC."""

    def body(self, params: Mapping[str, object]) -> Body:
        """Return the fields of the body, in their order."""
        return {
            "system_from": self.system_from,
            "system_to": self.system_to,
            "object": self.subject[0],
            "action": self.subject[1],
            "reference_id": self.reference_id,
            "message_id": self.message_id,
            "params": params,
            "priority": _PRIORITY,
            "api_version": _API_VERSION,
            "datetime_created": self.created.replace(tzinfo=None).isoformat(timespec="seconds"),
        }


def read_body(body: bytes, *, content_type: str, config: BpmConfig) -> Body:
    """Return the fields of a body, with what routes it in place.

    Raises:
        DecodeError: if it is no message of Shiva.
    """
    value = read_json(body, content_type=content_type, max_bytes=config.max_bytes, max_depth=config.max_depth)
    if not isinstance(value, dict):
        raise DecodeError("body is not an object")
    fields = cast("Body", value)
    for key in ("object", "action"):
        if not isinstance(fields.get(key), str) or not fields[key]:
            raise DecodeError(f'"{key}" of the body must be text that is not empty')
    if "params" not in fields:
        raise DecodeError('body has no "params"')
    return fields


def write_body(body: Body, *, config: BpmConfig) -> bytes:
    """Return the bytes of a body.

    Raises:
        EncodeError: naming what cannot be written.
    """
    return write_json(body, sort_keys=False, max_bytes=config.max_bytes, max_depth=config.max_depth)


def subject_of(fields: Body) -> str:
    """Return what a message is routed by: Shiva looks into the body, not at the routing key."""
    return f"{fields['object']}.{fields['action']}"


def split_subject(message: Message) -> tuple[str, str]:
    """Return the object and the action that a message is about.

    Raises:
        EncodeError: if its subject does not name both.
    """
    noun, _, action = message.subject.partition(".")
    if not noun or not action:
        raise EncodeError(f'subject {json.dumps(message.subject[:100])} must be "<object>.<action>"')
    return noun, action


def params_of(routed: Routed, *, request_id: object = "", config: BpmConfig) -> Mapping[str, object]:
    """Return what is written as `params`: with a `status` first if it is a reply, as Shiva has it.

    Args:
        routed: What is to be written.
        request_id: The id of what it is a reply to; empty if it is none.
        config: The limits.

    Raises:
        EncodeError: if the params are no object of JSON.
    """
    params = _as_object(routed.params, config)
    if not request_id:
        if not routed.success or routed.errors:
            raise EncodeError("success and errors are those of a reply: say request_id too")
        return params
    status = {"success": routed.success, "request_id": request_id, "errors": list(routed.errors)}
    return {"status": status, **params}


def _as_object(params: object, config: BpmConfig) -> Mapping[str, object]:
    if params is None:
        return {}
    if isinstance(params, Arguments):
        return params.kwargs if not params.args else {"args": params.args, "kwargs": params.kwargs}
    if isinstance(params, dict):
        return cast("dict[str, object]", params)
    value: object = json.loads(
        write_json(params, sort_keys=False, max_bytes=config.max_bytes, max_depth=config.max_depth)
    )
    if not isinstance(value, dict):
        raise EncodeError(f"params must be written as an object of JSON, and {type(params).__name__} is not")
    return cast("dict[str, object]", value)
