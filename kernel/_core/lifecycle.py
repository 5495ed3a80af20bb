"""The states of a component and the one table of allowed moves.

Every change of state in the kernel goes through `moved`; an illegal one raises and changes nothing.
"""

from __future__ import annotations

import enum
from typing import Final


class State(enum.Enum):
    """Where a component is in its life. Source of the words: OpenTelemetry component status, systemd."""

    CREATED = "created"
    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    """Works, but says that it works badly; may become ready again."""
    DRAINING = "draining"
    """Takes nothing new; what is in flight may finish."""
    STOPPING = "stopping"
    BACKOFF = "backoff"
    """Down, and waiting to be started again."""
    STOPPED = "stopped"
    FAILED = "failed"


class SwitchState(enum.Enum):
    """What the kill switch of a worker does with calls."""

    CLOSED = "closed"
    """They are made."""
    OPEN = "open"
    """They wait: too many have failed."""
    HALF_OPEN = "half_open"
    """One is made, to see whether the worker works again; the others wait."""


_MAX_STATUS: Final = 255


def exit_status(returned: object) -> int:
    """Return the exit status that a function's result is: the number if it is one, else 0.

    Raises:
        ValueError: if the number is none that a process can end with: its lowest 8 bits may be 0, which is success.
    """
    if not isinstance(returned, int) or isinstance(returned, bool):
        return 0
    if not 0 <= returned <= _MAX_STATUS:
        raise ValueError(f"returned {returned}, and an exit status is 0 to {_MAX_STATUS}")
    return returned


ALIVE: Final = frozenset({State.STARTING, State.READY, State.DEGRADED, State.DRAINING, State.STOPPING})
"""The component holds resources."""
USABLE: Final = frozenset({State.READY, State.DEGRADED})
"""The component may be used by others."""
FINAL: Final = frozenset({State.STOPPED, State.FAILED})
"""The component will not start again."""

_DOWN: Final = frozenset({State.BACKOFF, State.STOPPED, State.FAILED})
TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.CREATED: frozenset({State.STARTING, State.STOPPED, State.FAILED}),
    State.STARTING: frozenset({State.READY, State.STOPPING}) | _DOWN,
    State.READY: frozenset({State.DEGRADED, State.DRAINING, State.STOPPING}) | _DOWN,
    State.DEGRADED: frozenset({State.READY, State.DRAINING, State.STOPPING}) | _DOWN,
    State.DRAINING: frozenset({State.STOPPING}) | _DOWN,
    State.STOPPING: _DOWN,
    State.BACKOFF: frozenset({State.STARTING, State.STOPPED, State.FAILED}),
    State.STOPPED: frozenset(),
    State.FAILED: frozenset(),
}


def moved(old: State, new: State) -> State:
    """Return `new` if a component may go there from `old`.

    Raises:
        ValueError: if the table does not allow the move.
    """
    if new not in TRANSITIONS[old]:
        raise ValueError(f"a component cannot go from {old.value} to {new.value}")
    return new
