"""The states of a connection and of a channel, and the tables of their allowed moves.

Each has two tables: what the peer may send in a state, and what may be asked of us in it, each with the state after it.
What is in no table is a violation if the peer does it, and a `LocalError` if we are asked; both change nothing.
While something closes, whatever else the peer had under way is discarded: it could not know yet.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, TypeVar

from .errors import COMMAND_INVALID, LocalError, ViolationError


class ConnectionState(enum.Enum):
    """Where a connection is in its life."""

    IDLE = "idle"
    """Nothing was sent."""
    STARTING = "starting"
    """The protocol header was sent; the peer introduces itself."""
    TUNING = "tuning"
    """The credentials were sent; the peer names its limits, or refuses."""
    OPENING = "opening"
    """The limits and the virtual host were sent; the peer lets us in, or refuses."""
    OPEN = "open"
    CLOSING = "closing"
    """We have asked to close."""
    CLOSED = "closed"


class ChannelState(enum.Enum):
    """Where a channel is in its life."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    """We have asked to close."""
    CROSSED = "crossed"
    """Both have asked to close: we have answered, the broker has not."""
    CLOSED = "closed"


_State = TypeVar("_State", ConnectionState, ChannelState)
Table = Mapping[_State, Mapping[str, _State]]

_C: Final = ConnectionState
CONNECTION_RECEIVES: Final[Table[ConnectionState]] = {
    _C.IDLE: {},
    _C.STARTING: {"Connection.Start": _C.TUNING, "Connection.Close": _C.CLOSED},
    _C.TUNING: {"Connection.Tune": _C.OPENING, "Connection.Close": _C.CLOSED},
    _C.OPENING: {"Connection.OpenOk": _C.OPEN, "Connection.Close": _C.CLOSED},
    _C.OPEN: {
        "Connection.Blocked": _C.OPEN,
        "Connection.Unblocked": _C.OPEN,
        "Connection.Close": _C.CLOSED,
    },
    _C.CLOSING: {"Connection.CloseOk": _C.CLOSED, "Connection.Close": _C.CLOSED},
    _C.CLOSED: {},
}
CONNECTION_ASKED: Final[Table[ConnectionState]] = {
    _C.IDLE: {"start": _C.STARTING, "close": _C.CLOSED},
    _C.STARTING: {"close": _C.CLOSED},
    _C.TUNING: {"close": _C.CLOSING},
    _C.OPENING: {"close": _C.CLOSING},
    _C.OPEN: {"open_channel": _C.OPEN, "close": _C.CLOSING},
    _C.CLOSING: {"close": _C.CLOSING},
    _C.CLOSED: {"close": _C.CLOSED},
}

_H: Final = ChannelState
CHANNEL_RECEIVES: Final[Table[ChannelState]] = {
    _H.OPENING: {"Channel.OpenOk": _H.OPEN, "Channel.Close": _H.CLOSED},
    _H.OPEN: {
        "Channel.Close": _H.CLOSED,
        "Basic.Cancel": _H.OPEN,
        "Basic.Return": _H.OPEN,
        "Basic.Deliver": _H.OPEN,
        "Basic.Ack": _H.OPEN,
        "Basic.Nack": _H.OPEN,
        "reply": _H.OPEN,
    },
    _H.CLOSING: {"Channel.CloseOk": _H.CLOSED, "Channel.Close": _H.CROSSED},
    _H.CROSSED: {"Channel.CloseOk": _H.CLOSED},
    _H.CLOSED: {},
}
CHANNEL_ASKED: Final[Table[ChannelState]] = {
    _H.OPENING: {"close": _H.CLOSING},
    _H.OPEN: {"call": _H.OPEN, "publish": _H.OPEN, "ack": _H.OPEN, "nack": _H.OPEN, "close": _H.CLOSING},
    _H.CLOSING: {},
    _H.CROSSED: {},
    _H.CLOSED: {},
}
DISCARDING: Final = frozenset({_C.CLOSING, _H.CLOSING, _H.CROSSED})
"""The states in which whatever else the peer sends is discarded."""


def received(table: Table[_State], state: _State, name: str) -> _State:
    """Return the state after the peer sent `name`.

    Raises:
        ViolationError: if it may not in this state.
    """
    after = table[state].get(name)
    if after is None:
        raise ViolationError(COMMAND_INVALID, f"the peer sent {name} in state {state.value}")
    return after


def asked(table: Table[_State], state: _State, name: str, what: str) -> _State:
    """Return the state after we were asked for `name`.

    Raises:
        LocalError: if it cannot be asked in this state.
    """
    after = table[state].get(name)
    if after is None:
        raise LocalError(f"{what} is {state.value}: it does not take {name}")
    return after
