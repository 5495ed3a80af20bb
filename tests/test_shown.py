"""What a program sees of objects when it prints them: a line that ends, and nothing secret."""

from __future__ import annotations

import builtins
import enum
import functools
import importlib
import inspect
import pkgutil
import re
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime
from pathlib import Path, PurePath
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar, get_args
from zoneinfo import ZoneInfo

import attrs
import trio
from typing_extensions import override

from kernel import Envelope, Secret, handles
from kernel._manifest.registry import Registry, discover
from kernel.abc import Context, Delivery, Driver
from kernel.testing import open_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

_ROOT = Path(__file__).parents[1]
_PACKAGES = ["kernel", *sorted(path.parent.name for path in _ROOT.glob("plugins/*/kernel_*/__init__.py"))]
_PLAIN = (str, int, float, type(None), date, datetime, ZoneInfo, PurePath, BaseException, type, Secret, enum.Enum)
_FROZEN_CONTAINERS = {"tuple", "frozenset", "Mapping", "Sequence", "Collection", "Literal", "None"}
_AS_TYPED = re.compile(r"(Config|Table|Options)$")
"""What a user writes in TOML is as long as they wrote it."""


def _modules() -> Iterator[ModuleType]:
    for name in _PACKAGES:
        package = importlib.import_module(name)
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            if "_templates" not in found.name and not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def _names() -> dict[str, object]:
    """Return what names mean, also those that a module imports for its annotations alone."""
    return {**vars(builtins), **{name: value for module in _modules() for name, value in vars(module).items()}}


def _classes_shown_by_attrs() -> list[type]:
    found = {
        value: None
        for module in _modules()
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and attrs.has(value)
    }
    return [cls for cls in found if _is_by_attrs(cls) and not _AS_TYPED.search(cls.__name__)]


def _is_by_attrs(cls: type) -> bool:
    code = getattr(cls.__repr__, "__code__", None)
    return code is not None and "attrs generated" in code.co_filename


def _open_ended(cls: type, names: Mapping[str, object]) -> list[str]:
    """Return the fields that a repr shows and that may have no end, or go in a circle, or tell what is secret."""
    names = {**names, **vars(inspect.getmodule(cls) or builtins)}
    return [
        f"{cls.__module__}.{cls.__qualname__}.{field.name}: {field.type}"
        for field in attrs.fields(cls)
        if field.repr is True and not all(_is_plain(word, names) for word in _words(field.type))
    ]


def _words(annotation: object) -> list[str]:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    text = re.sub(r"Literal\[.*\]", "Literal", text)
    return [word for word in re.findall(r"[\w.]+", text) if word != "..."]


def _is_plain(word: str, names: Mapping[str, object]) -> bool:
    meant = names.get(word)
    meant = getattr(meant, "__supertype__", meant)
    return word in _FROZEN_CONTAINERS or _is_plain_class(meant) or _is_union(meant)


def _is_union(meant: object) -> bool:
    """Whether it is an alias of plain classes, or of literals."""
    members = get_args(meant)
    return bool(members) and all(isinstance(member, str) or _is_plain_class(member) for member in members)


def _is_plain_class(meant: object) -> bool:
    return inspect.isclass(meant) and (issubclass(meant, _PLAIN) or attrs.has(meant))


def test_attrs_writes_the_repr_of_those_classes_alone_that_hold_plain_values() -> None:
    """Whoever holds a context, a hub, a nursery or any other object has its own repr, or that of `object`.

    A field whose type says nothing of its size (`object`, `bytes`, a list that grows) has `repr=False`.
    """
    names = _names()
    open_ended = [line for cls in _classes_shown_by_attrs() for line in _open_ended(cls, names)]

    assert open_ended == []


# --- a running service ------------------------------------------------------------------------------------------------

_CANARY = "c4n4ry"
_LENGTH = 1000
"""Characters; the longest are configurations, which show each key."""
_STEPS = 1000
"""Calls of functions, those written in C included."""
_FOLLOWED = (list, tuple, dict, set, frozenset, deque, functools.partial, MethodType)


@attrs.frozen
class KeyedConfig:
    key: Secret


@attrs.frozen
class KeyedDriver(Driver[object]):
    """A driver as a user writes it: what it hands out holds its configuration and its context."""

    Config: ClassVar[type[object]] = KeyedConfig
    config: KeyedConfig
    context: Context

    @override
    @asynccontextmanager
    async def open(self) -> AsyncIterator[KeyedDriver]:
        await trio.lowlevel.checkpoint()
        yield self


@attrs.define(eq=False)
class Holder:
    """A worker that holds whatever it can get."""

    queue: Any
    file: Any
    events: Any
    rpc: Any
    keyed: Any
    held: list[object] = attrs.field(factory=list[object], init=False, repr=False)

    @handles("order.#")
    async def order(self, payload: Any, envelope: Envelope, delivery: Delivery) -> None:
        async with self.file.transaction() as transaction:
            await transaction.send(envelope, exchange="", mandatory=False)
            self.held += [payload, envelope, delivery, self.rpc.billing.charge, transaction]
            self.held += _reached(self)


