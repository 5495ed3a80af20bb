"""Which records are written: a level for the service and the kernel, another for libraries, and one for each name."""

from __future__ import annotations

import functools
import logging
import sysconfig
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import attrs

from .._core.spec import DispatcherSpec, DriverSpec, Plan, WorkerSpec
from .library import lean

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

NUMBERS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


@final
@attrs.define(kw_only=True, eq=False)
class Levels:
    """From which level on what is written. May be changed while the service runs."""

    level: str = "info"
    """A key of `NUMBERS`: for the service and the kernel. Libraries are written from warning on, or from it if that is
    higher."""
    named: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """The name of a logger or component -> the level for it and all below it (`httpx` for `httpx._client`)."""
    own: frozenset[str] = frozenset({"kernel"})
    """Packages that are the service's, wherever they are installed."""
    _heard: list[Callable[[], None]] = attrs.field(factory=list[Callable[[], None]], init=False, repr=False)

    @property
    def lowest(self) -> int:
        """The level below which nothing is written."""
        return min(NUMBERS[level] for level in (self.level, *self.named.values()))

    def change(self, level: str, *, name: str = "") -> None:
        """Set the level of a name, or that of the service, from now on.

        Raises:
            KeyError: if there is no such level.
        """
        NUMBERS[level]  # pyright: ignore[reportUnusedExpression]  it must be one
        if name:
            self.named = {**self.named, name: level}
        else:
            self.level = level
        for heard in self._heard:
            heard()

    def become(self, level: str, named: Mapping[str, str], *, own: frozenset[str]) -> None:
        """Be as another manifest has it, from now on."""
        self.level, self.named, self.own = level, named, own
        for heard in self._heard:
            heard()

    def hear(self, apply: Callable[[], None]) -> None:
        """Call a function now, and at every change."""
        apply()
        self._heard.append(apply)

    @contextmanager
    def applied(self, apply: Callable[[], None]) -> Generator[None]:
        """Call a function now, and at every change while inside."""
        self.hear(apply)
        try:
            yield
        finally:
            self._heard.remove(apply)

    def logger_class(self) -> type[FilteringBoundLogger]:
        """Return a class of structlog's loggers whose calls below the lowest level do nothing, as it is at each call."""
        with lean():
            import structlog  # noqa: PLC0415  it costs more than the rest of `kernel check`

        of_level = structlog.make_filtering_bound_logger
        made: type[FilteringBoundLogger] = type("Logger", (of_level(0),), {})

        def apply() -> None:  # those of structlog are made for one level
            for name, value in vars(of_level(self.lowest)).items():
                if not name.startswith("__"):
                    setattr(made, name, value)

        self.hear(apply)
        return made

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
