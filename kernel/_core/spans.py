"""Events that come in pairs, in the task and the context in which something happens: what traces and scopes hang on.

A hook of the first of a pair may set context variables: what happens between the two sees them. It may return a
function, which is called with the second. None is made where nobody hears it or asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, final

import attrs

from .broker import CURRENT
from .event import Event, Passage, frozen

if TYPE_CHECKING:
    from .broker import Delivery

NOTHING: Final[Mapping[str, object]] = {}
"""What is taken along where nobody has said anything."""
_carried: Final[ContextVar[Mapping[str, object]]] = ContextVar("kernel.carried", default=NOTHING)


put_along: Final = _carried.set
"""As `carry`, for who knows what was taken along before."""


class HasAlong(Protocol):
    """An attempt that is about to be made."""

    along: Mapping[str, object]


def carry(headers: Mapping[str, object]) -> Mapping[str, object]:
    """Have what is sent from this context from now on take headers along, such as `traceparent`.

    Returns:
        What was taken along before, to be put back.
    """
    before = carried()
    _carried.set(headers)
    return before


def carried() -> Mapping[str, object]:
    """Return the headers that what is sent from this context takes along."""
    headers = _carried.get()
    if headers is NOTHING and (handled := CURRENT.get()) is not None:
        return handled.along
    return headers


def carry_in(handled: HasAlong, headers: Mapping[str, object]) -> None:
    """Have what is sent from a handler that is called next take headers along.

    It is noted where that is handled: to set a context variable costs as much as to decode many a message.
    """
    if _carried.get() is NOTHING:
        handled.along = headers
    else:
        _carried.set(headers)


@final
@frozen(kw_only=True)
class HandlerCalled(Passage):
    """A handler is called next. The component is the worker."""

    method: str
    """Name of the method; empty if the worker is a function."""
    deliveries: Sequence[Delivery] = attrs.field(repr=False)
    """What it is called with: one, or those of a batch."""


@final
@frozen(kw_only=True)
class HandlerDone(Passage):
    """A handler that was called has returned, raised or was cancelled. The component is the worker."""

    method: str
    deliveries: Sequence[Delivery] = attrs.field(repr=False)
    error: BaseException | None
    """What came out of it: `trio.Cancelled` if it was cut; None if it returned."""
    seconds: float


@final
@frozen(kw_only=True)
class Sending(Passage):
    """A message is sent next. The component is the driver that sends it."""

    subject: str
    exchange: str
    """Empty for one that goes straight to the queue that its subject names."""
    is_call: bool
    """Whether an answer is awaited."""


@final
@frozen(kw_only=True)
class Sent(Passage):
    """What was about to be sent has been confirmed, or answered if it was a call; or it has failed."""

    subject: str
    exchange: str
    is_call: bool
    error: BaseException | None
    """None if all went well; `trio.Cancelled` if who sent it was cancelled."""


@final
@frozen(kw_only=True)
class RequestBegan(Passage):
    """The application that a request, or a websocket, is for is called next. The component is the dispatcher."""

    worker: str
    """`worker/name`."""
    method: str
    """`websocket` for one."""
    path: str
    """As it was sent, without its query."""
    headers: Sequence[tuple[bytes, bytes]] = attrs.field(repr=False)
    """As they were sent, names in lower case."""
    request: object = attrs.field(repr=False)
    """Stands for the request: the same object as in its `RequestDone`."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class RequestFailed(Passage):
    """The application that a request, or a websocket, was for has raised. `RequestDone` follows."""

    worker: str
    """`worker/name`."""
    method: str
    """`websocket` for one."""
    path: str
    """As it was sent, without its query."""
    error: BaseException
    request: object = attrs.field(repr=False)
    """Stands for the request: the same object as in its `RequestBegan` and `RequestDone`."""


@frozen(kw_only=True)
class RequestDone(Event):
    """A request, or a websocket, has ended, whether an application was called or not. The component is the dispatcher."""

    worker: str
    """`worker/name`; empty if no worker was asked."""
    method: str
    """`websocket` for one; `-` if it could not be read, as the next two."""
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
    """What the client, or a proxy, called it in `X-Request-ID`, or a new one if that is not 1 to 128 characters of
    `0-9A-Za-z._:/+=-`."""
    request: object = attrs.field(default=None, repr=False, eq=False)
    """Stands for the request: the same object as in its `RequestBegan`."""


RequestFigures: TypeAlias = tuple[str, str, int, float, int, int]
"""What is counted of a request, as `RequestDone` has it: worker, method, status, seconds, bytes received and sent."""


@final
@frozen(kw_only=True)
class RequestCounted(RequestDone):
    """A `RequestDone` of which `RequestsDone` tells, too: who counts by that leaves it out."""


@final
@frozen(kw_only=True)
class RequestsDone(Passage):
    """Requests of a dispatcher that have ended, for who does no more than count them.

    Many are told of together, a quarter of a second late at most, and at once if somebody asks with `CountsAsked`. It is
    a passage, since it comes besides what is told of each: it has to be named.
    """

    requests: Sequence[RequestFigures] = attrs.field(repr=False)


@final
@frozen(kw_only=True)
class CountsAsked(Passage):
    """Somebody is about to say how often what has happened: who has gathered such tells of it now."""
