"""The base of all events, apart from the kernel's own: plugins define theirs without loading those."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Event:
    """The base of all events. Plugins may define their own."""

    component: str
    """`kind/name`, or `kernel` for the service as a whole."""
