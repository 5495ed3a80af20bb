"""Which delivery the running task works for, so that what it sends can continue it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._broker import Delivery

CURRENT: Final[ContextVar[Delivery | None]] = ContextVar("kernel.current_delivery", default=None)
"""Set by the pipeline around a handler. Each delivery has a context of its own, so nothing has to be set back."""


def current_delivery() -> Delivery | None:
    """Return the delivery whose handler runs in this task, or in the task that this one was started from.

    None outside of handlers: in a worker's `run`, or in a handler of batches, which has many deliveries.
    """
    return CURRENT.get()
