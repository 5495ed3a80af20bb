"""Where another thread stands, as a part of a traceback."""

from __future__ import annotations

from types import CodeType, FrameType, TracebackType


def append_frames(error: BaseException, frame: FrameType, *, until: CodeType) -> None:
    """Have the traceback of an exception go on with the lines at which a running thread stands.

    Args:
        error: Was raised.
        frame: The innermost of the thread; a line that it has left since is the one that is shown.
        until: The code that called what is to be shown; what is outside of it is left out.
    """
    shown: TracebackType | None = None
    at: FrameType | None = frame
    while at is not None and at.f_code is not until:
        shown = TracebackType(shown, at, at.f_lasti, at.f_lineno or at.f_code.co_firstlineno)
        at = at.f_back
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is not None and at is not None:
        last.tb_next = shown
