"""What a format of websocket messages has to say; both that are shipped are protocols too."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeAlias, final

import attrs

from kernel import Envelope, Message
from kernel.abc import Protocol


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Request:
    """A request that came; without a `key` nobody waits for an answer."""

    key: str
    envelope: Envelope
    message: Message


@final
@attrs.frozen(kw_only=True, repr=False)
class Answer:
    """The answer to a call of ours."""

    key: str
    envelope: Envelope


@final
@attrs.frozen(kw_only=True)
class Cancel:
    """Nobody waits for the answer to a request any more."""

    key: str


@final
@attrs.frozen(kw_only=True, repr=False)
class Refusal:
    """What came is none of these; the text says so to the other side."""

    body: bytes


Item: TypeAlias = Request | Answer | Cancel | Refusal


class Format(Protocol):
    """Texts of a websocket <-> requests, answers and cancellations. Pure, as every protocol."""

    __slots__ = ()

    is_serial: ClassVar[bool]
    """Whether messages have no ids, so that each connection has one request at a time, answered in order."""
    subprotocols: ClassVar[Sequence[str]] = ()
    """The first, if both sides name it, allows what plain peers do not know: deadlines, headers, cancellations."""

    @abstractmethod
    def read(self, text: bytes, *, now: float) -> tuple[Sequence[Item], bool]:
        """Return what a message holds, and whether its answers belong into one. Never raises."""

    @abstractmethod
    def write_request(self, message: Message, *, key: str, deadline: str | None, extends: bool) -> bytes:
        """Return the message that makes a call; without a key it wants no answer.

        Raises:
            EncodeError: if it cannot be written.
        """

    @abstractmethod
    def write_cancel(self, key: str) -> bytes | None:
        """Return the message that takes a call back; None if the format has none."""

    @abstractmethod
    def write_batch(self, answers: Sequence[bytes]) -> bytes:
        """Return the message that holds the answers to a batch."""
