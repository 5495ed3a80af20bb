"""The document of all routers as an application of the dispatcher's own, which needs no worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, final

import attrs
from typing_extensions import override

from kernel.abc import Target

from .._application import ASGIMessage, Receive, Send
from .._config import WebConfig
from .lifespan import Hosted
from .routers import Routing, build_docs, build_document

Known = Sequence[tuple[str, Routing]]
"""Prefixes, and what is served below them."""


@final
@attrs.define(eq=False, repr=False)
class Document(Target):
    """The document, and the page that shows it. `hosted` is always ready."""

    _config: WebConfig
    _known: Callable[[], Known]
    _made_of: Known = attrs.field(default=(), init=False)
    _text: bytes = attrs.field(default=b"", init=False)

    @property
    @override
    def name(self) -> str:
        return ""

    @property
    @override
    def options(self) -> object:
        return None

    @override
    def hosted(self) -> object:
        return Hosted(self._answer, {})

    async def _answer(self, scope: ASGIMessage, _receive: Receive, send: Send) -> None:
        is_page = scope["path"] == self._config.root_path + self._config.openapi.docs
        kind, body = (b"text/html; charset=utf-8", self._page()) if is_page else (b"application/json", self._json())
        if scope["method"] not in {"GET", "HEAD"}:
            await _send(send, 405, [(b"allow", b"GET, HEAD")], b"")
            return
        await _send(send, 200, [(b"content-type", kind)], body)

    def _page(self) -> bytes:
        return build_docs(self._config.openapi, self._config.root_path)

    def _json(self) -> bytes:
        """Return the document; it is made again when a worker has come or gone."""
        known = self._known()
        if known != self._made_of:
            routers = [(prefix, routing.router) for prefix, routing in known]
            document = build_document(self._config.openapi, routers, self._config.root_path)
            self._text, self._made_of = json.dumps(document, ensure_ascii=False).encode(), known
        return self._text


async def _send(send: Send, status: int, headers: list[tuple[bytes, Any]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
