"""The base of all events, apart from the kernel's own: plugins define theirs without loading those."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Event:
    """The base of all events. Plugins may define their own."""

    component: str
    """`kind/name`, or `kernel` for the service as a whole."""


@attrs.frozen(kw_only=True)
class Passage(Event):
    """The base of events that are told around each single thing that a service does, in its task and context.

    Who hears all events does not hear these: they have to be named, and are made only where somebody does.
    """
