"""How Python's threads take turns beside an event loop that never rests."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

INTERVAL: Final = 0.0002
"""Seconds that a thread which could go on waits for the interpreter before it asks for it."""


@contextmanager
def switching_often() -> Generator[None]:
    """Let threads have the interpreter in the midst of a turn of the loop, and the loop have it back as soon.

    A busy loop lets go of it only when it asks the system what has happened, and has it again before a thread that waits
    has woken up. With Python's 5 ms, which begin anew each time, a thread waited for a hundred turns and more: that of
    the probes for most of a second, under full load. See docs/decisions/0112.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, INTERVAL))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
