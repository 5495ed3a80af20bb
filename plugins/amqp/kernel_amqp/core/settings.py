"""What one connection asks of the broker, and the bounds it holds the broker to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import attrs
from attrs import validators

FRAME_MIN: Final = 4096
"""A peer takes frames of this size in any case. Source: AMQP 0-9-1, 4.2.3 and constant frame-min-size."""
_LONGEST_NAME: Final = 255


def _no_properties() -> Mapping[str, object]:
    return {}


@final
@attrs.frozen(kw_only=True)
class Settings:
    """What one connection asks of the broker, and the bounds it holds the broker to."""

    virtual_host: str = attrs.field(default="/", validator=validators.max_len(_LONGEST_NAME))
    mechanism: str = attrs.field(default="PLAIN", validator=validators.in_(("PLAIN", "EXTERNAL")))
    response: str = attrs.field(default="", repr=False)
    """What the mechanism sends: for PLAIN a zero byte, the user, a zero byte, the password. A secret."""
    heartbeat: float = attrs.field(default=10.0, validator=[validators.ge(0), validators.le(65535)])
    """Seconds; 0 asks for none. The wire has whole seconds: a fraction is cut off, and it is at least 1."""
    frame_max: int = attrs.field(default=131072, validator=[validators.ge(FRAME_MIN), validators.lt(1 << 31)])
    """Bytes of the largest frame, its header and end included."""
    channel_max: int = attrs.field(default=2047, validator=[validators.ge(1), validators.le(65535)])
    max_message_bytes: int = attrs.field(default=16 * 1024 * 1024, validator=validators.ge(0))
    """A message with a larger body is skipped, and is an event `TooLarge`."""
    properties: Mapping[str, object] = attrs.field(factory=_no_properties, repr=False)
    """What the client tells about itself; `capabilities` are set by the core."""
