"""What whoever sends a message does around that: what it inherits, and who is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Final, final

import attrs

from .broker import current_delivery
from .event import Event
from .spans import NOTHING, Sending, Sent, carried, carry, put_along

if TYPE_CHECKING:
    from .components import Protocol
    from .context import Context

_QUIET: Final = nullcontext()


def continued(
    protocol: Protocol, headers: Mapping[str, object], along: Mapping[str, object] | None = None
) -> Mapping[str, object]:
    """Return the caller's headers, over those that the protocol continues from the current delivery, if there is one.

    Between the two are those that whoever traces has everything take along that is sent here.

    Args:
        protocol: What writes the message.
        headers: The caller's.
        along: What this message alone takes along, as `untold` says; None asks for what everything does.
    """
    delivery = current_delivery()
    inherited = protocol.continued(delivery.envelope) if delivery is not None else None
    if along is None:
        along = carried()
    if not (inherited or along):
        return headers
    return {**(inherited or {}), **along, **headers} if inherited or headers else along  # nothing to put together


def untold(context: Context) -> Mapping[str, object] | None:
    """Return what a message takes along, for `continued`, if nobody wants to be told that it is sent, as of nearly all.

    None if somebody does: then it is to be sent within `telling`, with `is_asked`.
    """
    before = carried()
    passed = context.passes_by(Sending, Sent, before)
    if passed is True:
        return before
    return None if passed is False else passed


def telling(
    context: Context, subject: str, *, exchange: str = "", is_call: bool, is_asked: bool = False
) -> AbstractContextManager[None]:
    """Send what is inside, and tell those who want to know before and after: `Sending` and `Sent`.

    What a hook of the first has it take along is for this one alone. To be entered at once.

    Args:
        context: Of the component that sends.
        subject: Of the message.
        exchange: Where it is sent to.
        is_call: Whether an answer is waited for.
        is_asked: Whether `untold` has said that somebody wants to be told.
    """
    if is_asked:
        return _Told(context, subject, exchange, is_call, carried())
    before = carried()
    along = untold(context)
    if along is None:
        return _Told(context, subject, exchange, is_call, before)
    if along is before:
        return _QUIET
    put_along(along)
    return _TAKEN_BACK if before is NOTHING else _TakenBack(before)


@final
@attrs.define(eq=False, repr=False)
class _TakenBack(AbstractContextManager[None]):
    """A message on its way of which nobody is told; what it takes along is for it alone."""

    _before: Mapping[str, object]

    def __enter__(self) -> None:
        """Send."""

    def __exit__(self, *_: object) -> None:
        put_along(self._before)


_TAKEN_BACK: Final = _TakenBack(NOTHING)
"""That of nearly all: to make one costs as much as to enter it."""


@final
@attrs.define(eq=False, repr=False)
class _Told(AbstractContextManager[None]):
    """One message on its way. A class, since a generator takes as long as all that is told."""

    _context: Context
    _subject: str
    _exchange: str
    _is_call: bool
    _before: Mapping[str, object]
    _end: Callable[[Event], None] | None = attrs.field(init=False)

    def __enter__(self) -> None:
        context = self._context
        self._end = context.begin(
            Sending(component=context.id, subject=self._subject, exchange=self._exchange, is_call=self._is_call)
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._end is not None or self._context.hears(Sent):
            self._tell(error)
        carry(self._before)

    def _tell(self, error: BaseException | None) -> None:
        context = self._context
        sent = Sent(
            component=context.id, subject=self._subject, exchange=self._exchange, is_call=self._is_call, error=error
        )
        if self._end is not None:
            self._end(sent)
        context.emit(sent)
