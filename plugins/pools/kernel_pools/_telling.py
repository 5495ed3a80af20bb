"""Times a call and tells of it."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager

import trio

from kernel.abc import Context

from ._events import PlainCallDone
from ._remaining import UNTIL


@contextmanager
def told(context: Context, worker: str, *, since: float) -> Generator[None]:
    """Emit an event about the call that is made inside, if anybody listens.

    Args:
        context: Of the pool.
        worker: Whose handler is called.
        since: When it was brought in, in `trio.current_time()`.
    """
    began, error = trio.current_time(), ""
    try:
        yield
    except BaseException as raised:
        error = type(raised).__name__
        raise
    finally:
        if context.hears(PlainCallDone):
            seconds = trio.current_time() - began
            context.emit(
                PlainCallDone(component=context.id, worker=worker, waited=began - since, seconds=seconds, error=error)
            )


def note_deadline() -> float:
    """Let the call that follows know how much time it has; returns until when, in `time.monotonic()`."""
    left = trio.current_effective_deadline() - trio.current_time()
    until = math.inf if left == math.inf else time.monotonic() + left
    UNTIL.set(until)
    return until
