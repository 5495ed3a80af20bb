"""What a client sent and its application has not received yet: bounded, and in order."""

from __future__ import annotations

from collections import deque
from typing import Final, final

import attrs
import trio

from ._application import ASGIMessage

QUEUE_BYTES: Final = 64 * 1024
"""Bytes of body that a client may send ahead of its application."""
QUEUE_MESSAGES: Final = 64
"""Whole messages that it may send ahead over a websocket."""


@final
@attrs.define(eq=False, repr=False)
class Inbox:
    """The messages of one request."""

    _is_websocket: bool
    _is_h2: bool
    """Never full over HTTP/2: flow control bounds what comes, since only what was received is acknowledged."""
    arrived: int = attrs.field(default=0, init=False)
    """Bytes of body that came so far."""
    disconnected: bool = attrs.field(default=False, init=False)
    """Whether the client is gone, or was sent away: its last message is in the queue."""
    _unread: int = attrs.field(default=0, init=False)
    _shut: bool = attrs.field(default=False, init=False)
    _abandoned: bool = attrs.field(default=False, init=False)
    _queue: deque[ASGIMessage] = attrs.field(factory=deque[ASGIMessage], init=False)
    _news: trio.Event | None = attrs.field(default=None, init=False)
    _room: trio.Event | None = attrs.field(default=None, init=False)

    def __bool__(self) -> bool:
        """Whether there is something to receive."""
        return bool(self._queue)

    @property
    def is_open(self) -> bool:
        """Whether somebody may still receive what comes."""
        return not (self._shut or self.disconnected)

    @property
    def is_full(self) -> bool:
        """Whether the reader has to wait."""
        if self._is_websocket:
            return len(self._queue) >= QUEUE_MESSAGES
        return self._unread >= QUEUE_BYTES and not self._is_h2

    def put(self, message: ASGIMessage) -> None:
        """Add a message; nothing happens if nobody will receive it."""
        if self.is_open:
            self._unread += len(message.get("body", b""))
            self._queue.append(message)
            if self._news is not None:
                self._news.set()

    def disconnect(self, message: ASGIMessage) -> None:
        """Add the last message. May be called again."""
        if not self.disconnected:
            self.disconnected = True
            self._queue.append(message)
            self._wake()

    def shut(self) -> int:
        """Say that nobody receives any more; returns the bytes of body that nobody did. May be called again."""
        self._shut = True
        self._wake()
        unread, self._unread = self._unread, 0
        return unread

    def abandon(self) -> None:
        """Say that nothing more can come, so that the reader need not wait for room."""
        self._abandoned = True
        self._wake()

    def pop(self) -> tuple[ASGIMessage, int]:
        """Return the first message and the bytes of its body. There must be one."""
        message = self._queue.popleft()
        size = len(message.get("body", b""))
        self._unread -= size
        if self._room is not None:
            self._room.set()
        return message, size

    async def wait_news(self) -> None:
        """Wait until something has changed. Is a checkpoint."""
        # Two tasks of an application may wait at the same time, for instance one of them for a disconnect.
        self._news = trio.Event() if self._news is None or self._news.is_set() else self._news
        await self._news.wait()

    async def wait_room(self) -> None:
        """Wait until it is not full, or nobody receives any more. Is a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.is_full and self.is_open and not self._abandoned:
            self._room = trio.Event()
            await self._room.wait()

    def _wake(self) -> None:
        for event in (self._news, self._room):
            if event is not None:
                event.set()
