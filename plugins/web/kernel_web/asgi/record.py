"""What is known of a request that has ended, for whoever hears of it."""

from __future__ import annotations

import re
from typing import Any, Final, cast

from kernel import new_id

from .events import RequestCounted

_new: Final = object.__new__


def done(
    component: str, scope: dict[str, Any], worker: str, seconds: float, name: str, status: int, received: int, sent: int
) -> RequestCounted:
    """Return it as an event of a dispatcher.

    Its fields are set one by one: each request has one, and to call a class with twelve names takes twice as long.

    Args:
        component: The dispatcher.
        scope: Of the request, or what there was of it.
        worker: `worker/name` of whose it was; empty if it was nobody's.
        seconds: How long it took.
        name: What `request_id` returned.
        status: Of the answer.
        received: Bytes of body.
        sent: Bytes of body.
    """
    client = scope.get("client")
    made: Any = _new(RequestCounted)
    made.component = component
    made.worker = worker
    made.method = scope.get("method", "websocket")
    made.path = scope["raw_path"].decode("latin-1")
    made.version = scope["http_version"]
    made.status = status
    made.seconds = seconds
    made.received = received
    made.sent = sent
    made.client = str(client[0]) if client else ""
    made.request_id = name
    made.request = scope
    return cast("RequestCounted", made)


def request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """Return what a request is called by whoever sent it, or a new name."""
    return named(headers) or new_id()


def named(headers: list[tuple[bytes, bytes]]) -> str:
    """Return what a request is called by whoever sent it; empty if that is nothing, or no name."""
    for name, told in headers:  # a generator would cost as much as the rest
        if name == b"x-request-id":
            return told.decode() if _NAME(told) else ""
    return ""


_NAME: Final = re.compile(rb"[0-9A-Za-z._:/+=-]{1,128}").fullmatch