class Ticker:
    """A worker that remembers its ticks."""

    def __init__(self) -> None:
        self.held: list[object] = []

    @handles("#")
    async def tick(self, tick: Any, delivery: Delivery) -> None:
        await trio.lowlevel.checkpoint()
        self.held += [tick, delivery]


async def app(scope: Any, receive: Any, send: Any) -> None:
    await trio.lowlevel.checkpoint()


_BROKER = {"driver": "queue", "protocol": "json"}
_SERVICE: dict[str, Any] = {
    "kernel": {"name": "shown"},
    "drivers": {
        "queue": {"plugin": "memory"},
        "file": {"plugin": "sqlite"},
        "events": {"plugin": "publisher", **_BROKER},
        "rpc": {"plugin": "rpc_client", **_BROKER},
        "keyed": {"plugin": "keyed", "key": {"env": "KEY"}},
    },
    "dispatchers": {
        "incoming": {"plugin": "consumer", "queue": "orders", "bindings": ["order.*"], **_BROKER},
        "stored": {"plugin": "consumer", "queue": "stored", "driver": "file", "protocol": "json"},
        "clock": {"plugin": "timer", "interval": 0.01},
        "web": {"bind": "127.0.0.1:0"},
    },
    "workers": {
        "holder": {"use": "holder", "dispatcher": "incoming"},
        "second": {"use": "holder", "dispatcher": "stored"},
        "ticker": {"use": "ticker", "dispatcher": "clock"},
        "site": {"use": "app", "dispatcher": "web"},
    },
}


def _is_ours(one: object) -> bool:
    return type(one).__module__ == __name__ or type(one).__module__.startswith("kernel")


def _reached(*roots: object) -> list[object]:
    """Return every object of ours that can be reached from some, through whatever holds others."""
    seen: dict[int, object] = {}
    todo = list(roots)
    while todo:
        one = todo.pop()
        if id(one) not in seen and (_is_ours(one) or isinstance(one, _FOLLOWED)):
            seen[id(one)] = one
            todo += _parts(one)
    return [one for one in seen.values() if _is_ours(one) and not isinstance(one, _FOLLOWED)]


def _parts(one: object) -> list[object]:
    match one:
        case dict():
            return [*one.keys(), *one.values()]
        case list() | tuple() | set() | frozenset() | deque():
            return list(one)
        case functools.partial():
            return [one.func, *one.args, *one.keywords.values()]
        case MethodType():
            return [one.__self__]
        case _:
            names = [name for cls in type(one).__mro__ for name in getattr(cls, "__slots__", ())]
            slots = [value for name in names if (value := _slot(one, name)) is not None]
            return [*getattr(one, "__dict__", {}).values(), *slots]


def _slot(one: object, name: str) -> object:
    try:
        return object.__getattribute__(one, name)
    except AttributeError:  # a private name, or a slot that nothing was put into
        return None


def _shown(one: object) -> str:
    """Return the repr of an object, or what is wrong with making it."""
    steps = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal steps
        steps += event in {"call", "c_call"}
        if steps > _STEPS:
            raise RuntimeError("too many steps")

    sys.setprofile(count)
    try:
        return repr(one)
    except RuntimeError as error:
        return f"{error}\n"
    finally:
        sys.setprofile(None)


def _problem(one: object) -> str | None:
    text = _shown(one)
    if len(text) <= _LENGTH and "\n" not in text and _CANARY not in text:
        return None
    return f"{type(one).__module__}.{type(one).__qualname__}: {len(text)} characters: {text[:200]}"


async def test_all_that_can_be_reached_in_a_running_service_is_shown_in_a_line(tmp_path: Path) -> None:
    names = {"holder": Holder, "ticker": Ticker, "app": app}
    registry = Registry((
        *discover().plugins,
        *Registry.of({"workers": names, "drivers": {"keyed": KeyedDriver}}).plugins,
    ))
    service_of = {
        **_SERVICE,
        "drivers": {**_SERVICE["drivers"], "file": {"plugin": "sqlite", "path": f"{tmp_path}/file.db"}},
    }
    async with open_kernel(service_of, registry=registry, environ={"KEY": _CANARY}) as service:
        headers = {"authorization": _CANARY}
        await service.resource("driver/events").publish("order.new", {"card": _CANARY}, headers=headers)
        await service.wait_settled(1, matching=lambda event: event.component == "dispatcher/incoming")
        await service.wait_settled(2, matching=lambda event: event.component == "dispatcher/clock")
        held = _reached(
            service, *(service.resource(name) for name in service.kernel.states), service.resource("worker/holder").held
        )
    problems = {problem for one in held if (problem := _problem(one)) is not None}

    assert problems == set()
    assert {type(one).__name__ for one in held} >= _MUST_BE_THERE


_MUST_BE_THERE = {
    *("RunningService", "Kernel", "EventHub", "Supervisor", "Child", "Tree", "Plan", "Pool", "KernelIntake", "Context"),
    *("MemoryBroker", "MemoryDelivery", "Envelope", "Publisher", "RpcClient", "RemoteFunction", "TickDelivery"),
    *("SqliteBroker", "SqliteTransaction", "StoreThread", "KeyedDriver", "Tick", "DeliveryDone"),
}
