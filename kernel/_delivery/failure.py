"""What a failure worker is given, and how an exception is put into words that are safe to log.

Exceptions are the user's: here nothing relies on what their own code does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, cast, final

import attrs

from .._core.envelope import Envelope

Mask: TypeAlias = Callable[[str], str]
MAX_REASON: Final = 500
"""Characters of a reason in a log, an event or a dead letter."""
UNCUT: Final = 100 * MAX_REASON
"""Characters of a text that are looked at: to mask many takes long."""
_OF_ASYNCIO: Final = ("no running event loop", "no current event loop")
"""What asyncio says where no loop of its own runs."""
_GROUPED: Final = vars(BaseExceptionGroup)["exceptions"]
_NAMED: Final = vars(type)["__name__"]
"""What reads the exceptions of a group, and the name of a class, whatever that class makes of these words."""


@final
@attrs.frozen(kw_only=True, repr=False)
class Failure:
    """What a failure worker is given: the delivery that another worker failed at for good."""

    worker: str
    """`worker/name` of the one that failed."""
    reason: str
    attempts: int
    payload: object
    """What the failed handler was given, or None if it did not get that far."""
    envelope: Envelope
    """The original: bytes and headers."""


class _Origin(str):
    """A note of ours, so that the next one takes its place."""

    __slots__ = ()


def is_a(error: BaseException, *kinds: type[BaseException]) -> bool:
    """Whether an exception is of one of these classes; `isinstance` would ask its `__class__`, too."""
    return issubclass(type(error), kinds)


def name_of(error: BaseException) -> str:
    """Return the name of an exception's class."""
    return str(_NAMED.__get__(type(error)))


def leaves_of(error: BaseException) -> list[BaseException]:
    """Return the exceptions of a group, and of those in it, in order; one that is no group is its own leaf."""
    leaves: list[BaseException] = []
    left = [error]
    while left:
        one = left.pop()
        if is_a(one, BaseExceptionGroup):
            left.extend(reversed(cast("tuple[BaseException, ...]", _GROUPED.__get__(one))))
        else:
            leaves.append(one)
    return leaves


def describe(error: BaseException, mask: Mask = str, *, most: int = MAX_REASON) -> str:
    """Return an exception as one safe line: type and text, control characters escaped, cut to `most` characters.

    Args:
        error: Anything.
        mask: Takes out of a text what must not be said; before it is cut, since half a password is one, too.
        most: Of each of several. `UNCUT` for what is still to be masked.
    """
    leaves = leaves_of(error)
    text = "; ".join(_describe_one(leaf, mask, most) for leaf in leaves[:5])
    return text + (f"; and {len(leaves) - 5} more" if len(leaves) > 5 else "")


def hidden(error: Exception, mask: Mask) -> Exception:
    """Return an exception of the same name and kind, with the same arguments, whose texts are masked."""
    kind, text = type(error), mask(str(error))

    def masked_text(_: Exception) -> str:
        return text

    words = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__str__": masked_text}
    args = tuple(_masked(one, mask) for one in error.args)
    same = type(name_of(error), (kind,), words)
    made = cast("Exception", same.__new__(same, *args))
    made.args = args
    made.__dict__.update({name: _masked(value, mask) for name, value in vars(error).items()})
    return made


def _masked(value: object, mask: Mask) -> object:
    return mask(value) if isinstance(value, str) else value


def add_note(error: BaseException, note: str) -> None:
    """Add a note to every leaf of an exception (group), so that its origin stays with it.

    It takes the place of the last one that was added so: an exception may be raised again and again. One that takes
    no notes gets none.
    """
    for leaf in leaves_of(error):
        try:
            notes = [one for one in getattr(leaf, "__notes__", ()) if type(one) is not _Origin]
            leaf.__notes__ = [*notes, _Origin(note)]
        except BaseException:  # noqa: ASYNC103, BLE001  a frozen exception, say: the event tells where it comes from
            continue


def one_line(text: str, mask: Mask = str, *, most: int = MAX_REASON) -> str:
    """Return a text as one safe line: masked, control characters escaped, cut to `most` characters."""
    shown = mask(text[:UNCUT])[:most]
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in shown)


def _describe_one(error: BaseException, mask: Mask, most: int) -> str:
    name = name_of(error)
    try:
        text = str(error)
        if is_a(error, RuntimeError) and any(sign in text for sign in _OF_ASYNCIO):
            text += " (a library for asyncio was called, and this service runs on trio)"
        return one_line(f"{name}: {text}" if text else name, mask, most=most)
    except BaseException:  # noqa: ASYNC103, BLE001  a broken __str__ must not hide the error it belongs to
        return f"{name}: <unprintable>"
