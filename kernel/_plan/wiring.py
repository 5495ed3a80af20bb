"""Drivers, dispatchers and protocols with their plugins loaded, and their tables structured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import attrs

from .._convert.imports import NotImportableError, import_function, import_object
from .._convert.strict import is_table
from .._convert.structure import structure
from .._core.spec import ProtocolSpec, Translator
from .._core.words import did_you_mean, unknown
from .._manifest.registry import CONTRACTS, component_fault
from .._manifest.tables import RESERVED, DriverTable, Entry, ProtocolTable, Report, Tables, under
from ..abc import Component, Protocol
from ..errors import PluginError, PluginNotFoundError
from .ground import AnyDriver, Ground, Wired, Wiring, plugin_of, refer
from .plugin_checks import faults

_OPTIONS: Final = "options"
_CONTRACT: Final = "contract"


def wire(ground: Ground) -> Wiring:
    """Load all plugins that the manifest names, structure their tables and check what each is tied to."""
    tables, report = ground.tables, ground.report
    lent = ground.lent or {}
    drivers = {
        name: lent[name].cls if name in lent else _load(ground, "driver", entry)
        for name, entry in tables.drivers.items()
    }
    dispatchers = {name: _load(ground, "dispatcher", entry) for name, entry in tables.dispatchers.items()}
    protocols = _Protocols(ground)
    for name, entry in tables.protocols.items():
        protocols.declare(name, entry)
    wiring = Wiring(
        drivers={
            name: _lent(lent[name], tables.drivers[name])
            if name in lent
            else _wire_one(ground, tables.drivers[name], cls, drivers, protocols)
            for name, cls in drivers.items()
        },
        dispatchers={
            name: _wire_one(ground, tables.dispatchers[name], cls, drivers, protocols)
            for name, cls in dispatchers.items()
        },
        protocols=protocols.found,
    )
    own = [wired for name, wired in wiring.drivers.items() if name not in lent]
    for wired in (*own, *wiring.dispatchers.values()):
        for path, text in faults(wired, wiring, tables):
            report((*wired.entry.at, *path), text)
    return wiring


def _lent(wired: Wired, entry: Entry[DriverTable]) -> Wired:
    return Wired(entry=entry, cls=wired.cls, config=wired.config, driver=None, protocol=None)


def with_lent(tables: Tables, lent: Mapping[str, Wired]) -> Tables:
    """Return tables with drivers that the manifest outside opens, by the names that they have here."""
    entries = {name: _lent_entry(name, plugin_of(wired.entry)) for name, wired in lent.items()}
    return attrs.evolve(tables, drivers={**entries, **tables.drivers})


def _lent_entry(name: str, plugin: str) -> Entry[DriverTable]:
    table = DriverTable(plugin=plugin)
    return Entry(id=f"driver/{name}", name=name, at=("drivers", name), table=table, wrong=frozenset(), given={})


def _load(ground: Ground, kind: str, entry: Entry[DriverTable] | Entry[ProtocolTable]) -> type[Component] | None:
    if entry.table is None or entry.wrong & {"plugin", "use"}:
        return None
    if entry.table.use is not None:
        if entry.table.plugin is not None:
            ground.report((*entry.at, "plugin"), "does not go with use: write one of them")
        return _import_own(ground, kind, entry.table.use, (*entry.at, "use"))
    if entry.table.plugin is None and (key := _misspelt_plugin(ground, kind, entry)):
        ground.report((*entry.at, key), unknown("key", key, sorted(RESERVED[entry.at[0]])))
        return None
    at = (*entry.at, "plugin") if entry.table.plugin else entry.at
    return _load_plugin(ground, kind, entry.table.plugin or entry.name, at)


def _misspelt_plugin(ground: Ground, kind: str, entry: Entry[DriverTable] | Entry[ProtocolTable]) -> str | None:
    """Return the key that must have been meant as `plugin` or `use`, where the component's name is no plugin."""
    if not _is_missing(ground, kind, entry.name):
        return None
    return next((key for key in entry.rest if did_you_mean(key, ("plugin", "use"))), None)


def _is_missing(ground: Ground, kind: str, name: str) -> bool:
    """Return whether no plugin has that name; one that is broken has."""
    try:
        ground.registry.find(kind, name)
    except PluginError as error:
        return isinstance(error, PluginNotFoundError)
    return False


def _import_own(ground: Ground, kind: str, path: str, at: tuple[str, ...]) -> type[Component] | None:
    """Import a component class of the service's own."""
    try:
        found = import_object(path, directory=ground.manifest.directory)
    except NotImportableError as error:
        ground.report(at, str(error))
        return None
    if fault := component_fault(found, CONTRACTS[kind]):
        ground.report(at, f'"{path}" is no {kind}: {fault}')
        return None
    return cast("type[Component]", found)


def _load_plugin(ground: Ground, kind: str, name: str, at: tuple[str, ...]) -> type[Component] | None:
    try:
        return cast("type[Component]", ground.registry.load(kind, name))  # the registry has looked
    except PluginError as error:
        ground.report(at, str(error))
        return None


