"""Whose a `KeyboardInterrupt` is: the user's at the terminal, or that of code which raises it."""

from __future__ import annotations

import signal


def is_from_terminal() -> bool:
    """Return whether a Ctrl-C raises `KeyboardInterrupt` in this process, so that one may be the user's.

    Python's own handler does, and trio's in its place. Where somebody else handles the signal, as `kernel run` does,
    only code that wants to can have raised one. May be called from any thread.
    """
    handler = signal.getsignal(signal.SIGINT)
    return handler is signal.default_int_handler or getattr(handler, "__module__", "").startswith("trio.")
