"""Which records are written: a level for the service and the kernel, another for libraries, and one for each name."""

from __future__ import annotations

import functools
import logging
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, final

import attrs

from .._core.spec import DispatcherSpec, DriverSpec, Plan, WorkerSpec

NUMBERS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


@final
@attrs.frozen(kw_only=True, eq=False)
class Levels:
    """From which level on what is written."""

    level: str = "info"
    """A key of `NUMBERS`: for the service and the kernel. Libraries are written from warning on, or from it if that is
    higher."""
    named: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """The name of a logger or component -> the level for it and all below it (`httpx` for `httpx._client`)."""
    own: frozenset[str] = frozenset({"kernel"})
    """Packages that are the service's, wherever they are installed."""

    @property
    def lowest(self) -> int:
        """The level below which nothing is written."""
        return min(NUMBERS[level] for level in (self.level, *self.named.values()))

    def of_component(self, name: str) -> int:
        """Return the level of a component of the service."""
        return self._named(name, default=self.level)

    def of_logger(self, name: str, file: str) -> int:
        """Return the level of a logger that is used in a file."""
        return self._named(name, default=self.level if self._is_own(name, file) else max_level(self.level, "warning"))

    def _named(self, name: str, *, default: str) -> int:
        if self.named:
            for known in _prefixes(name):
                if known in self.named:
                    return NUMBERS[self.named[known]]
        return NUMBERS[default]

    def _is_own(self, name: str, file: str) -> bool:
        return name.partition(".")[0] in self.own or installed_package(file) in {"", *self.own}


def max_level(one: str, other: str) -> str:
    """Return the level that lets less through."""
    return max(one, other, key=NUMBERS.__getitem__)


def own_packages(plan: Plan) -> frozenset[str]:
    """Return the packages that a service is made of: those of its workers and of its plugins."""
    return frozenset({"kernel", *(module.partition(".")[0] for module in _modules(plan))})


def _modules(plan: Plan) -> Iterable[str]:
    yield from (spec.cls.__module__ for spec in plan.protocols.values())
    for spec in plan.components.values():
        match spec:
            case DriverSpec() | DispatcherSpec():
                yield spec.cls.__module__
            case WorkerSpec():
                yield getattr(spec.use, "__module__", "") or ""


def _prefixes(name: str) -> Iterable[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


@functools.lru_cache(maxsize=4096)
def installed_package(file: str) -> str:
    """Return the top package of a file that is installed, or `python` for Python's own; empty for any other file."""
    path = Path(file)
    paths = sysconfig.get_paths()
    for place in ("purelib", "platlib"):
        if path.is_relative_to(paths[place]):
            return path.relative_to(paths[place]).parts[0].removesuffix(".py")
    return "python" if path.is_relative_to(paths["stdlib"]) or file.startswith("<frozen") else ""
