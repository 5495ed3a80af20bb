"""What the dispatcher answers itself, in every version of HTTP. Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

_NO_CONTENT: Final = 204
TEXTS: Final = {
    status.value: b"" if status == _NO_CONTENT else f"{status.value} {status.phrase}\n".encode()
    for status in HTTPStatus
}
"""The body for each status."""
ALLOWED: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
"""Said to who asks the server as a whole (`OPTIONS *`): there are methods besides, which are the applications'."""
_BESIDES: Final = {
    HTTPStatus.SERVICE_UNAVAILABLE: [(b"retry-after", b"1")],
    HTTPStatus.UPGRADE_REQUIRED: [(b"sec-websocket-version", b"13")],  # RFC 6455, 4.4: which versions there are
}


def fields_of(status: int) -> list[tuple[bytes, bytes]]:
    """Return the header fields of an answer, besides those that every answer has."""
    if status == _NO_CONTENT:
        return [(b"allow", ALLOWED)]
    fields = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(TEXTS[status]))]
    return [*fields, *_BESIDES.get(HTTPStatus(status), ())]


def size_of(status: int, *, is_head: bool = False) -> int:
    """Return how many bytes of body an answer has; none if it is one to HEAD."""
    return 0 if is_head else len(TEXTS[status])


def status_without_route(path: bytes) -> int:
    """Return the status where nobody serves a path; `*` is the server as a whole (RFC 9110, 9.3.7)."""
    return _NO_CONTENT if path == b"*" else 404
