"""The values that travel through the pipeline: `Envelope`, `Message`, `Arguments`, `Outcome`.

`source -> Envelope -> Protocol.decode -> Message -> handler -> result -> Protocol.encode_reply -> Envelope -> Outcome`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias, cast, final

import attrs

from ..errors import EncodeError, check_delay

if TYPE_CHECKING:
    from attrs import frozen as _value
else:
    _value = partial(attrs.define, unsafe_hash=True)
    """Frozen for type checkers alone: to set the fields of a class that refuses to be changed takes as long again as
    all else that is done to make it, and every message is made into two such values.
    Source: T. Tvrtkovic, Zero-overhead frozen attrs classes."""

_MILLISECONDS: Final = 1e11
"""What is greater is no time in seconds: it would be in the year 5138."""
_LAST: Final = 1e14
NO_HEADERS: Final[Mapping[str, object]] = MappingProxyType({})
DEADLINE_HEADER: Final = "kernel-deadline"
"""The header in which a deadline leaves the process: milliseconds that remain, as a decimal string, so that no
two clocks need to agree."""


_IDS_AT_ONCE: Final = 64
_ids: Final[list[str]] = []
"""Those that are not given out: to ask the system for each takes five times as long."""
os.register_at_fork(after_in_child=_ids.clear)


def new_id() -> str:
    """Return a new id, unique in the world: 32 hexadecimal digits. May be called from any thread."""
    try:
        return _ids.pop()
    except IndexError:
        several = os.urandom(16 * _IDS_AT_ONCE).hex("-", 16).split("-")
        first = several.pop()
        _ids.extend(several)
        return first


def _size(value: bytes | Mapping[str, object]) -> str:
    """Return what a repr says of something that may be huge, or secret: how much there is."""
    return f"<{len(value)} {'bytes' if isinstance(value, bytes) else 'keys'}>"


@final
@_value(kw_only=True)
class Envelope:
    """One message as a transport carries it: bytes and what is written on the outside."""

    subject: str
    """What the message is about, in words joined by dots (`order.created`); the router matches it."""
    body: bytes = attrs.field(default=b"", repr=_size)
    headers: Mapping[str, object] = attrs.field(default=NO_HEADERS, repr=_size)
    """Values are what JSON can say."""
    id: str = attrs.field(factory=new_id)
    content_type: str = ""
    """Media type of `body`, or empty if unknown."""
    reply_to: str = ""
    """The queue that an answer goes to, or empty if none is wanted."""
    correlation_id: str = ""
    priority: int = 0
    """From 0 to 9, 9 first; needs `Capability.PRIORITY`."""
    delay: float = 0.0
    """Seconds before the first delivery; needs `Capability.DELAY`."""
    deadline: float = math.inf
    """In `trio.current_time()` of this process; after it nobody wants the message handled."""


@final
@_value(kw_only=True)
class Message:
    """One message as the program understands it."""

    subject: str
    payload: object = attrs.field(repr=False)
    """What the protocol made of the body: usually dicts, lists, strings and numbers."""
    headers: Mapping[str, object] = attrs.field(default=NO_HEADERS, repr=_size)


def _as_tuple(values: Iterable[object]) -> tuple[object, ...]:
    return tuple(values)


class _Named:
    """Has a place for names that is no field, so that no protocol writes it."""

    __slots__ = ("names",)


@final
@attrs.frozen
class Arguments(_Named):
    """The payload of a call that is made like that of a function; `@answers` marks what takes it."""

    args: tuple[object, ...] = attrs.field(default=(), converter=_as_tuple, repr=lambda args: f"<{len(args)}>")
    """Given by position."""
    kwargs: Mapping[str, object] = attrs.field(factory=dict[str, object], repr=_size)
    """Given by name."""

    @classmethod
    def of_contract(cls, args: tuple[object, ...], kwargs: Mapping[str, object], names: tuple[str, ...]) -> Arguments:
        """Return the arguments of a call of which the caller's contract says what those by position are called."""
        made = cls(args, kwargs)
        object.__setattr__(made, "names", names)
        return made

    def by_name(self) -> dict[str, object] | None:
        """Return all arguments by name, for a protocol that has no place for others; None if a name is not known."""
        names: tuple[str, ...] = getattr(self, "names", ())
        if len(self.args) > len(names):
            return None
        return {**dict(zip(names, self.args, strict=False)), **self.kwargs}

    @classmethod
    def of(cls, payload: object) -> Arguments:
        """Return what a call is made with: an object gives arguments by name, an array by position.

        Raises:
            EncodeError: if it is neither, nor `Arguments`.
        """
        match payload:
            case Arguments():
                return payload
            case dict():
                return cls(kwargs=cast("dict[str, object]", payload))
            case list() | tuple():
                return cls(cast("list[object]", payload))
            case _:
                raise EncodeError(f"a call takes Arguments, an object or an array, not {type(payload).__name__}")


@final
@attrs.frozen
class Ack:
    """The delivery is done; a reply, if any, is sent before the source forgets it."""

    reply: Envelope | None = None


@final
@attrs.frozen
class Retry:
    """Deliver again later; counts as an attempt."""

    after: float = 0.0
    """Seconds to wait first, from 0 to 1,000,000."""
    reason: str = ""

    def __attrs_post_init__(self) -> None:
        check_delay(self.after)


@final
@attrs.frozen
class DeadLetter:
    """Put aside, with the reason; never delivered again by itself."""

    reason: str = attrs.field(validator=attrs.validators.instance_of(str))


@final
@attrs.frozen
class Return:
    """Give back to the source as if it had not been delivered: the attempt was cut and does not count."""


Outcome: TypeAlias = Ack | Retry | DeadLetter | Return
"""What became of a delivery."""


def write_deadline(deadline: float, *, now: float) -> str | None:
    """Return a deadline as the text of `DEADLINE_HEADER`, or None if there is none."""
    if deadline == math.inf:
        return None
    return str(math.ceil((deadline - now) * 1000)) if deadline > now else "0"  # it is -inf in a cancelled scope


def read_deadline(text: object, *, now: float) -> float:
    """Return the deadline that `DEADLINE_HEADER` means; infinite if the text makes no sense.

    A peer that writes nonsense there must not cost the message.
    """
    digits = str(text)
    return now + int(digits) / 1000 if digits.isascii() and digits.isdecimal() and len(digits) < 16 else math.inf


def read_sent(told: object, *, now: float, wall: float) -> float | None:
    """Return when a message was sent, by what it says itself; None if that makes no sense.

    Args:
        told: Seconds or milliseconds since 1970, as a number or in decimal digits: peers write either.
        now: `trio.current_time()`.
        wall: Seconds since 1970 at that moment.
    """
    if isinstance(told, str):
        told = int(told) if told.isascii() and told.isdecimal() and len(told) < 16 else None
    if isinstance(told, bool) or not isinstance(told, int | float) or not 0 < told < _LAST:
        return None
    return now - wall + (told / 1000 if told > _MILLISECONDS else told)
