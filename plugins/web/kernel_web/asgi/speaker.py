"""What every protocol of a connection can be told by its server."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Speaker(ABC):
    """One connection, and the protocol that its client speaks."""

    __slots__ = ()

    @abstractmethod
    async def run(self) -> None:
        """Serve until the client or the server ends it; whoever calls closes the channel afterwards.

        Raises:
            ClientGoneError: if the client has left in the middle.
        """

    @abstractmethod
    def look(self, now: float) -> None:
        """Keep the deadlines: called every tick."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is asked for, and whatever is asked next cannot be told to be asked elsewhere."""
        return False

    @abstractmethod
    def stop(self) -> None:
        """Begin to stop: end if nothing is asked for; what is goes on."""
