"""The worker `ufw_targets`: tells callers what a service answers, as micro-framework's own services do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter
from typing import Final, TypeAlias, final

import attrs
import trio

from kernel import Envelope, answers, patterns_of
from kernel.abc import Delivery

from ._errors import TargetNotFoundError

Told: TypeAlias = Mapping[str, object]

_BY_POSITION: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
_INJECTED: Final = frozenset({Envelope, Delivery})


@final
@attrs.frozen(kw_only=True)
class TargetsConfig:
    """The `config` table of the worker."""

    targets: tuple[Callable[..., object], ...]
    """What is told of: functions, methods, and classes, of which all that is marked with `@answers` is."""


@final
class Targets:
    """Answers `__list_targets__` and `__get_target__` of a service."""

    def __init__(self, config: TargetsConfig) -> None:
        self._targets = {told["target"]: told for target in config.targets for told in _told_of(target)}

    @answers("*._broadcast.__list_targets__")
    async def list_targets(self) -> Sequence[Told]:
        """Return all targets, each with the names of its arguments and its docstring."""
        await trio.lowlevel.checkpoint()
        return list(self._targets.values())

    @answers("*._broadcast.__get_target__")
    async def get_target(self, target: str) -> Told:
        """Return one target.

        Raises:
            TargetNotFoundError: if there is none of that name.
        """
        await trio.lowlevel.checkpoint()
        if target not in self._targets:
            raise TargetNotFoundError(f"{target[:100]} does not exist or is not exposed through a RPC method.")
        return self._targets[target]


def _told_of(target: Callable[..., object]) -> Iterator[Told]:
    if isinstance(target, type):
        methods = (method for method in vars(target).values() if callable(method))
        yield from (told for method in methods if patterns_of(method) for told in _told_of(method))
    else:
        yield from (_told(name, target) for name in _names_of(target))


def _names_of(function: Callable[..., object]) -> Sequence[str]:
    """Return what a function is called as: what its mark says after the service, or else its own name."""
    patterns = [pattern for pattern in patterns_of(function) if not {"*", "#"} & set(pattern.split(".")[1:])]
    return [pattern.partition(".")[2] for pattern in patterns] or [function.__qualname__]


def _told(name: str, function: Callable[..., object]) -> Told:
    parameters = list(_parameters(function))
    return {
        "target": name,
        "args": [one.name for one in parameters if one.kind in _BY_POSITION and one.default is Parameter.empty],
        "kwargs": [
            one.name for one in parameters if one.kind not in _BY_POSITION or one.default is not Parameter.empty
        ],
        "docstring": inspect.getdoc(function),
    }


def _parameters(function: Callable[..., object]) -> Iterator[Parameter]:
    """Yield the parameters that a caller gives: not `self`, and not what the kernel gives."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:  # an annotation that is only known to type checkers
        signature = inspect.signature(function)
    yield from (one for one in signature.parameters.values() if one.name != "self" and one.annotation not in _INJECTED)
