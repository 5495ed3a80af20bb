"""What can be called on an object, and how: awaited, entered, or plainly called."""

from __future__ import annotations

import enum
import inspect
import re
from typing import Final

_ABSENT: Final = object()
_LAST_NAME: Final = re.compile(r"(?:\w+\.)*(\w+)")


class Way(enum.Enum):
    """How a method is used."""

    AWAITED = enum.auto()
    """It returns what is awaited, whether it is a coroutine function or not."""
    ENTERED = enum.auto()
    """It returns an asynchronous context manager."""
    CALLED = enum.auto()
    UNKNOWN = enum.auto()
    """Nothing says it; only a call would tell."""


_SAID: Final = {
    **dict.fromkeys(("Awaitable", "Coroutine"), Way.AWAITED),
    **dict.fromkeys(("AbstractAsyncContextManager", "AsyncContextManager"), Way.ENTERED),
}
"""By the annotation of what is returned."""


def methods(resource: object, also: str = "") -> list[str]:
    """Return the names of the methods of an object that do not begin with `_`, and another one if there is such."""
    names = {name for name in dir(resource) if not name.startswith("_")} | {also}
    return sorted(name for name in names if _is_method(resource, name))


def _is_method(resource: object, name: str) -> bool:
    found = inspect.getattr_static(resource, name, _ABSENT)
    return not isinstance(found, property) and found is not _ABSENT and callable(getattr(resource, name, None))


def is_there(resource: object, name: str) -> bool:
    """Return whether an object has an attribute, other than by answering to every name."""
    return inspect.getattr_static(resource, name, _ABSENT) is not _ABSENT


def way_of(resource: object, name: str) -> Way:
    """Return how a method is used: its own signature says it, or that of the contract that it fulfils."""
    method: object = getattr(resource, name)
    candidates = [method, *(vars(cls).get(name) for cls in type(resource).__mro__)]
    if any(map(inspect.iscoroutinefunction, candidates)):
        return Way.AWAITED
    if any(inspect.isasyncgenfunction(getattr(one, "__wrapped__", None)) for one in candidates):
        return Way.ENTERED
    if inspect.isbuiltin(method) or isinstance(method, type):
        return Way.CALLED
    return next((_said(one) for one in candidates if _said(one) is not Way.UNKNOWN), Way.UNKNOWN)


def _said(method: object) -> Way:
    annotation = getattr(method, "__annotations__", {}).get("return", _ABSENT)
    if annotation is _ABSENT:
        return Way.UNKNOWN
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    name = _LAST_NAME.match(text)
    return _SAID.get(name[1] if name else "", Way.CALLED)
