"""What a websocket goes over: a connection of HTTP/1.1, or a stream of HTTP/2."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine

from .._application import ASGIMessage


class Carrier(ABC):
    """What a websocket goes over.

    What is asked for with each message may return the coroutine of another, and need not be one more.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def sent(self) -> int:
        """Bytes of body of the answer to a handshake that was refused."""

    @property
    @abstractmethod
    def is_reading(self) -> bool:
        """Whether somebody waits for the client at this moment."""

    @abstractmethod
    def read(self) -> Coroutine[object, object, bytes | None]:
        """Return what the client sent next, nothing at its end, None if woken."""

    @abstractmethod
    async def accept(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Open it, with more headers."""

    @abstractmethod
    async def respond(self, message: ASGIMessage) -> None:
        """Answer the handshake with what an application says as `http.response`."""

    @abstractmethod
    def refuse(self, status: int) -> None:
        """Answer the handshake with a status."""

    @abstractmethod
    def write(self, data: bytes) -> Coroutine[object, object, None]:
        """Send bytes; waits while the client does not take them.

        Raises:
            ClientGoneError: if it never will.
        """

    @abstractmethod
    def write_nowait(self, data: bytes) -> None:
        """Send bytes, as many as the client takes at once; the rest leaves later."""

    @property
    def is_behind(self) -> bool:
        """Whether `flush` has anything to do, or to say."""
        return True

    @abstractmethod
    def flush(self) -> Coroutine[object, object, None]:
        """Wait until the client has taken everything.

        Raises:
            ClientGoneError: if it never will.
        """

    @abstractmethod
    def wake(self) -> None:
        """Let whoever reads look again."""
