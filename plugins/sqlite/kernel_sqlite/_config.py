"""What the manifest says about the driver and about its queues."""

from __future__ import annotations

from typing import Final, final

import attrs

_POSITIVE: Final = attrs.validators.gt(0.0)


@final
@attrs.frozen(kw_only=True)
class SqliteConfig:
    """The table of a driver `sqlite`."""

    path: str = attrs.field(validator=attrs.validators.min_len(1))
    """The file; made if there is none. Relative to the manifest's folder."""
    synchronous: str = attrs.field(default="full", validator=attrs.validators.in_(("full", "normal")))
    """`full`: what was confirmed survives a power loss. `normal`: a power loss may take the last of it; much faster."""
    lease: float = attrs.field(default=30.0, validator=_POSITIVE)
    """Seconds after which the deliveries of a process that does not run any more go to others."""
    poll_interval: float = attrs.field(default=0.05, validator=_POSITIVE)
    """Seconds between two looks for what other processes sent, while a consumer has nothing to do."""
    busy_timeout: float = attrs.field(default=5.0, validator=_POSITIVE)
    """Seconds to wait while another process writes."""
    transaction_timeout: float = attrs.field(default=10.0, validator=_POSITIVE)
    """Seconds that a worker's transaction may take: nobody else writes meanwhile. At most half of `lease`."""
    max_length: int = attrs.field(default=1_000_000, validator=attrs.validators.ge(1))
    """Messages in a queue that names no bound of its own."""
    unconsumed_after: float = attrs.field(default=86_400.0, validator=attrs.validators.ge(0.0))
    """Seconds after which a queue that is bound and that nobody consumes is told of; 0 never tells."""
    once_retention: float = attrs.field(default=604_800.0, validator=_POSITIVE)
    """Seconds for which `Transaction.once` remembers an id."""