class _Protocols:
    """Protocols by key: those with tables, and those that are only named, with the plugin's default configuration."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._broken: set[str] = set()
        self.found: dict[str, ProtocolSpec] = {}

    def declare(self, name: str, entry: Entry[ProtocolTable]) -> None:
        cls = _load(self._ground, "protocol", entry)
        inbound, outbound = (tuple(_translators(self._ground, entry, key)) for key in ("inbound", "outbound"))
        self._add(name, cls, entry.rest, under(self._ground.report, *entry.at))
        if name in self.found:
            self.found[name] = attrs.evolve(self.found[name], inbound=inbound, outbound=outbound)

    def refer(self, name: str | None, at: tuple[str, ...]) -> str | None:
        """Return the key of a protocol, loading the plugin of that name if the manifest has no table for it."""
        tables = self._ground.tables
        if name is None or name in self.found:
            return name
        if name in self._broken or f"protocol/{name}" in tables.disabled:
            return refer(tables, "protocol", name, at, self._ground.report)
        if _is_missing(self._ground, "protocol", name) and (near := did_you_mean(name, tables.protocols)):
            self._ground.report(at, f'there is no protocol "{name}"{near}')
            return None
        cls = _load_plugin(self._ground, "protocol", name, at)
        self._add(name, cls, {}, _needing_a_table(self._ground.report, name, at))
        return name if name in self.found else None

    def _add(self, name: str, cls: type[Component] | None, given: Mapping[str, object], report: Report) -> None:
        config = None if cls is None else _structured(self._ground, cls, given, "protocols", report)
        if cls is None or config is None:
            self._broken.add(name)
        else:
            self.found[name] = ProtocolSpec(name=name, cls=cast("type[Protocol]", cls), config=config)


def _translators(ground: Ground, entry: Entry[ProtocolTable], key: str) -> Iterator[Translator]:
    """Import the functions that a protocol's messages pass through."""
    paths: tuple[str, ...] = getattr(entry.table, key, ())
    for index, path in enumerate(paths):
        try:
            yield import_function(path, directory=ground.manifest.directory, taking="the message")
        except NotImportableError as error:
            ground.report((*entry.at, key, str(index)), str(error))


def _needing_a_table(report: Report, name: str, at: tuple[str, ...]) -> Report:
    prefix = f'plugin "{name}" needs a table, [protocols.{name}]'
    return lambda path, text: report(at, f"{prefix}: {'.'.join(path)}{' ' if path else ''}{text}")


def _structured(
    ground: Ground, cls: type[Component], given: Mapping[str, object], section: str, report: Report
) -> object | None:
    directory = ground.manifest.directory
    config = structure(given, cls.Config, report=report, also_allowed=RESERVED[section], directory=directory)
    for text in cls.check(config) if config is not None else ():
        report((), text)
    if config is not None and ground.processes > 1:
        for text in cls.check_shared(config):
            report((), text)
    return config


def _wire_one(
    ground: Ground,
    entry: Entry[DriverTable],
    cls: type[Component] | None,
    drivers: Mapping[str, type[Component] | None],
    protocols: _Protocols,
) -> Wired:
    table = entry.table or DriverTable()
    driver = refer(ground.tables, "driver", table.driver, (*entry.at, "driver"), ground.report)
    protocol = protocols.refer(table.protocol, (*entry.at, "protocol"))
    config = _read_config(ground, entry, cls, _driver_class(drivers, driver)) if cls else None
    return Wired(entry=entry, cls=cls, config=config, driver=driver, protocol=protocol)


def _driver_class(drivers: Mapping[str, type[Component] | None], name: str | None) -> type[AnyDriver] | None:
    return cast("type[AnyDriver] | None", drivers.get(name)) if name else None


def _read_config(
    ground: Ground, entry: Entry[DriverTable], cls: type[Component], driver: type[AnyDriver] | None
) -> object | None:
    rest = entry.rest
    if _CONTRACT in entry.given and reads_contracts(cls):
        rest[_CONTRACT] = entry.given[_CONTRACT]
    options = rest.pop(_OPTIONS, None) if driver and _leaves_options_to_the_broker(cls) else None
    config = _structured(ground, cls, rest, entry.at[0], under(ground.report, *entry.at))
    if driver is None or options is None:
        return config
    structured = _read_options(options, driver, entry, ground)
    return attrs.evolve(cast("Any", config), options=structured) if config is not None else None


def reads_contracts(cls: type[Component]) -> bool:
    """Return whether a plugin reads the key `contract` itself: what it calls is something else than a handler."""
    return _CONTRACT in attrs.fields_dict(cast("type[attrs.AttrsInstance]", cls.Config))


def _leaves_options_to_the_broker(cls: type[Component]) -> bool:
    fields = attrs.fields_dict(cast("type[attrs.AttrsInstance]", cls.Config))
    return _OPTIONS in fields and fields[_OPTIONS].type in {object, "object"}


def _read_options(options: object, driver: type[AnyDriver], entry: Entry[DriverTable], ground: Ground) -> object | None:
    report = ground.report
    name = entry.table.driver if entry.table else None
    if driver.BrokerOptions is None:
        report((*entry.at, _OPTIONS), f"driver/{name} takes no options")
    elif not is_table(options):
        report((*entry.at, _OPTIONS), f"must be a table: options of driver/{name}")
    else:
        directory = ground.manifest.directory
        return structure(options, driver.BrokerOptions, report=under(report, *entry.at, _OPTIONS), directory=directory)
    return None
