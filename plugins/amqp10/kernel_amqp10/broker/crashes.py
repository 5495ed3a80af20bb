"""What the application properties of a message say of attempts in which a process died. Pure.

The engine tells of a message that it was delivered before, and of a classic queue not how often: see `kernel.abc.CrashNote`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kernel.abc import COMINGS_HEADER, CRASHES_HEADER, CrashNote

_MOST: Final = 1 << 20


def note_of(table: Mapping[str, object]) -> CrashNote | None:
    """Return what a message says; None if it is no copy that was made to note that."""
    if CRASHES_HEADER not in table:
        return None
    return CrashNote(number_of(table, CRASHES_HEADER), number_of(table, COMINGS_HEADER))


def next_note(note: CrashNote | None) -> CrashNote:
    """Return what is to be noted of a suspect: no crash of a first one, which may have been given back."""
    return CrashNote() if note is None else note.next()


def number_of(table: Mapping[str, object], name: str) -> int:
    """Return an application property that is a number, 0 for every other."""
    number = table.get(name)
    return min(int(number), _MOST) if isinstance(number, int) and number > 0 else 0
