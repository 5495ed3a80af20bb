"""Exceptions that handlers raise and that make trouble, each made anew for each time it is raised."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import attrs
import trio

from kernel.errors import PermanentError, TransientError


@dataclass(frozen=True)
class FrozenError(Exception):
    why: str = "frozen"


@dataclass(frozen=True)
class FrozenPermanentError(PermanentError):
    why: str = "frozen"


class SlottedError(Exception):
    __slots__ = ("why",)

    def add_note(self, note: str) -> None:
        raise RuntimeError("takes no notes")


@dataclass
class BusyError(TransientError):
    why: str = "busy"


@attrs.define
class LockedError(TransientError):
    why: str = "locked"


class PanicError(BaseException):
    """As what Rust extensions raise."""


class StrangeError(Exception):
    """Raises whatever of it is looked at."""

    __notes__ = 7  # type: ignore[assignment]

    def __str__(self) -> str:
        raise self

    def __repr__(self) -> str:
        raise PanicError

    def __eq__(self, other: object) -> bool:
        raise PanicError

    def __hash__(self) -> int:
        raise PanicError

    @property
    def __class__(self) -> Any:
        raise PanicError

    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise PanicError


class StrangeTransientError(TransientError):
    @property
    def after(self) -> Any:  # type: ignore[override]
        raise self

    @after.setter
    def after(self, value: object) -> None: ...


class StrangeGroup(ExceptionGroup[Exception]):
    def derive(self, excs: Any) -> NoReturn:
        raise PanicError

    def split(self, *_: Any) -> NoReturn:  # type: ignore[override]
        raise PanicError

    @property
    def exceptions(self) -> Any:  # type: ignore[override]
        raise PanicError


class NamelessMeta(type):
    @property
    def __name__(cls) -> Any:  # type: ignore[override]
        raise PanicError


class NamelessError(Exception, metaclass=NamelessMeta):
    pass


def late_after(value: object) -> TransientError:
    error = TransientError("set later")
    error.after = value  # type: ignore[assignment]
    return error


async def stray() -> trio.Cancelled:
    """Return what something else was cancelled with, as who keeps the outcome of another task may raise it here."""
    kept: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            kept.append(error)
            raise
    return kept[0]


def exits() -> SystemExit:
    try:
        sys.exit(3)
    except SystemExit as error:
        return error


CAUSES: Mapping[str, Callable[[], BaseException]] = {
    "plain": lambda: ValueError("plain"),
    "frozen": FrozenError,
    "slots": SlottedError,
    "dataclass": BusyError,
    "attrs": LockedError,
    "exit": exits,
    "exit-in-a-nursery": lambda: BaseExceptionGroup("nursery", [exits()]),
    "asyncio": asyncio.CancelledError,
    "generator-exit": GeneratorExit,
    "panic": lambda: PanicError("called `Option::unwrap()`"),
    "panic-in-a-group": lambda: BaseExceptionGroup("nursery", [PanicError(), ValueError("b")]),
    "strange": StrangeError,
    "strange-transient": StrangeTransientError,
    "strange-group": lambda: StrangeGroup("group", [ValueError("inside")]),
    "nameless": NamelessError,
    "after-nan": lambda: late_after(float("nan")),
    "after-text": lambda: late_after("soon"),
    "deep": lambda: nested(200),
}
"""By what is wrong with them; none of them is permanent but the exits."""

PERMANENT: Mapping[str, Callable[[], BaseException]] = {
    "frozen-permanent": FrozenPermanentError,
    "permanent-in-a-strange-company": lambda: BaseExceptionGroup("group", [PanicError(), PermanentError("no")]),
}


async def cause(name: str) -> BaseException:
    """Return a cause; `stray-` in front of its name puts it into a group with a stray `Cancelled`."""
    await trio.lowlevel.checkpoint()
    if not name.startswith("stray"):
        return {**CAUSES, **PERMANENT}[name]()
    rest = name.removeprefix("stray").removeprefix("-")
    kept = await stray()
    return BaseExceptionGroup("nursery", [kept, CAUSES[rest]()]) if rest else kept


def nested(depth: int) -> BaseException:
    error: BaseException = PanicError("deep")
    for _ in range(depth):
        error = BaseExceptionGroup("level", [error])
    return error
