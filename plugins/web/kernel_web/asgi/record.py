"""What is known of a request that has ended, for whoever hears of it."""

from __future__ import annotations

import re
from typing import Any, Final

from kernel import new_id

from .events import RequestDone


def done(
    component: str, scope: dict[str, Any], worker: str, seconds: float, name: str, status: int, received: int, sent: int
) -> RequestDone:
    """Return it as an event of a dispatcher.

    Args:
        component: The dispatcher.
        scope: Of the request, or what there was of it.
        worker: Whose it was; empty if it was nobody's.
        seconds: How long it took.
        name: What `request_id` returned.
        status: Of the answer.
        received: Bytes of body.
        sent: Bytes of body.
    """
    client = scope.get("client")
    return RequestDone(
        component=component,
        worker=f"worker/{worker}" if worker else "",
        method=scope.get("method", "websocket"),
        path=scope["raw_path"].decode("latin-1"),
        version=scope["http_version"],
        status=status,
        seconds=seconds,
        received=received,
        sent=sent,
        client=str(client[0]) if client else "",
        request_id=name,
        request=scope,
    )


def request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """Return what a request is called by whoever sent it, or a new name."""
    for name, told in headers:  # a generator would cost as much as the rest
        if name == b"x-request-id":
            return told.decode() if _NAME(told) else new_id()
    return new_id()


_NAME: Final = re.compile(rb"[0-9A-Za-z._:/+=-]{1,128}").fullmatch
