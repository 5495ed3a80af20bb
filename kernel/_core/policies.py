"""What the manifest may ask of deliveries on their way to a worker, and when what failed is tried or started again."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, final

import attrs
from attrs.validators import and_, ge, gt, le, min_len

from ..errors import MAX_DELAY
from .fields import ByFields

if TYPE_CHECKING:
    from collections.abc import Callable


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


class Restart(enum.Enum):
    """When a component that ended is started again.

    Source: OTP supervisor(3), `permanent`, `transient`, `temporary`, in systemd's words.
    """

    ALWAYS = "always"
    ON_FAILURE = "on_failure"
    NEVER = "never"


class Ending(enum.Enum):
    """How one life of a component ended."""

    RETURNED = "returned"
    RAISED = "raised"
    NOT_READY = "not ready in time"
    REFUSED = "refused"
    """It raised `StartupError`: its configuration is wrong."""
    RECALLED = "recalled"
    """The supervisor stopped it, so that it may start again with what it depends on."""
    RETIRED = "retired"
    """The supervisor stopped it for good."""


class Verdict(enum.Enum):
    """What follows from an ending."""

    RESTART = "restart"
    RESUME = "resume"
    """Start again as soon as possible; not counted as a restart."""
    STOP = "stop"
    FAIL = "fail"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Backoff(ByFields):
    """How waits grow from one try to the next."""

    backoff_initial: float = attrs.field(default=1.0, validator=ge(0))
    """Seconds before the second try."""
    backoff_factor: float = attrs.field(default=2.0, validator=ge(1))
    backoff_max: float = attrs.field(default=60.0, validator=and_(ge(0.0), le(MAX_DELAY)))
    """Seconds; no wait is longer."""
    jitter: float = attrs.field(default=0.1, validator=and_(ge(0), le(1)))
    """The fraction of a wait that chance may take off it, so that many do not try again at once. 0 to 1."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class RetryPolicy(Backoff):
    """The `retry` table of a worker: what happens to a delivery whose handler raised."""

    attempts: int = attrs.field(default=3, validator=ge(1))
    """Attempts in all; then the delivery is dead-lettered."""
    on: tuple[type[Exception], ...] = (Exception,)
    """Exceptions that are worth another attempt; in the manifest as import paths (`httpx:TransportError`) or names
    of builtins. All others dead-letter at once."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class RestartPolicy(Backoff):
    """The `restart` table of a component or group in the manifest."""

    policy: Restart = Restart.ALWAYS
    max_restarts: int = attrs.field(default=12, validator=ge(0))
    """Restarts in a row; one more is a failure for good. With the other defaults they take about three minutes."""
    window: float = attrs.field(default=30.0, validator=gt(0))
    """Seconds to be ready after which a row is over, so that restarts and their waits are counted anew."""
    backoff_initial: float = attrs.field(default=0.2, validator=ge(0))
    """Seconds before the first restart."""
    backoff_max: float = attrs.field(default=30.0, validator=ge(0))
    """Seconds; no wait is longer."""


_VERDICTS = {
    Restart.ALWAYS: {Ending.RETURNED: Verdict.RESTART},
    Restart.ON_FAILURE: {Ending.RETURNED: Verdict.STOP},
    Restart.NEVER: {
        Ending.RETURNED: Verdict.STOP,
        Ending.RAISED: Verdict.FAIL,
        Ending.NOT_READY: Verdict.FAIL,
    },
}
_SAME_FOR_ALL = {
    Ending.RAISED: Verdict.RESTART,
    Ending.NOT_READY: Verdict.RESTART,
    Ending.REFUSED: Verdict.FAIL,
    Ending.RECALLED: Verdict.RESUME,
    Ending.RETIRED: Verdict.STOP,
}


def verdict(policy: Restart, ending: Ending) -> Verdict:
    """Return what follows when a component with this policy ended so."""
    return _VERDICTS[policy].get(ending) or _SAME_FOR_ALL[ending]


def backoff(policy: Backoff, attempt: int, chance: float) -> float:
    """Return the seconds to wait after try number `attempt` (from 1) has failed.

    Args:
        policy: How waits grow.
        attempt: How many tries failed one after the other: attempts of a delivery, or lives since the last healthy
            interval.
        chance: A random number from 0 to 1.
    """
    return min(_grown(policy, attempt), policy.backoff_max) * (1 - policy.jitter * chance)


def _grown(policy: Backoff, attempt: int) -> float:
    if policy.backoff_initial == 0:  # times infinity it would not be a number
        return 0.0
    try:
        return policy.backoff_initial * policy.backoff_factor ** (attempt - 1)
    except OverflowError:
        return math.inf


@final
@attrs.define(eq=False, repr=False)
class RestartHistory:
    """The restarts of one component (or group) since it was last ready for `window` seconds."""

    policy: RestartPolicy
    chance: Callable[[], float]
    """Returns a random number from 0 to 1."""
    _row: int = attrs.field(default=0, init=False)

    def forget(self) -> None:
        """Begin a new row."""
        self._row = 0

    def next_wait(self, *, healthy_for: float) -> float | None:
        """Record a restart and return the seconds to wait for it, or None if it is one too many.

        Args:
            healthy_for: Seconds the component (or each of the group) was ready before this end.
        """
        if healthy_for >= self.policy.window:
            self._row = 0
        if self._row >= self.policy.max_restarts:
            return None
        self._row += 1
        return backoff(self.policy, self._row, self.chance())


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class LogFilePolicy(ByFields):
    """`[logging.file]`: a file that the log goes to in place of standard error."""

    path: str = attrs.field(validator=min_len(1))
    """Of the file; a relative one begins at the manifest's folder."""
    rotate: Literal["hourly", "daily", "never"] = "hourly"
    """When it is put aside and begun anew, by the clock of UTC."""
    max_bytes: int = attrs.field(default=0, validator=ge(0))
    """Size at which it is put aside as well; 0 is none."""
    keep: int = attrs.field(default=24, validator=and_(ge(0), le(10_000)))
    """How many of those put aside are kept."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class LogPolicy(ByFields):
    """`[logging]`: what is logged, and how; the command line may say otherwise."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """For the service and the kernel. Libraries are logged from `warning` on."""
    levels: Mapping[str, Literal["debug", "info", "warning", "error"]] = attrs.field(factory=dict[str, Any])
    """Name of a logger or component -> its level, and that of loggers below it."""
    format: Literal["text", "json"] = "text"
    file: LogFilePolicy | None = None
    """None is standard error."""
