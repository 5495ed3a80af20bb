"""`@catches`: what a worker does about what its listeners raise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from kernel import Retry, current_delivery

_CAUGHT: Final = "__kernel_catches__"
CatcherT = TypeVar("CatcherT", bound="Callable[..., object]")


def catches(*errors: type[Exception]) -> Callable[[CatcherT], CatcherT]:
    """Mark a method of a worker that is called with what its listeners raise.

    It may be async if they are; where they run in a pool it is plain, as they are, and called there. It gets the
    exception, the event and the number of the attempt, by position, and returns what a handler may return: `Retry`,
    `DeadLetter`, or nothing, which acknowledges. What it raises itself goes the way of every handler's error, and so
    does what no method catches. The one whose class is the nearest to that of the exception is called.

    Args:
        *errors: Classes of exceptions.

    Raises:
        TypeError: if none is given, or one is no class of exceptions.
    """
    if any(_is_end(given) for given in errors):
        raise TypeError("@catches is for what is an Exception: what ends tasks and programs cannot be caught")
    if not errors or not all(map(_is_error, errors)):
        raise TypeError("@catches needs classes of exceptions in parentheses, such as @catches(ValueError)")

    def mark(function: CatcherT) -> CatcherT:
        setattr(function, _CAUGHT, errors)
        return function

    return mark


def _is_error(given: object) -> bool:
    return isinstance(given, type) and issubclass(given, Exception)


def _is_end(given: object) -> bool:
    return isinstance(given, type) and issubclass(given, BaseException) and not issubclass(given, Exception)


def caught(worker: object, error: Exception, happened: object) -> object:
    """Return what a worker's method makes of an exception of its listener, or what is to be awaited for that.

    Raises:
        Exception: the exception, if there is no such method.
    """
    name = catcher_of(type(worker), type(error))
    if name is None:
        raise error
    delivery = current_delivery()
    catcher: Any = getattr(worker, name)
    return catcher(error, happened, 1 if delivery is None else delivery.attempt)


def reasoned(made: object, error: Exception) -> object:
    """Return what a method has made of an exception; a retry that gives no reason has the exception for one."""
    if isinstance(made, Retry) and not made.reason:
        return Retry(made.after, f"{type(error).__name__}: {error}")
    return made


def async_catchers_of(cls: type[object]) -> Iterable[str]:
    """Return the names of the methods that wait, which no listener in a pool can be waited for by."""
    return sorted(name for name, value in _catchers_of(cls) if inspect.iscoroutinefunction(value))


def misfits_of(cls: type[object]) -> Iterable[tuple[str, str]]:
    """Yield the names of the methods that cannot be called with what is caught, and why."""
    for name, function in sorted(_catchers_of(cls)):
        try:
            inspect.signature(function).bind("self", "error", "event", 1)
        except TypeError as error:
            yield name, str(error)


def _catchers_of(cls: type[object]) -> Iterable[tuple[str, Callable[..., object]]]:
    members = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
    return [(name, value) for name, value in members.items() if hasattr(value, _CAUGHT)]


def catcher_of(cls: type[object], kind: type[Exception]) -> str | None:
    """Return the name of the method of a worker that is called for a kind of exceptions; None if none is."""
    catchers = {
        error: name
        for base in reversed(cls.__mro__)
        for name, function in vars(base).items()
        for error in getattr(function, _CAUGHT, ())
    }
    return next((catchers[error] for error in kind.__mro__ if error in catchers), None)
