"""The tables of drivers with `plugin = "thread_pool"` and `plugin = "process_pool"`."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, final

import attrs
from attrs.validators import and_, ge, gt, in_, le

Finish: TypeAlias = Literal["running", "pending"]

_finishes: Final = in_(("running", "pending"))


@final
@attrs.frozen(kw_only=True)
class ThreadPoolConfig:
    """Threads that several workers may share."""

    threads: int = attrs.field(default=10, validator=and_(ge(1), le(1000)))
    """Calls at a time; further ones wait, in turn."""
    finish: Finish = attrs.field(default="pending", validator=_finishes)
    """What a stop waits for: all calls that were brought in, or those that run, so that the others are given back."""


@final
@attrs.frozen(kw_only=True)
class ProcessPoolConfig:
    """Processes that several workers may share."""

    processes: int = attrs.field(default=2, validator=and_(ge(1), le(1000)))
    """Calls at a time, each in a process; further ones wait, in turn."""
    max_tasks_per_child: int = attrs.field(default=0, validator=and_(ge(0), le(1_000_000_000)))
    """Calls after which a process is replaced; 0 keeps it."""
    idle_timeout: float = attrs.field(default=600.0, validator=and_(gt(0.0), le(86_400.0)))
    """Seconds after which a process without calls ends; the next call starts another."""
    child_start_timeout: float = attrs.field(default=60.0, validator=and_(gt(0.0), le(86_400.0)))
    """Seconds in which a process has started, has imported a worker's module and has made its object; else it is killed.

    That is before a handler begins, and does not count to the worker's `timeout`."""
    environment: tuple[str, ...] = ()
    """Variables that processes keep besides those of the shell and of Python, such as PATH, HOME, LANG and TZ."""
    finish: Finish = attrs.field(default="pending", validator=_finishes)
    """As for threads."""
