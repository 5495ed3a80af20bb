"""Messages as they pass a dispatcher, cut and masked.

What it costs the service is bounded: so many in a second are noted, by reference, and the others counted. All else is
done in the control thread.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias, final

import attrs
import trio

from .._core.broker import Delivery
from .._core.envelope import DeadLetter, Envelope, Outcome
from .._core.showing import shown_body, shown_headers

Noted: TypeAlias = tuple[float, str, Envelope, bytes, int, Outcome, float]

_EVERY: Final = 0.1
"""Seconds between looks at what was noted."""
_KEPT: Final = 100
_READ: Final = 65_536
"""Bytes of a body that are kept, and read as JSON."""
_TEXT: Final = 200
"""Characters of a header."""
_HEADERS: Final = 50


@final
@attrs.define(eq=False, repr=False)
class Tap:
    """One tap on one dispatcher."""

    per_second: int
    characters: int
    _noted: deque[Noted] = attrs.field(factory=lambda: deque[Noted](maxlen=_KEPT), init=False)
    _second: float = attrs.field(default=0.0, init=False)
    _left: int = attrs.field(default=0, init=False)
    _missed: int = attrs.field(default=0, init=False)

    def take(self, worker: str, delivery: Delivery, outcome: Outcome, seconds: float) -> None:
        """Note a delivery that was settled. Called in the event loop of the service."""
        now = time.monotonic()
        if now - self._second >= 1.0:
            self._second, self._left = now, self.per_second
        if self._left <= 0:
            self._missed += 1
            return
        self._left -= 1
        envelope = delivery.envelope
        self._noted.append((time.time(), worker, envelope, envelope.body[:_READ], delivery.attempt, outcome, seconds))

    async def tell_all(self, tell: Callable[[object], Awaitable[None]]) -> None:
        """Tell what is noted, until cancelled.

        Cancellation: Is a checkpoint.
        """
        while True:
            await trio.sleep(_EVERY)
            while self._noted:
                await tell(self._shown(self._noted.popleft()))
            if self._missed:
                missed, self._missed = self._missed, 0
                await tell({"missed": missed})

    def _shown(self, noted: Noted) -> Mapping[str, object]:
        at, worker, envelope, body, attempt, outcome, seconds = noted
        return {
            "time": at,
            "subject": envelope.subject[:_TEXT],
            "id": envelope.id[:_TEXT],
            "attempt": attempt,
            "worker": worker,
            "outcome": "dead_letter" if isinstance(outcome, DeadLetter) else type(outcome).__name__.lower(),
            "seconds": seconds,
            "headers": {
                key[:_TEXT]: _cut(text, _TEXT) for key, text in shown_headers(_first(envelope.headers)).items()
            },
            "bytes": len(envelope.body),
            "body": _cut(shown_body(body), self.characters),
        }


def _first(headers: Mapping[str, object]) -> Mapping[str, object]:
    return dict(itertools.islice(headers.items(), _HEADERS))


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]}..."
