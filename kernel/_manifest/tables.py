"""The keys of the manifest that belong to the kernel, as attrs classes, and the tables split into those and the rest.

Knows no plugin: what is left of a table when these keys are taken out goes to the plugin's `Config`.

Long, since it is a list: one class for each table, and nothing to think about.

Here and in the other modules of resolving, attrs classes do without `==` and a repr, which nobody asks for: to write
those methods takes attrs longer than all else, and every start pays for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Generic, Literal, TypeAlias, TypeVar, cast, final

import attrs

from .._convert.strict import is_table
from .._convert.structure import structure
from .._core.policies import (
    Backoff,
    BatchPolicy,
    KillSwitchPolicy,
    LogPolicy,
    RatePolicy,
    Restart,
    RestartPolicy,
    RetryPolicy,
)
from .._core.spec import Direction, Strategy
from .inside import is_disabled
from .manifest import Manifest

Report: TypeAlias = Callable[[tuple[str, ...], str], None]
"""Takes every problem: where, and what."""

MAX_CONCURRENCY: Final = 10_000
MAX_GRACE_PERIOD: Final = 86_400.0
MAX_PROCESSES: Final = 64

SECTIONS: Final = {"driver": "drivers", "protocol": "protocols", "dispatcher": "dispatchers", "worker": "workers"}
"""Kind of component -> its table of tables."""


def seconds(default: float) -> float:
    """Return an attrs field of seconds: more than 0, finite."""
    field: float = attrs.field(default=default, validator=_check_seconds)
    return field


def _check_seconds(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"'{attribute.name}' must be a finite number of seconds above 0, got {value!r}")


def _check_optional_seconds(owner: object, attribute: attrs.Attribute[float | None], value: float | None) -> None:
    if value is not None:
        _check_seconds(owner, cast("attrs.Attribute[float]", attribute), value)


def count(default: int) -> int:
    """Return an attrs field of a number from 1 to `MAX_CONCURRENCY`."""
    field: int = attrs.field(default=default, validator=_check_count)
    return field


def _check_count(_: object, attribute: attrs.Attribute[int], value: int | None) -> None:
    if value is not None and not 1 <= value <= MAX_CONCURRENCY:
        raise ValueError(f"'{attribute.name}' must be from 1 to {MAX_CONCURRENCY}, got {value!r}")


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class KernelTable:
    """`[kernel]`."""

    name: str | None = None
    """Of the service; that of the manifest's folder by default."""
    grace_period: float = seconds(25.0)
    """Seconds from the stop request to the last exit; up to a day."""
    drain_timeout: float = seconds(15.0)
    """Seconds for what is in flight; less than `grace_period`."""
    plugins: tuple[str, ...] | None = None
    """Names of plugins that may be used; None allows all that are installed."""
    hooks: tuple[str, ...] = ()
    """Import paths `module:function`: what receives events."""
    processes: int = attrs.field(default=1, validator=[attrs.validators.ge(1), attrs.validators.le(MAX_PROCESSES)])
    """How many processes `kernel run` starts, each with all of the service."""
    process_restart: RestartPolicy = RestartPolicy()
    """When one of several processes that has ended is started again; its `policy` is not used."""
    control: bool = True
    """Whether `kernel run` listens on a control socket, for `kernel tree` and its like."""
    extends: str | None = None
    """Path of the manifest that this one lies over."""
    setup: str | None = None
    """Import path `module:function`: what may lay tables over the manifest."""
    arguments: Mapping[str, object] = attrs.field(factory=dict[str, object])
    """Name -> value of what may be given on the command line."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LifeTable:
    """Keys of everything that is started and stopped."""

    enabled: bool = True
    depends: tuple[str, ...] = ()
    """Components that must be ready first: `kind/name`, or the name alone where it is the only one."""
    essential: bool = True
    restart: RestartPolicy = RestartPolicy()
    start_timeout: float = seconds(30.0)
    stop_timeout: float = seconds(2.0)
    on_reload: Literal["compare", "restart"] = "compare"
    """What a reload does with it: nothing if it is specified as before, or a restart in any case."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DriverTable(LifeTable):
    """`[drivers.NAME]`, and what `[dispatchers.NAME]` has too."""

    plugin: str | None = None
    """The component's own name by default."""
    use: str | None = None
    """Import path `module:Class` of a component class of the service's own, instead of a plugin."""
    driver: str | None = None
    protocol: str | None = None
    interceptors: tuple[str, ...] = ()
    """Import paths `module:Class`: what stands around each send, or each call of a handler; the first outermost."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class SenderTable(DriverTable):
    """`[drivers.NAME]`, with what no dispatcher has."""

    contract: str | None = None
    """Import path `module:Class` of what it may send, and of what it expects to get."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class DispatcherTable(DriverTable):
    """`[dispatchers.NAME]`."""

    concurrency: int = count(10)
    rate: RatePolicy | None = None
    batch: BatchPolicy | None = None
    workers: str = "declared"
    """Where its workers are found: `declared` in the manifest, `installed`, or in a module or package of this name."""
    fan_out: bool = False
    """Whether each delivery goes to every worker that has a handler for it."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class ProtocolTable:
    """`[protocols.NAME]`."""

    enabled: bool = True
    plugin: str | None = None
    use: str | None = None
    inbound: tuple[str, ...] = ()
    """Import paths `module:function`: what decoded messages pass through."""
    outbound: tuple[str, ...] = ()
    """Import paths `module:function`: what messages pass through before they are encoded."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class RetryTable(Backoff):
    """`[workers.NAME.retry]`: a `RetryPolicy` whose exceptions are still names."""

    attempts: int = attrs.field(default=RetryPolicy().attempts, validator=attrs.validators.ge(1))
    on: tuple[str, ...] = ("Exception",)

    @property
    def waits(self) -> bool:
        """Whether another attempt comes later, not at once."""
        return self.attempts > 1 and self.backoff_initial > 0 and self.backoff_max > 0


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class WorkerTable(LifeTable):
    """`[workers.NAME]`."""

    use: str
    dispatcher: str | None = None
    drivers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    config: Mapping[str, object] | None = None
    options: Mapping[str, object] | Literal["arguments"] | None = None
    timeout: float = seconds(600.0)
    retry: RetryTable = RetryTable()
    kill_switch: KillSwitchPolicy | None = None
    concurrency: int | None = attrs.field(default=None, validator=_check_count)
    instances: int = count(1)
    runs_in: str | None = None
    """Name of a driver whose resource calls the handlers, which are plain then: in threads, or in processes."""
    oneshot: bool = False
    """Whether those that depend on it wait until its `run` has returned. Source: systemd, `Type=oneshot`."""
    main: bool = False
    """Whether the service ends when its `run` has returned. Source: service-framework, main mode."""
    failure_worker: str | None = None
    filter: str | None = None
    """Import path `module:function`: asked whether a payload is to be handled."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class GroupTable:
    """`[groups.NAME]`."""

    strategy: Strategy
    members: tuple[str, ...]
    restart: RestartPolicy = RestartPolicy()


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class StageTable:
    """`[stages.NAME]`."""

    after: str | None = None
    """Name of the stage that it follows; for a stage of one's own."""
    before: str | None = None
    """Name of the stage that follows it; one of both for a stage of one's own."""
    direction: Direction | None = None
    """None is `forward` on the way up, and `backward` on the way down."""
    timeout: float | None = attrs.field(default=None, validator=_check_optional_seconds)
    """Seconds for all of it; None is 30 on the way up, and 1 on the way down."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class ServiceTable:
    """`[services.NAME]`."""

    manifest: str = attrs.field(validator=attrs.validators.min_len(1))
    """Path of the manifest that is run inside, from this one's folder."""
    enabled: bool = True
    drivers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Name of a driver in it -> that of this manifest's driver that takes its place."""
    set: Mapping[str, object] = attrs.field(factory=dict[str, object])
    """Tables that are laid over it."""
    depends: tuple[str, ...] = ()
    """Components of this manifest that must be ready before any of it."""
    essential: bool = True
    main: bool = False
    """Whether this service ends when all that works by itself in it has ended."""
    restart: RestartPolicy | None = None
    """When all of it is started again; None leaves it to its components."""


