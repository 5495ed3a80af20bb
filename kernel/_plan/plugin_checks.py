"""Whether each driver and dispatcher fits what it is tied to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias, cast

from .._core.words import listed
from .._manifest.tables import DispatcherTable, DriverTable, Tables
from ..abc import Component, Dispatcher
from .ground import AnyDriver, Wired, Wiring, lacks, plugin_of

Fault: TypeAlias = tuple[tuple[str, ...], str]
"""Path below the component's table, and what is wrong."""


def faults(wired: Wired, wiring: Wiring, tables: Tables) -> Iterator[Fault]:
    """Find what is wrong between a component and its driver, its protocol, and the kernel's keys of its table."""
    if wired.cls is None or wired.entry.table is None:
        return
    yield from _driver_faults(wired, wired.cls, wired.entry.table, wiring)
    yield from _protocol_faults(wired, wired.cls, wired.entry.table, tables)
    yield from _capability_faults(wired, wired.cls, wiring)
    if isinstance(wired.entry.table, DispatcherTable):
        yield from _delivery_faults(wired, cast("type[Dispatcher]", wired.cls), wired.entry.table)


def _delivery_faults(wired: Wired, cls: type[Dispatcher], table: DispatcherTable) -> Iterator[Fault]:
    for key in ("rate", "batch", "fan_out"):
        if getattr(table, key) and not cls.delivers:
            yield (key,), f'has no effect: plugin "{plugin_of(wired.entry)}" delivers no messages'
    if table.batch is not None and table.fan_out:
        yield ("fan_out",), "does not go with batch: the messages of a batch are for one worker"
    if table.batch is not None and table.batch.size > table.concurrency and "concurrency" not in wired.entry.wrong:
        text = f"must be at most concurrency = {table.concurrency}, since each message of a batch has its slot"
        yield ("batch", "size"), f"{text}; got {table.batch.size}"


def _driver_faults(wired: Wired, cls: type[Component], table: DriverTable, wiring: Wiring) -> Iterator[Fault]:
    plugin = plugin_of(wired.entry)
    if "driver" in wired.entry.wrong or (wired.config is None and _depends_on_config(cls)):
        return
    if (needs := _needs(wired, cls)) is None:
        if table.driver is not None:
            how = " as it is configured here" if _depends_on_config(cls) else ""
            fix = f": {cls.driver_fix}, or take out `driver`" if cls.driver_fix else ""
            yield ("driver",), f'plugin "{plugin}" uses no driver{how}{fix}'
        return
    fitting = [name for name in wiring.drivers if name != wired.entry.name and _provides(wiring, name, needs)]
    wants = f'plugin "{plugin}" needs a driver that provides {needs.__name__}'
    if table.driver is None:
        yield ("driver",), f"is missing: {wants}; {_choice(fitting)}"
    elif (driver := wiring.driver_class(wired.driver)) and not issubclass(driver.provides, needs):
        yield ("driver",), f"{wants}, and driver/{wired.driver} provides {_what(driver)}; {_choice(fitting)}"


def _depends_on_config(cls: type[Component]) -> bool:
    """Return whether it is the configuration that says what driver is needed."""
    return getattr(cls.needs_with, "__func__", None) is not getattr(Component.needs_with, "__func__", None)


def _needs(wired: Wired, cls: type[Component]) -> type[object] | None:
    return cls.needs if wired.config is None else cls.needs_with(wired.config)


def _provides(wiring: Wiring, name: str, needed: type[object]) -> bool:
    cls = wiring.driver_class(name)
    return cls is not None and issubclass(cls.provides, needed)


def _what(driver: type[AnyDriver]) -> str:
    return "nothing that it declares" if driver.provides is object else driver.provides.__name__


def _choice(names: Iterable[str]) -> str:
    return f"there are: {listed(names)}" if names else "the manifest has no such driver"


def _protocol_faults(wired: Wired, cls: type[Component], table: DriverTable, tables: Tables) -> Iterator[Fault]:
    plugin = plugin_of(wired.entry)
    if "protocol" in wired.entry.wrong:
        return
    if cls.speaks and table.protocol is None:
        some = f"; there are: {listed(tables.protocols)}" if tables.protocols else ', such as "json"'
        yield ("protocol",), f'is missing: plugin "{plugin}" needs a protocol{some}'
    elif table.protocol is not None and not cls.speaks:
        yield ("protocol",), f'plugin "{plugin}" speaks no protocol'


def _capability_faults(wired: Wired, cls: type[Component], wiring: Wiring) -> Iterator[Fault]:
    driver = wiring.driver_class(wired.driver)
    if driver is None or wired.config is None or (needs := _needs(wired, cls)) is None:
        return
    if not issubclass(driver.provides, needs):
        return
    lacking = cls.requires(wired.config) - wiring.capabilities(wired.driver)
    for capability in sorted(lacking, key=lambda one: one.value):
        yield (
            ("driver",),
            f'this configuration needs "{capability.value}", which {lacks(wiring, wired.driver)}; leave out what needs it, or take another plugin',
        )
