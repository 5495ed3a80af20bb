"""A shop that is reloaded: shelves, a queue, packers, and a clerk who stands at a shelf."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import attrs
import trio

from kernel import Plan, StateChanged, handles
from kernel._core.lifecycle import USABLE
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve
from kernel.abc import Context, Driver
from kernel.errors import StartupError

BROKER = {"driver": "queue", "protocol": "json"}


@attrs.frozen
class ShelfConfig:
    size: int = 1


@attrs.define(eq=False)
class Shelf(Driver[int]):
    """Says how big it is. One of size 0 can never be had, 13 falls down as it is put up, 77 gets stuck then,
    and 99 is not to be taken away."""

    Config: ClassVar[type[object]] = ShelfConfig
    provides: ClassVar[type[object]] = int
    config: ShelfConfig
    context: Context

    @asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        await trio.lowlevel.checkpoint()
        if self.config.size == 0:
            raise StartupError("there is no such shelf")
        if self.config.size == 13:
            raise ValueError("it fell")
        if self.config.size == 77:
            with trio.CancelScope(shield=True):
                await trio.sleep(600)
        try:
            yield self.config.size
        finally:
            if self.config.size == 99:
                with trio.CancelScope(shield=True):
                    await trio.sleep(600)


@attrs.frozen
class LampConfig:
    certificate: str


@attrs.frozen
class Lamp(Driver[None]):
    """Reads a file when it is lit."""

    Config: ClassVar[type[object]] = LampConfig
    config: LampConfig
    context: Context

    @classmethod
    def reads(cls, config: object) -> Iterable[str]:
        assert isinstance(config, LampConfig)
        return ["", config.certificate]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        yield


@attrs.frozen
class PackerConfig:
    label: str = "a"


packed: list[tuple[str, object]] = []
"""What was packed by whom, of all lives."""


class Packer:
    """Takes a second for each parcel."""

    def __init__(self, config: PackerConfig) -> None:
        self.config = config

    @handles("parcel.*")
    async def pack(self, payload: Any) -> None:
        await trio.sleep(1)
        packed.append((self.config.label, payload))


class Hasty(Packer):
    """Needs no time, and calls what it does by another name."""

    pack = None  # type: ignore[assignment]

    @handles("parcel.*")
    async def throw(self, payload: Any) -> None:
        await trio.lowlevel.checkpoint()
        packed.append((f"hasty {self.config.label}", payload))


class Other(Packer):
    """Packs what the others do not."""

    @handles("letter.*")
    async def pack(self, payload: Any) -> None:
        await trio.sleep(1)
        packed.append((f"other {self.config.label}", payload))


class Faller:
    """Falls down as soon as it runs, unless it is called otherwise."""

    def __init__(self, config: PackerConfig) -> None:
        self.config = config

    async def run(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.config.label == "a":
            raise ValueError("it fell")
        await trio.sleep_forever()


async def clerk(shelf: int) -> None:
    await trio.sleep_forever()


async def watchman() -> None:
    await trio.sleep_forever()


async def once() -> None:
    await trio.sleep(0.1)


GIVEN = {
    "drivers": {"shelf": Shelf, "lamp": Lamp},
    "workers": {
        "packer": Packer,
        "hasty": Hasty,
        "other": Other,
        "clerk": clerk,
        "faller": Faller,
        "watchman": watchman,
        "once": once,
    },
}
REGISTRY = Registry((*discover().plugins, *Registry.of(GIVEN).plugins))
SHOP: Mapping[str, Any] = {
    "kernel": {"name": "shop"},
    "drivers": {
        "shelf": {"size": 1},
        "queue": {"plugin": "memory"},
        "orders": {"plugin": "publisher", **BROKER},
    },
    "dispatchers": {"work": {"plugin": "consumer", "queue": "work", "bindings": ["#"], "concurrency": 4, **BROKER}},
    "workers": {
        "packer": {"use": "packer", "dispatcher": "work"},
        "other": {"use": "other", "dispatcher": "work"},
        "clerk": {"use": "clerk"},
        "watchman": {"use": "watchman"},
    },
}


def changed(tables: Mapping[str, Any] = SHOP, **changes: Any) -> dict[str, Any]:
    """The tables with others in their places: `workers__packer__timeout=3`; None takes one away."""
    made = _copy(tables)
    for path, value in changes.items():
        *way, last = path.split("__")
        table = made
        for key in way:
            table = table.setdefault(key, {})
        if value is None:
            del table[last]
        else:
            table[last] = value
    return made


def _copy(table: Any) -> Any:
    return {key: _copy(value) for key, value in table.items()} if isinstance(table, Mapping) else table


def planned(tables: Mapping[str, Any] = SHOP, **changes: Any) -> Plan:
    return resolve(from_mapping(changed(tables, **changes)), REGISTRY)


def begun(service: Any, since: int) -> set[str]:
    """Ids of what became ready since then."""
    return {
        event.component
        for event in service.events[since:]
        if isinstance(event, StateChanged) and event.new in USABLE and event.old not in USABLE
    }


def stopped(service: Any, since: int) -> set[str]:
    """Ids of what was no longer usable since then."""
    return {
        event.component
        for event in service.events[since:]
        if isinstance(event, StateChanged) and event.old in USABLE and event.new not in USABLE
    }