TableT_co = TypeVar("TableT_co", covariant=True)


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Entry(Generic[TableT_co]):
    """One component of the manifest, before anything is known of its plugin."""

    id: str
    """`kind/name`."""
    name: str
    at: tuple[str, ...]
    table: TableT_co | None
    """Its reserved keys, wrong ones left out; None if nothing can be said without those."""
    wrong: frozenset[str]
    """Keys that something is wrong with: what follows from them says nothing."""
    given: Mapping[str, object]
    """All that the manifest says."""

    @property
    def rest(self) -> dict[str, object]:
        """What is the plugin's."""
        return {key: value for key, value in self.given.items() if key not in RESERVED[self.at[0]]}


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Tables:
    """The manifest's tables, disabled components left out."""

    kernel: KernelTable
    logging: LogPolicy
    drivers: Mapping[str, Entry[DriverTable]]
    protocols: Mapping[str, Entry[ProtocolTable]]
    dispatchers: Mapping[str, Entry[DispatcherTable]]
    workers: Mapping[str, Entry[WorkerTable]]
    groups: Mapping[str, GroupTable]
    stages: Mapping[str, StageTable]
    services: Mapping[str, ServiceTable]
    disabled: frozenset[str]
    """Ids."""

    def of(self, kind: str) -> Mapping[str, Entry[object]]:
        """Return the components of a kind by name."""
        return {
            "driver": self.drivers,
            "protocol": self.protocols,
            "dispatcher": self.dispatchers,
            "worker": self.workers,
        }[kind]

    def with_lives(self) -> Iterator[Entry[DriverTable] | Entry[WorkerTable]]:
        """Iterate over all components that are started and stopped."""
        yield from self.drivers.values()
        yield from self.dispatchers.values()
        yield from self.workers.values()


