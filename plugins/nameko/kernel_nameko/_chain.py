"""What a message says of the chain of calls that led to it: headers whose names begin with `nameko.`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Final, cast

from kernel import Envelope

CALL_ID_STACK: Final = "nameko.call_id_stack"
"""Ids of the calls that led to the message, each `service.method.uuid`, oldest first."""
_PREFIX: Final = "nameko."
_NAMESPACE: Final = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")
"""Source: RFC 4122, the namespace of object identifiers."""


def continued(cause: Envelope, *, service: str, tracked: int) -> Mapping[str, object]:
    """Return what a message inherits that is sent while another is handled.

    Args:
        cause: What is being handled: its call gets an id of its own, the same for all that is sent in it.
        service: Who handles it.
        tracked: How many ids of earlier calls are kept.
    """
    stack = [call_id for call_id in _list(cause.headers.get(CALL_ID_STACK)) if isinstance(call_id, str)]
    return {**said(cause.headers), CALL_ID_STACK: [*stack, _call_id(cause, service)][-tracked - 1 :]}


def said(headers: Mapping[str, object]) -> Mapping[str, object]:
    """Return what headers say of the context: Nameko drops what is None."""
    return {key: value for key, value in headers.items() if key.startswith(_PREFIX) and value is not None}


def without_none(headers: Mapping[str, object]) -> Mapping[str, object]:
    """Return headers as they are sent: without those of the context that are None."""
    if None not in headers.values():
        return headers
    return {key: value for key, value in headers.items() if value is not None or not key.startswith(_PREFIX)}


def _call_id(cause: Envelope, service: str) -> str:
    method = cause.subject.rpartition(".")[2]
    return f"{service}.{method}.{uuid.uuid5(_NAMESPACE, cause.id)}"


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []
