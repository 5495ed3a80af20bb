"""What the manifest may ask of deliveries on their way to a worker; each table is off unless it is there."""

from __future__ import annotations

from typing import Any, Final, final

import attrs
from attrs.validators import and_, ge, gt, le

_DAY: Final = 86_400.0
_MANY: Final = 1_000_000


def _above_zero(limit: float) -> Any:  # noqa: ANN401  attrs has no name for the type of a validator
    return and_(gt(0.0), le(limit))


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class RatePolicy:
    """The `rate` table of a dispatcher: how many deliveries may be started."""

    messages: int = attrs.field(validator=and_(ge(1), le(_MANY)))
    """At once, after a quiet time; and in each `per` seconds, in the long run."""
    per: float = attrs.field(default=1.0, validator=_above_zero(_DAY))
    """Seconds."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class BatchPolicy:
    """The `batch` table of a dispatcher: how deliveries are collected for one call of a handler."""

    size: int = attrs.field(validator=and_(ge(1), le(10_000)))
    """Deliveries in a batch, at most."""
    wait: float = attrs.field(default=1.0, validator=and_(ge(0.0), le(_DAY)))
    """Seconds from the first of a batch after which it is handled though it is not full."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class KillSwitchPolicy:
    """The `kill_switch` table of a worker: when it is given no deliveries for a while."""

    failure_rate: float = attrs.field(default=0.5, validator=_above_zero(1.0))
    """The share of failed calls in `window` at which it is paused."""
    minimum: int = attrs.field(default=20, validator=and_(ge(1), le(_MANY)))
    """Calls in `window`, below which it is not paused."""
    window: float = attrs.field(default=60.0, validator=_above_zero(_DAY))
    """Seconds."""
    pause: float = attrs.field(default=30.0, validator=_above_zero(_DAY))
    """Seconds until one call tries whether it works again."""
