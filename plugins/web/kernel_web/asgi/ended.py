"""What requests were that have ended, gathered for a moment and told together.

One after the other, what is told of a request costs half of what it costs between all else that a request is.
"""

from __future__ import annotations

import time
from typing import Any, Final, final

import attrs

from kernel import RequestFigures
from kernel.abc import Context

from ..wire.clock import Clock
from .access import AccessLog, Seen
from .events import CountsAsked, RequestCounted, RequestsDone
from .record import done, named, request_id

TOGETHER_MAX: Final = 128
"""Requests that are told of together: about a quarter of a millisecond of work."""


@final
@attrs.define(eq=False, repr=False)
class Ended:
    """Takes what requests were, for the access log and for whoever counts or hears of them."""

    context: Context
    clock: Clock
    access: AccessLog | None = attrs.field(default=None, init=False)
    # Texts and numbers, and not what they are taken from: requests that are kept for a moment each make the garbage
    # collector go through all that the process holds, again and again.
    _figures: list[RequestFigures] = attrs.field(factory=list[RequestFigures], init=False)
    _seen: list[Seen] = attrs.field(factory=list[Seen], init=False)
    """Of the same requests, if there is an access log."""

    @property
    def is_watched(self) -> bool:
        """Whether anybody wants to know of requests."""
        hears = self.context.hears
        return self.access is not None or bool(hears(RequestsDone)) or bool(hears(RequestCounted))

    def add(
        self, scope: dict[str, Any], worker: str, began: float, status: int, received: int = 0, sent: int = 0
    ) -> None:
        """Take a request that has ended. To be called only if it is watched.

        Args:
            scope: Its own, or what there was of it.
            worker: `worker/name` of whose it was, the same object each time; empty if it was nobody's.
            began: By `time.perf_counter`, which costs less than the time of the loop.
            status: Of the answer.
            received: Bytes of body.
            sent: Bytes of body.
        """
        seconds, name, figures = time.perf_counter() - began, "", self._figures
        if self.context.hears(RequestCounted):
            name = request_id(scope["headers"])
            self.context.emit(done(self.context.id, scope, worker, seconds, name, status, received, sent))
        figures.append((worker, scope.get("method", "websocket"), status, seconds, received, sent))
        if self.access is not None:
            client = scope.get("client")
            name = name or named(scope["headers"])
            self._seen.append((client[0] if client else "", scope["raw_path"], scope["http_version"], name))
        if len(figures) >= TOGETHER_MAX:
            self.tell()

    def tell(self) -> None:
        """Tell of those that have been gathered. To be called every tick, before the clock is moved; raises nothing."""
        figures, self._figures = self._figures, []
        seen, self._seen = self._seen, []
        if figures and self.context.hears(RequestsDone):
            self.context.emit(RequestsDone(component=self.context.id, requests=figures))
        if seen and self.access is not None:
            self.access.add(figures, seen, self.clock.date)

    def tell_who_asks(self, event: CountsAsked) -> None:
        """Tell of them now. A hook."""
        del event
        self.tell()
