"""The table of a dispatcher with `plugin = "timer"`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Final, Literal, TypeAlias, final

import attrs

from kernel.abc import ByFields

Missed: TypeAlias = Literal["skip", "once", "all"]

_UTC: Final = "UTC"


MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
"""Source: Debian crontab(5), without `@reboot`."""
_SAMPLES: Final = 500
"""Moments that are looked at to find the shortest distance between two."""


def _spelt_out(value: str) -> str:
    return MACROS.get(value, value)


def _interval(_: object, __: attrs.Attribute[float | None], value: float | None) -> None:
    if value is not None and not 0 < value < math.inf:
        raise ValueError(f"interval must be above 0 and finite, not {value}")


def _jitter(_: object, __: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"jitter must be 0 or more and finite, not {value}")


def _cron(_: object, __: attrs.Attribute[str | None], value: str | None) -> None:
    if value is None:
        return
    from cronsim import CronSim, CronSimError  # noqa: PLC0415  only timers that use cron load it

    if value.startswith("@"):
        raise ValueError(f"cron {value!r} is none of {', '.join(MACROS)}")
    if len(value.split()) not in {5, 6}:
        raise ValueError(
            f"cron {value!r} must have five fields, minute hour day-of-month month day-of-week, or six: second first"
        )
    try:
        next(CronSim(value, datetime.now(UTC)))
    except CronSimError as error:
        raise ValueError(f"cron {value!r}: {str(error).lower()}") from error
    except StopIteration as error:
        raise ValueError(f"cron {value!r} never comes: no such date in the next 50 years") from error


def _zone(_: object, __: attrs.Attribute[str], value: str) -> None:
    if value == _UTC:
        return
    from zoneinfo import ZoneInfo  # noqa: PLC0415  as above

    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"zone {value!r} is not a time zone; give one such as Europe/Berlin") from error


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class TimerConfig(ByFields):
    """When a timer ticks. Exactly one of `interval` and `cron` is given."""

    interval: float | None = attrs.field(default=None, validator=_interval)
    """Seconds from one scheduled tick to the next."""
    cron: str | None = attrs.field(default=None, converter=attrs.converters.optional(_spelt_out), validator=_cron)
    """Five fields: minute, hour, day of month, month, day of week, or six with the second first; or `@daily` and its
    like. Source: Debian crontab(5)."""
    zone: str = attrs.field(default=_UTC, validator=_zone)
    """The time zone that `cron` is read in."""
    immediate: bool = False
    """Whether the first tick is at the start rather than at the first scheduled time."""
    jitter: float = attrs.field(default=0.0, validator=_jitter)
    """Seconds; each tick is late by a random part of them. Below `interval`, or the shortest distance of `cron`, so that ticks
    keep their order."""
    missed: Missed = attrs.field(default="skip", validator=attrs.validators.in_(("skip", "once", "all")))
    """What becomes of scheduled times that pass while a tick is being handled."""
    max_missed: int = attrs.field(
        default=100, validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.le(10_000))
    )
    """How many ticks `missed = "all"` makes up for; older ones are skipped."""
    once: bool = False
    """Whether each tick is one of all processes that have this timer, the service and timer of one name, and the same
    `driver`: one of them has it. Intervals go by the clock then, from 1970 on."""
    lease: float = attrs.field(
        default=30.0, validator=attrs.validators.and_(attrs.validators.ge(0.5), attrs.validators.le(86_400.0))
    )
    """Seconds after which, with `once`, a process that does not say that it goes on is believed to be gone."""
    subject: str = ""
    """Subject of the ticks; empty means `tick.` and the name of the dispatcher."""


def subject_of(config: TimerConfig, name: str) -> str:
    """Return the subject of the ticks of a timer.

    Args:
        config: Its table.
        name: Its name.
    """
    return config.subject or f"tick.{name}"


def problems(config: TimerConfig) -> Iterator[str]:
    """Yield what is wrong with the fields of a configuration together."""
    if (config.interval is None) == (config.cron is None):
        yield "give exactly one of interval and cron"
    if config.cron is None and config.zone != _UTC:
        yield "zone is only for cron: an interval knows no time zone"
    if config.cron is not None and config.jitter and config.jitter >= (shortest := _shortest(config.cron)):
        yield f"jitter = {config.jitter:g} must be below {shortest:g} s, the shortest time between two ticks of cron"
    if config.once and config.immediate:
        yield "immediate does not go with once: each process starts, and a tick is one of all of them"
    if config.interval is not None and config.jitter >= config.interval:
        yield f"jitter = {config.jitter:g} must be below interval = {config.interval:g}"


def _shortest(cron: str) -> float:
    """Return the shortest time in seconds between two ticks, as far as the next ones tell."""
    from cronsim import CronSim  # noqa: PLC0415  only timers that use cron load it

    times = [time.timestamp() for time in islice(CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)), _SAMPLES)]
    return min((later - earlier for earlier, later in pairwise(times)), default=math.inf)
