"""The table of a protocol with `plugin = "bpm"`."""

from __future__ import annotations

from typing import Final, final

import attrs

_MIB: Final = 1024 * 1024


@final
@attrs.frozen(kw_only=True)
class BpmConfig:
    """Who writes, and what bodies may be, in both directions."""

    system: str = ""
    """What is written as `system_from`; empty is the name of the service."""
    system_to: str = ""
    """What is written as `system_to` where a message does not say."""
    max_bytes: int = attrs.field(default=16 * _MIB, validator=attrs.validators.ge(1))
    """Bytes of a body."""
    max_depth: int = attrs.field(
        default=64, validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.le(500))
    )
    """How many arrays and objects may lie within each other, the body itself counted."""
