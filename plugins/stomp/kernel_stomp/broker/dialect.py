"""What servers differ in: how destinations are called, what can be asked for, and how a message is given back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import final

import attrs

from kernel import Envelope
from kernel.abc import Binding, Capability, Queue

from ..core import Frame
from ..link.link import Link, OnWritten


@final
@attrs.frozen(kw_only=True, repr=False)
class Wish:
    """What is asked for by somebody who consumes."""

    queue: str
    spec: Queue | None
    """How the queue was declared; None if somebody else did."""
    bindings: Sequence[Binding]
    """Those of the queue that are known here."""
    prefetch: int

    @property
    def is_exclusive(self) -> bool:
        """Whether the queue goes away with its connection."""
        return self.spec is not None and self.spec.exclusive


class Supply(ABC):
    """Brings the messages of one queue on a connection of its own. Not safe to share."""

    __slots__ = ()

    @abstractmethod
    async def begin(self, link: Link) -> None:
        """Ask for messages.

        Raises:
            LinkLostError: if the server refuses that, or the connection is gone.
        """

    @abstractmethod
    def wants(self, frame: Frame) -> bool:
        """Return whether a message that came is one of the queue's; one that is not is acknowledged."""

    @abstractmethod
    def ack(self, frame: Frame) -> None:
        """Have the server forget a message.

        Raises:
            LinkLostError: if the connection is gone.
        """

    @abstractmethod
    def give_back(self, frame: Frame) -> None:
        """Have the server deliver a message again, before others.

        Raises: as `ack`.
        """

    @abstractmethod
    def put_aside(self, frame: Frame) -> None:
        """Have the server put a message aside as it does by itself, or forget it where it does not.

        Raises: as `ack`.
        """

    @abstractmethod
    async def leave(self, untaken: Callable[[], Sequence[Frame]], *, taken: Sequence[Frame]) -> None:
        """Bring nothing more, and give back what was not taken; what was can still be settled.

        Args:
            untaken: Returns and removes what came and was not taken.
            taken: What was taken and is not settled.

        Raises: as `ack`.
        """

    async def replace(self, frame: Frame, copy: Frame, *, on_written: OnWritten) -> bool:
        """Send a message and acknowledge the one it comes from, both or neither; return False if that cannot be.

        `on_written` as in `Link.request`.

        Raises:
            LinkLostError: if the connection is gone before it is known to be done.
            FrameError: if the copy cannot be written.
        """
        del frame, copy, on_written
        return False  # noqa: ASYNC910  whoever is told goes on to send


class Dialect(ABC):
    """How one kind of server is spoken to. Pure."""

    __slots__ = ()

    @property
    @abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """What a broker over it can do."""

    @property
    @abstractmethod
    def keeps_exclusive(self) -> bool:
        """Whether a queue for one consumer lives as long as the connection that declared it, and no longer."""

    @abstractmethod
    def may_consume(self, queue: str) -> bool:
        """Whether a queue that nobody here declared may be asked for; not where that would make it."""

    @abstractmethod
    def queue_problems(self, queue: Queue) -> Sequence[str]:
        """Return what of a queue cannot be declared."""

    @abstractmethod
    def declarations(self, queue: Queue, bindings: Sequence[Binding]) -> Sequence[Frame]:
        """Return the subscriptions that make a queue and its bindings exist; each lacks its id, and is left at once."""

    @abstractmethod
    def destination(self, *, exchange: str, subject: str) -> str:
        """Return where a message for an exchange goes; without one, for the queue that the subject names."""

    @abstractmethod
    def outside(self, envelope: Envelope, *, exchange: str) -> Mapping[str, str]:
        """Return the headers of a message that only this server knows."""

    @abstractmethod
    def id_of(self, headers: Mapping[str, str]) -> str:
        """Return the id of a message; empty if it has none but the server's."""

    @abstractmethod
    def reply_to_of(self, headers: Mapping[str, str]) -> str:
        """Return where answers to a message go that has `reply-to`."""

    @abstractmethod
    def subject_of(self, headers: Mapping[str, str]) -> str:
        """Return the subject of a message that does not say it."""

    @abstractmethod
    def death_of(self, headers: Mapping[str, str], *, queue: str) -> tuple[str, str] | None:
        """Return why and in which queue the server has put a message aside that is read from `queue`; or None."""

    @abstractmethod
    def supply(self, wish: Wish) -> Supply:
        """Return what brings the messages that somebody wishes for."""

    @abstractmethod
    def holds(self, delay: float) -> Mapping[str, str] | None:
        """Return the headers with which the server holds a message back; None if it needs a place for it."""
