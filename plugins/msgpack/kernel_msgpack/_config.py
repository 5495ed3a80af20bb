"""The tables of protocols with `plugin = "msgpack"` and `plugin = "service_framework"`."""

from __future__ import annotations

from typing import Final, final

import attrs

MIB: Final = 1024 * 1024


@final
@attrs.frozen(kw_only=True)
class MsgpackConfig:
    """What bodies may be, in both directions."""

    max_bytes: int = attrs.field(default=16 * MIB, validator=attrs.validators.ge(1))
    """Bytes of a body."""
    max_depth: int = attrs.field(
        default=64, validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.le(500))
    )
    """How many arrays and maps may lie within each other."""
