"""What whoever sends a message does around that: what it inherits, and who is told."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from .broker import current_delivery
from .spans import Sending, Sent, carried

if TYPE_CHECKING:
    from collections.abc import Generator

    from .components import Context, Protocol

_QUIET: Final = nullcontext()


def continued(protocol: Protocol, headers: Mapping[str, object]) -> Mapping[str, object]:
    """Return the caller's headers, over those that the protocol continues from the current delivery, if there is one.

    Between the two are those that whoever traces has everything take along.
    """
    delivery = current_delivery()
    inherited = protocol.continued(delivery.envelope) if delivery is not None else None
    along = carried()
    return {**(inherited or {}), **along, **headers} if inherited or along else headers


def telling(context: Context, subject: str, *, exchange: str = "", is_call: bool) -> AbstractContextManager[None]:
    """Send what is inside, and tell those who want to know before and after: `Sending` and `Sent`."""
    return _told(context, subject, exchange, is_call) if context.hears(Sending) or context.hears(Sent) else _QUIET


@contextmanager
def _told(context: Context, subject: str, exchange: str, is_call: bool) -> Generator[None]:  # noqa: FBT001
    context.emit(Sending(component=context.id, subject=subject, exchange=exchange, is_call=is_call))
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        context.emit(Sent(component=context.id, subject=subject, exchange=exchange, is_call=is_call, error=error))
