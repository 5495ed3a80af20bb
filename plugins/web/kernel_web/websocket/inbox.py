"""What a client of a websocket has said and its application has not taken, and what the application is told at the end."""

from __future__ import annotations

from collections import deque
from typing import Final, final

from .._application import ASGIMessage

QUEUE_BYTES: Final = 64 * 1024
"""Bytes of messages that may wait for the application; a message that is larger waits alone."""
MESSAGE_BYTES: Final = 100
"""What a message counts besides its own bytes, so that many small ones have a bound, too."""


@final
class Inbox:
    """The messages, in order. Bounded by whoever reads from the client: it stops while this is full."""

    __slots__ = ("_last", "_messages", "_size")

    def __init__(self) -> None:
        """Begin with the client's wish to connect."""
        self._messages: deque[tuple[ASGIMessage, int]] = deque([({"type": "websocket.connect"}, 0)])
        self._size = 0
        self._last: ASGIMessage | None = None
        """From then on for ever."""

    @property
    def is_full(self) -> bool:
        """Whether so much waits that no more is to be read."""
        return self._size >= QUEUE_BYTES

    def put(self, message: str | bytes) -> None:
        """Add what the client has said."""
        kind = "text" if isinstance(message, str) else "bytes"
        size = MESSAGE_BYTES + len(message) * (1 if kind == "bytes" or message.isascii() else 4)
        self._messages.append(({"type": "websocket.receive", kind: message}, size))
        self._size += size

    def put_stop(self) -> None:
        """Add that the service stops."""
        self._messages.append(({"type": "websocket.stop"}, 0))

    def end(self, code: int, reason: str) -> None:
        """Take note that nothing more comes. Of several ends the first counts."""
        if self._last is None:
            self._last = {"type": "websocket.disconnect", "code": code, "reason": reason}

    @property
    def has_news(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._messages or self._last)

    def take(self) -> ASGIMessage:
        """Return the next message, or the end."""
        if not self._messages:
            return dict(self._last or {})
        message, size = self._messages.popleft()
        self._size -= size
        return message
