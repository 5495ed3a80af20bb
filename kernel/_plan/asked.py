"""What is asked for by an annotation: a parameter of a worker by its own, a hook by that of the event that it takes."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Final, cast

from .._convert.imports import NotImportableError, import_function
from .._core.event import Event
from .._core.spec import Asked, HookSpec
from .._manifest.tables import under
from ..abc import Context
from .ground import Ground

_STRUCTLOG: Final = ("BindableLogger", "BoundLogger", "BoundLoggerBase", "FilteringBoundLogger")


def asked_by(annotation: object) -> Asked | tuple[type[Event], ...] | None:
    """Return what a parameter with this annotation is given by the kernel; None if that is not the kernel's to say.

    Returns:
        The types of events for a `trio.MemoryReceiveChannel` of them.
    """
    annotation = _not_none(annotation)
    if annotation is Context:
        return Asked.CONTEXT
    module, name = _name_of(typing.get_origin(annotation) or annotation)
    # By name: neither is imported for a check of workers that do not ask for it.
    if (module, name) == ("logging", "Logger"):
        return Asked.LOGGER
    if module == "structlog" and name in _STRUCTLOG:
        return Asked.LOG
    if (module, name) == ("trio", "MemoryReceiveChannel"):
        return _events(typing.get_args(annotation))
    return None


def read_hooks(ground: Ground) -> tuple[HookSpec, ...]:
    """Return the functions of `[kernel] hooks`, reporting those that cannot be had."""
    return tuple(_hooks(ground))


def _hooks(ground: Ground) -> Iterator[HookSpec]:
    report = under(ground.report, "kernel", "hooks")
    for index, path in enumerate(ground.tables.kernel.hooks):
        try:
            call = import_function(path, directory=ground.manifest.directory, taking="the event")
        except NotImportableError as error:
            report((str(index),), str(error))
            continue
        types_ = _heard_by(call)
        if types_ is None:
            report((str(index),), f'"{path}" must take an event: annotate its parameter with types of events, or not')
        else:
            yield HookSpec(name=path, call=call, types=types_)


def _heard_by(hook: Callable[[object], object]) -> tuple[type[Event], ...] | None:
    """Return the types that a hook is annotated with, all if it is not; None if it is annotated with something else."""
    try:
        first = next(iter(inspect.signature(hook, eval_str=True).parameters.values()))
    except ValueError:  # a function written in C that does not say
        return (Event,)
    except Exception:  # noqa: BLE001  annotations are code: a name that only type checkers know, or anything else
        return None
    return (Event,) if first.annotation is inspect.Parameter.empty else _events((first.annotation,))


def _events(annotations: tuple[object, ...]) -> tuple[type[Event], ...] | None:
    found = [one for annotation in annotations for one in _members(annotation)]
    are_events = bool(found) and all(isinstance(one, type) and issubclass(one, Event) for one in found)
    return cast("tuple[type[Event], ...]", tuple(found)) if are_events else None


def _members(annotation: object) -> tuple[object, ...]:
    is_union = typing.get_origin(annotation) in {typing.Union, types.UnionType}
    return typing.get_args(annotation) if is_union else (annotation,)


def _not_none(annotation: object) -> object:
    others = [one for one in _members(annotation) if one is not types.NoneType]
    return others[0] if len(others) == 1 else annotation


def _name_of(annotation: object) -> tuple[str, str]:
    module: str = getattr(annotation, "__module__", None) or ""
    return module.partition(".")[0], getattr(annotation, "__qualname__", "")
