"""The base of all events, apart from the kernel's own: plugins define theirs without loading those."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs

from .fields import ByFields

if TYPE_CHECKING:
    from attrs import frozen as frozen
else:
    frozen = partial(attrs.define, eq=False, repr=False)
    """For events that are made of every message: frozen for type checkers alone, as an envelope is, since to set the
    fields of a class that refuses to be changed takes as long as to handle many a message."""


@frozen(kw_only=True)
class Event(ByFields):
    """The base of all events. Plugins may define their own."""

    component: str
    """`kind/name`, or `kernel` for the service as a whole."""


@frozen(kw_only=True)
class Passage(Event):
    """The base of events that are told around each single thing that a service does, in its task and context.

    Who hears all events does not hear these: they have to be named, and are made only where somebody does.
    """
