"""`@listens`: what makes a method of a worker the listener of an event."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Final, TypeVar, cast, final

import attrs

from kernel import handles, patterns_of

from ._catching import caught, reasoned
from ._event import EventSpec, spec_of

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])
_LISTENS: Final = "__kernel_listens__"


@final
@attrs.frozen
class Listener:
    """One listener, as its marks say."""

    event: EventSpec
    name: str
    """What tells it from other listeners of its service; also the subject that its handler has."""
    durable: bool
    per_process: bool
    cls: type[object] = attrs.field(default=object, repr=False)
    """The class of the event."""
    takes: object = attrs.field(default=None, repr=False)
    """The annotation of its event; None if that could not be read."""
    is_plain: bool = False
    """Whether it is not async, and so is called in a pool."""

    @property
    def takes_another(self) -> bool:
        """Whether its event is annotated with a class that the event is none of."""
        takes = self.takes
        return isinstance(takes, type) and takes not in {*self.cls.__mro__, dict} and typing.get_origin(takes) is None


def listens(
    cls: type[object], *, name: str = "", durable: bool | None = None, per_process: bool = False
) -> Callable[[FunctionT], FunctionT]:
    """Mark a worker's method as a listener of an event, which is its first parameter.

    It may ask for `Envelope` and `Delivery` besides, as a handler may. Every listener of an event gets each event once;
    the processes of one service share that.

    Args:
        cls: The event.
        name: What tells the listener from others of its service; empty takes `Class.method`. It is part of the name
            of its queue: who renames it leaves what waits there behind.
        durable: Whether it gets what was sent while it did not run; None as the event says. One that does not is per
            process.
        per_process: Whether each process of the service gets every event, and not only one of them.

    Raises:
        TypeError: if `cls` is no event, or what is marked listens to one already.
    """
    spec = spec_of(cls)
    keeps = spec.durable if durable is None else durable

    def mark(function: FunctionT) -> FunctionT:
        given: object = function
        if isinstance(given, staticmethod | classmethod):
            raise TypeError("@listens stands on a function, below @staticmethod or @classmethod")
        if hasattr(function, _LISTENS):
            raise TypeError(f"{function.__qualname__} listens to an event already: write a method for each")
        called = name or ".".join(function.__qualname__.rpartition("<locals>.")[2].split(".")[-2:])
        listener = _catching(function, cls)
        marked = Listener(
            spec,
            called,
            keeps,
            per_process or not keeps,
            cls=cls,
            takes=_taken_by(function),
            is_plain=not inspect.iscoroutinefunction(function),
        )
        setattr(listener, _LISTENS, marked)
        return handles(called)(listener)

    return mark


def listeners_of(worker: object) -> list[Listener]:
    """Return the listeners of a worker, given its class, function or object; in the order of their names."""
    if marked := getattr(worker, _LISTENS, None):
        return [marked]
    cls = worker if isinstance(worker, type) else type(worker)
    found = (getattr(getattr(member, "__func__", member), _LISTENS, None) for _, member in _members(cls))
    return sorted((one for one in found if isinstance(one, Listener)), key=lambda one: one.name)


def unheard_in(worker: object) -> list[tuple[str, str]]:
    """Return each pattern that a worker handles and that is the name of none of its listeners, after its method."""
    cls = worker if isinstance(worker, type) else type(worker)
    marked = [("", worker), *((name, getattr(member, "__func__", member)) for name, member in _members(cls))]
    known = {one.name for one in listeners_of(worker)}
    return [(name, pattern) for name, one in marked for pattern in patterns_of(one) if pattern not in known]


def _members(cls: type[object]) -> Iterable[tuple[str, object]]:
    return {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}.items()


def _catching(function: FunctionT, cls: type[object]) -> FunctionT:
    """Return a listener that gives what it raises to the methods of its worker that are marked with `@catches`."""
    names = list(inspect.signature(function).parameters)
    is_method = names[:1] == ["self"]
    _annotate(function, names[is_method : is_method + 1], cls)
    if not is_method:
        return function
    if not inspect.iscoroutinefunction(function):
        return cast("FunctionT", _catching_there(function))

    @functools.wraps(function)
    async def listener(self: object, happened: object, **more: object) -> object:
        try:
            return await function(self, happened, **more)
        except Exception as error:  # noqa: BLE001  what nobody catches is raised again
            made = caught(self, error, happened)
            return reasoned(await made if inspect.isawaitable(made) else made, error)  # noqa: ASYNC910  the listener has waited

    return cast("FunctionT", listener)


def _catching_there(function: Callable[..., object]) -> Callable[..., object]:
    """Return a listener for a pool, which calls the methods of its worker where it is called itself."""

    @functools.wraps(function)
    def listener(self: object, happened: object, **more: object) -> object:
        try:
            return function(self, happened, **more)
        except Exception as error:  # noqa: BLE001  as above
            return reasoned(caught(self, error, happened), error)

    return listener


def _taken_by(function: Callable[..., object]) -> object:
    """Return what a listener says that its event is; None if a name in that is not known yet, or nothing is said."""
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    try:
        return typing.get_type_hints(function).get(names[0]) if names else None
    except Exception:  # noqa: BLE001  annotations are code; the plan tells what is wrong with them
        return None


def _annotate(function: Callable[..., object], names: Iterable[str], cls: type[object]) -> None:
    """Let a parameter without annotation be the event."""
    for name in names:
        function.__annotations__.setdefault(name, cls)
