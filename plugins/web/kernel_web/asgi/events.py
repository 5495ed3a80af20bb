"""What a dispatcher tells besides the kernel's own events."""

from __future__ import annotations

from typing import final

import attrs

from kernel import Event


@final
@attrs.frozen(kw_only=True)
class SlotsTaken(Event):
    """Every slot of the dispatcher is taken, so that requests wait. Told once, until they no longer have to."""

    slots: int
    """How many there are: `concurrency`."""


@final
@attrs.frozen(kw_only=True)
class ThreadsTaken(Event):
    """Every thread for functions that block is taken, so that sync endpoints wait. Told once, until some are free."""

    threads: int
    """How many there are, for all components of the process: the tokens of trio's default limiter."""


@final
@attrs.frozen(kw_only=True)
class RequestDone(Event):
    """A request, or a websocket, has ended. Made only where somebody hears it, or there is an access log."""

    worker: str
    """`worker/name`; empty if no worker was asked."""
    method: str
    """`websocket` for one."""
    path: str
    """As it was sent, without its query, which may hold what is secret."""
    version: str
    """Of HTTP."""
    status: int
    """What the client got; 0 if it left, or was cut off, before it got any."""
    seconds: float
    """From the end of the head to the end of the answer."""
    received: int
    """Bytes of body."""
    sent: int
    """Bytes of body."""
    client: str
    """Its address; empty over a unix socket."""
    request_id: str
    """What the client, or a proxy, called it in `X-Request-ID`, or a new one."""