RESERVED: Final[Mapping[str, frozenset[str]]] = {
    section: frozenset(field.name for field in attrs.fields(cls))
    for section, cls in {
        "drivers": SenderTable,
        "protocols": ProtocolTable,
        "dispatchers": DispatcherTable,
        "workers": WorkerTable,
    }.items()
}
"""Table of tables -> the keys that no plugin gets."""


def under(report: Report, *at: str) -> Report:
    """Return a report for paths relative to `at`."""
    return lambda path, text: report((*at, *path), text)


def read_tables(manifest: Manifest, report: Report) -> Tables:
    """Structure all keys that belong to the kernel."""
    disabled: set[str] = set()
    drivers = _entries(manifest, "driver", SenderTable, disabled, report)
    protocols = _entries(manifest, "protocol", ProtocolTable, disabled, report)
    dispatchers = _entries(manifest, "dispatcher", DispatcherTable, disabled, report)
    workers = _entries(manifest, "worker", WorkerTable, disabled, report)
    return Tables(
        kernel=_read_kernel(manifest, report),
        logging=_read_logging(manifest, report),
        drivers=drivers,
        protocols=protocols,
        dispatchers=dispatchers,
        workers=workers,
        groups=_read_named(manifest, "groups", GroupTable, report),
        stages=_read_named(manifest, "stages", StageTable, report),
        services=_read_services(manifest, report),
        disabled=frozenset(disabled),
    )


def section(manifest: Manifest, name: str) -> Mapping[str, Mapping[str, object]]:
    """Return a table of tables, empty if the manifest has none."""
    return cast("Mapping[str, Mapping[str, object]]", manifest.tables.get(name, {}))


def _read_kernel(manifest: Manifest, report: Report) -> KernelTable:
    table = _checked_kernel(manifest, report)
    return KernelTable() if table is None else table


def several_processes(manifest: Manifest) -> KernelTable | None:
    """Return `[kernel]` of a manifest that wants several processes; None if it does not, or it is wrong."""
    given = cast("Mapping[str, object]", manifest.tables.get("kernel", {}))
    if given.get("processes", 1) == 1:
        return None
    wrong: list[str] = []
    table = _checked_kernel(manifest, lambda _at, text: wrong.append(text))
    return None if table is None or wrong or table.processes == 1 else table


