"""The keys of the manifest that belong to the kernel, as attrs classes.

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

from .._core.policies import (
    Backoff,
    BatchPolicy,
    KillSwitchPolicy,
    LogPolicy,
    RatePolicy,
    RestartPolicy,
    RetryPolicy,
)
from .._core.spec import Direction, Strategy

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
