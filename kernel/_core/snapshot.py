"""What a running service looks like at one moment, as frozen values: for probes, metrics and whoever looks in."""

from __future__ import annotations

from typing import final

import attrs

from .fields import ByFields
from .lifecycle import State


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Usage(ByFields):
    """How the connections, or the places, of a driver are used at one moment."""

    used: int
    idle: int = 0
    """Open, and used by nobody."""
    waiting: int = 0
    """Tasks that wait for one."""
    limit: int | None = None
    """How many there may be; None if only those who use them bound them."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Backlog(ByFields):
    """The messages that a component has to pass on and has not yet, such as those of an outbox."""

    waiting: int
    failed: int = 0
    """Of these, how many were tried, and not taken."""
    oldest: float = 0.0
    """Seconds that the oldest has waited."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class ComponentSnapshot(ByFields):
    """One component at one moment."""

    id: str
    """`kind/name`; of a worker with `instances`, each is a component: `worker/name[1]` and so on."""
    state: State
    reason: str = ""
    """Why it is in that state, where there is more to say than the state does."""
    seconds: float = 0.0
    """How long it has been in that state."""
    essential: bool = True
    restarts: int = 0
    """How often it was started again."""
    error: str = ""
    """What its last life that failed ended in, in a line; empty if none did."""
    waits_for: tuple[str, ...] = ()
    """Ids of what must be up before it starts or, while the service stops, must be down before it closes."""
    in_flight: int | None = None
    """How many deliveries and requests it has taken and not settled; None if it is no dispatcher that is open."""
    slots: int | None = None
    """How many there may be: its `concurrency`."""
    taken: int | None = None
    """How many it has taken since it was opened; None where `in_flight` is."""
    usage: Usage | None = None
    """How its connections are used, if it reports that and is up."""
    backlog: Backlog | None = None
    """What it has to pass on, if it reports that, is up and knows it."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Snapshot(ByFields):
    """A service at one moment. Secrets in reasons and errors are masked. Times are seconds."""

    service: str
    """`[kernel] name`."""
    is_ready: bool = False
    """Whether it may receive work: every essential component is ready, nobody asked it to stop, and the event loop is
    not blocked."""
    is_stopping: bool = False
    reason: str = ""
    """Why it stops; empty if it does not."""
    seconds: float = 0.0
    """Since it began to start."""
    stopping_for: float = 0.0
    """Since it was asked to stop; 0 if it was not."""
    busy: float = 0.0
    """How long the event loop has been busy with one turn; 0 while it waits for something to happen."""
    blocked_at: str = ""
    """`file:line` of what keeps the event loop from going on, once it has done so for half a second."""
    components: tuple[ComponentSnapshot, ...] = ()
    """In start order."""
    stop_budget: float = 0.0
    """The longest that a stop can take, by what the manifest declares."""
    grace_period: float = 0.0
    """What a stop may take."""
    drain_timeout: float = 0.0
    """What a drain may take."""