def _checked_kernel(manifest: Manifest, report: Report) -> KernelTable | None:
    report = under(report, "kernel")
    given = cast("Mapping[str, object]", manifest.tables.get("kernel", {}))
    table, wrong = _structure_rest(given, KernelTable, report)
    if table is None or wrong & {"grace_period", "drain_timeout"}:
        return table
    if table.grace_period > MAX_GRACE_PERIOD:
        report(("grace_period",), f"must be at most {MAX_GRACE_PERIOD:g} s, got {table.grace_period!r}")
    if table.drain_timeout >= table.grace_period:
        text = f"must be less than grace_period = {table.grace_period!r}, of which it is a part"
        report(("drain_timeout",), f"{text}, got {table.drain_timeout!r}")
    return table


def _read_logging(manifest: Manifest, report: Report) -> LogPolicy:
    given = cast("Mapping[str, object]", manifest.tables.get("logging", {}))
    return structure(given, LogPolicy, report=under(report, "logging")) or LogPolicy()


TableT = TypeVar("TableT")


def _read_named(manifest: Manifest, name: str, cls: type[TableT], report: Report) -> dict[str, TableT]:
    return _structured(name, section(manifest, name), cls, report)


def _structured(
    name: str, tables: Mapping[str, Mapping[str, object]], cls: type[TableT], report: Report
) -> dict[str, TableT]:
    read = {key: structure(given, cls, report=under(report, name, key)) for key, given in tables.items()}
    return {key: table for key, table in read.items() if table is not None}


def _read_services(manifest: Manifest, report: Report) -> dict[str, ServiceTable]:
    given = section(manifest, "services")
    enabled = {name: table for name, table in given.items() if not is_disabled(table.get("enabled"))}
    return _structured("services", enabled, ServiceTable, report)


def _entries(
    manifest: Manifest, kind: str, cls: type[TableT], disabled: set[str], report: Report
) -> dict[str, Entry[TableT]]:
    entries: dict[str, Entry[TableT]] = {}
    for name, given in section(manifest, SECTIONS[kind]).items():
        if is_disabled(given.get("enabled")):
            disabled.add(f"{kind}/{name}")
        else:
            entries[name] = _read_entry(kind, name, given, cls, report)
    return entries


def _read_entry(kind: str, name: str, given: Mapping[str, object], cls: type[TableT], report: Report) -> Entry[TableT]:
    at = (SECTIONS[kind], name)
    # Workers have no plugin, so that a key that is not the kernel's is nobody's.
    own = given if kind == "worker" else {key: given[key] for key in given if key in RESERVED[at[0]]}
    table, wrong = _structure_rest(own, cls, under(report, *at))
    table = _with_policy(table, given)
    return Entry(id=f"{kind}/{name}", name=name, at=at, table=table, wrong=wrong, given=given)


def _with_policy(table: TableT | None, given: Mapping[str, object]) -> TableT | None:
    """Return a table in which what is done once is not started again for having been done, if nothing is said of it."""
    restart = given.get("restart")
    if not isinstance(table, WorkerTable) or (is_table(restart) and "policy" in restart):
        return table
    if table.main:
        return attrs.evolve(table, restart=attrs.evolve(table.restart, policy=Restart.NEVER))
    if table.oneshot:
        return attrs.evolve(table, restart=attrs.evolve(table.restart, policy=Restart.ON_FAILURE))
    return table


def _structure_rest(
    given: Mapping[str, object], cls: type[TableT], report: Report
) -> tuple[TableT | None, frozenset[str]]:
    """Structure a table; if that fails, do so without the keys at fault, so that the others are looked at too."""
    wrong: set[str] = set()

    def note(at: tuple[str, ...], text: str) -> None:
        wrong.add(at[0])
        report(at, text)

    table = structure(given, cls, report=note)
    if table is None:
        rest = {key: value for key, value in given.items() if key not in wrong}
        table = structure(rest, cls, report=lambda _at, _text: None)
    return table, frozenset(wrong)
