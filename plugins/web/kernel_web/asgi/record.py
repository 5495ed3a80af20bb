"""What is known of a request that has ended, for the access log and for whoever hears of it."""

from __future__ import annotations

import re
import time
from typing import Any, Final, final

from kernel import new_id

from .events import RequestDone


@final
class Record:
    """What is known of a request that has ended."""

    __slots__ = ("began", "name", "received", "scope", "seconds", "sent", "status", "worker")

    def __init__(
        self, scope: dict[str, Any], worker: str, began: float, status: int, received: int = 0, sent: int = 0
    ) -> None:
        """Note what was.

        Args:
            scope: Its own, or what there was of it.
            worker: Whose it was; empty if it was nobody's.
            began: By `time.perf_counter`, which costs less than the time of the loop.
            status: Of the answer.
            received: Bytes of body.
            sent: Bytes of body.
        """
        self.scope = scope
        self.worker = f"worker/{worker}" if worker else ""
        self.began = began
        self.status = status
        self.received = received
        self.sent = sent
        self.seconds = 0.0
        """How long it took, and what it is called: known once somebody wants to know."""
        self.name = ""

    def end(self) -> None:
        """Measure how long it took, and give it its name."""
        self.seconds = time.perf_counter() - self.began
        self.name = request_id(self.scope["headers"])

    @property
    def method(self) -> str:
        """Of the request; a websocket has none."""
        return self.scope.get("method", "websocket")  # type: ignore[no-any-return]  # a scope, as ASGI has it

    @property
    def path(self) -> str:
        """As it was sent, without its query."""
        return self.scope["raw_path"].decode("latin-1")  # type: ignore[no-any-return]  # as above

    @property
    def client(self) -> str:
        """The address of the other end; empty if it has none."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    def event(self, component: str) -> RequestDone:
        """Return it as an event of a dispatcher."""
        return RequestDone(
            component=component,
            worker=self.worker,
            method=self.method,
            path=self.path,
            version=self.scope["http_version"],
            status=self.status,
            seconds=self.seconds,
            received=self.received,
            sent=self.sent,
            client=self.client,
            request_id=self.name,
            request=self.scope,
        )


def request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """Return what a request is called by whoever sent it, or a new name."""
    for name, told in headers:  # a generator would cost as much as the rest
        if name == b"x-request-id":
            return told.decode() if _NAME(told) else new_id()
    return new_id()


_NAME: Final = re.compile(rb"[0-9A-Za-z._:/+=-]{1,128}").fullmatch
