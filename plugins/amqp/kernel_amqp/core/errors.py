"""What the core raises, and how what the peer does wrong travels inside it.

CoreError
├── LocalError          a method was called in a state that does not allow it
└── EncodingError       a value has no place on the wire

ViolationError          the peer broke the protocol; never leaves the core: it becomes the event `Closed`
└── TooDeepError        a table nests deeper than the bound
"""

from __future__ import annotations

from typing import Final, final

FRAME_ERROR: Final = 501
SYNTAX_ERROR: Final = 502
COMMAND_INVALID: Final = 503
CHANNEL_ERROR: Final = 504
UNEXPECTED_FRAME: Final = 505
NOT_IMPLEMENTED: Final = 540


class CoreError(Exception):
    """Something that was asked of the core cannot be done; nothing was queued."""


@final
class LocalError(CoreError):
    """A method was called in a state that does not allow it: the connection or channel is not open."""


@final
class EncodingError(CoreError, ValueError):
    """A value has no place on the wire: too long, too deep, out of range, or of a type that AMQP does not have."""


class ViolationError(Exception):
    """The peer broke the protocol.

    Args:
        code: Reply code of AMQP 0-9-1 that the peer is told.
        text: What it did.
    """

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text
        super().__init__(text)


@final
class TooDeepError(ViolationError):
    """A table nests deeper than the bound."""
