"""What every step of resolving reads, and what is known of drivers, dispatchers and protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias, cast, final

import attrs

from .._core.broker import Broker
from .._core.contract import Contract
from .._core.spec import ProtocolSpec
from .._core.words import did_you_mean, listed
from .._manifest.manifest import Manifest
from .._manifest.registry import Registry
from .._manifest.tables import SECTIONS, DriverTable, Entry, ProtocolTable, Report, Tables
from ..abc import Capability, Component, Dispatcher, Driver

AnyDriver: TypeAlias = Driver[object]

SURROUNDING_STOP_TIMEOUT: Final = 1.0
"""The default of `stop_timeout` for what surrounds the service."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Ground:
    """What every step of resolving reads."""

    manifest: Manifest
    registry: Registry
    tables: Tables
    report: Report
    warn: Report
    """As `report`, for what is allowed."""
    lent: Mapping[str, Wired] | None = None
    """Drivers of the manifest that this one is inside of, by the names that they have here; None if it is inside of none."""
    lent_contracts: Mapping[str, Contract] = attrs.field(factory=dict[str, Contract])
    """Of those that have one."""
    processes: int = 1
    """How many processes each have all of it."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Wired:
    """A driver or dispatcher with what is known of it; what is wrong has been reported."""

    entry: Entry[DriverTable]
    cls: type[Component] | None
    config: object
    driver: str | None
    """Name of a driver that exists."""
    protocol: str | None
    """Key of a protocol that exists."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Wiring:
    """All that is not a worker."""

    drivers: Mapping[str, Wired]
    dispatchers: Mapping[str, Wired]
    protocols: Mapping[str, ProtocolSpec]
    contracts: Mapping[str, Contract] = attrs.field(factory=dict[str, Contract])
    """Of drivers, by name."""

    def driver_class(self, name: str | None) -> type[AnyDriver] | None:
        """Return the class of a driver, or None if there is none or it could not be loaded."""
        wired = self.drivers.get(name) if name is not None else None
        return cast("type[AnyDriver] | None", wired.cls) if wired else None

    def capabilities(self, name: str | None) -> frozenset[Capability]:
        """Return what the broker of a driver can do; all if that is not known, since its table is wrong."""
        wired = self.drivers.get(name) if name is not None else None
        if wired is None or wired.cls is None or wired.config is None:
            return frozenset(Capability)
        return cast("type[AnyDriver]", wired.cls).capabilities_of(wired.config)

    def dispatcher_class(self, name: str | None) -> type[Dispatcher] | None:
        """Return the class of a dispatcher, or None if there is none or it could not be loaded."""
        wired = self.dispatchers.get(name) if name is not None else None
        return cast("type[Dispatcher] | None", wired.cls) if wired else None


def refer(tables: Tables, kind: str, name: str | None, at: tuple[str, ...], report: Report) -> str | None:
    """Return a name if there is such a component, else report the problem with it and return None."""
    entries = tables.of(kind)
    if name is None or name in entries:
        return name
    if f"{kind}/{name}" in tables.disabled:
        report(at, f"{kind}/{name} is disabled (enabled = false)")
    else:
        bare = name.removeprefix(f"{kind}/")
        there_are = f"; there are: {listed(entries)}" if entries else f": the manifest has no [{SECTIONS[kind]}]"
        report(at, f'there is no {kind} "{name}"{did_you_mean(bare, entries) or there_are}')
    return None


def plugin_of(entry: Entry[DriverTable] | Entry[ProtocolTable]) -> str:
    """Return the name of a component's plugin, or the import path of its class."""
    table = entry.table
    return (table and (table.use or table.plugin)) or entry.name


def lacks(wiring: Wiring, driver: str | None) -> str:
    """Return `driver/queue (plugin "memory") cannot do`."""
    plugin = plugin_of(wiring.drivers[driver].entry) if driver else ""
    return f'driver/{driver} (plugin "{plugin}") cannot do'


def is_broker(driver: type[AnyDriver] | None) -> bool:
    """Return whether a driver's resource is a broker."""
    return driver is not None and issubclass(driver.provides, Broker)


def stop_timeout_of(wired: Wired) -> float:
    """Return how long a component may take to close; what surrounds adds to every chain of the stop budget."""
    table = cast("DriverTable", wired.entry.table)
    is_given = "stop_timeout" in wired.entry.given or wired.cls is None or not wired.cls.surrounds
    return table.stop_timeout if is_given else SURROUNDING_STOP_TIMEOUT
