"""The plan as values: what `resolve` makes and everything that runs reads.

Frozen and complete: whoever holds a `Plan` needs neither the manifest nor the registry any more.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, final

import attrs

from ..errors import Problem
from .components import Dispatcher, Driver, Protocol
from .contract import Contract
from .envelope import Message
from .event import Event
from .fields import ByFields
from .policies import BatchPolicy, KillSwitchPolicy, LogPolicy, RatePolicy, RestartPolicy, RetryPolicy
from .secret import Secret

Filter: TypeAlias = Callable[[object], object]
"""Payload -> whether the worker is to handle it."""
Translator: TypeAlias = Callable[[Message], object]
"""Message -> the `Message` that takes its place."""


class Strategy(enum.Enum):
    """Who is restarted with a failed member of a group. Source: OTP supervisor(3), restart strategies."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ComponentSpec(ByFields):
    """What the supervisor knows of every component."""

    id: str
    """`kind/name`."""
    name: str
    where: str
    """`file:line` of its table."""
    restart: RestartPolicy = RestartPolicy()
    essential: bool = True
    """Whether its failure stops the service."""
    start_timeout: float = 30.0
    """Seconds to become ready."""
    stop_timeout: float = 2.0
    """Seconds to close, all in all: cancelled after three quarters of them, left behind at their end."""
    uses: tuple[str, ...] = ()
    """Ids of components whose resources it holds: started before, stopped after, and it restarts with them."""
    after: tuple[str, ...] = ()
    """Ids of components that only have to be started before it and stopped after it."""
    on_reload: bool = False
    """Whether it restarts with every reload, as what reads more than its specification says has to."""

    def __repr__(self) -> str:
        # Not attrs', which takes half as long to make as the rest of the class, at every start.
        return f"<{type(self).__name__} {self.id}>"


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class ProtocolSpec(ByFields):
    """A protocol; it has no life of its own, so the supervisor does not know it."""

    __repr__ = object.__repr__  # it holds what nobody may see in a traceback

    name: str
    cls: type[Protocol]
    config: object
    inbound: tuple[Translator, ...] = ()
    """What a decoded message passes through."""
    outbound: tuple[Translator, ...] = ()
    """What a message passes through before it is encoded."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class DriverSpec(ComponentSpec):
    """A driver; `driver` and `protocol` are what it uses in turn (a publisher uses a broker)."""

    cls: type[Driver[object]]
    config: object
    driver: str | None = None
    """Id, such as `driver/queue`."""
    protocol: str | None = None
    """Key in `Plan.protocols`."""
    contract: Contract | None = None
    """What all that it sends is held against."""
    interceptors: tuple[InterceptorSpec, ...] = ()
    """What stands around each send, the first outermost."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class DispatcherSpec(ComponentSpec):
    """A dispatcher and the workers that it feeds."""

    cls: type[Dispatcher]
    config: object
    driver: str | None = None
    protocol: str | None = None
    concurrency: int = 10
    rate: RatePolicy | None = None
    batch: BatchPolicy | None = None
    fan_out: bool = False
    """Whether each delivery goes to every worker that has a handler for it."""
    workers: tuple[str, ...] = ()
    """Names of workers, in the order of the manifest."""
    interceptors: tuple[InterceptorSpec, ...] = ()
    """What stands around each call of a handler, the first outermost."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class HandlerSpec(ByFields):
    """One handler of a worker, its signature already looked at."""

    method: str
    """Name of the method; empty if the worker is a function."""
    patterns: tuple[str, ...]
    """Subjects it handles; `*` stands for one word, `#` for any number."""
    convert: Callable[[object], object] = attrs.field(repr=False)
    """Payload -> the annotated type of the first parameter; raises `ConversionError`. Identity if unannotated.

    For a call: payload -> `Arguments`, ready to be called with; raises `ArgumentsError`."""
    parameters: str | None = None
    """What the arguments of a call go to, as Python writes it; None if the handler takes a payload."""
    envelope_parameter: str | None = None
    """Name of the parameter that wants the `Envelope`."""
    delivery_parameter: str | None = None
    """Name of the parameter that wants the `Delivery`."""
    batch_parameter: str | None = None
    """Name of the parameter that wants the `Batch`."""
    item: object = attrs.field(default=None, repr=False)
    """The annotated type of the items, if the first parameter is a list; only the plan asks."""
    check_result: Callable[[object], object] | None = attrs.field(default=None, repr=False)
    """Raises `ConversionError` for a result that is not what the annotation promises; None if it promises nothing."""
    signature: inspect.Signature | None = attrs.field(default=None, repr=False)
    """What is sent to it and what it answers, annotations resolved; only who compares and who describes asks."""
    is_plain: bool = attrs.field(
        init=False,
        default=attrs.Factory(lambda self: _takes_payload_only(self), takes_self=True),  # noqa: PLW0108  defined below
    )
    """Whether it is given the payload and nothing else, as most are. Known beforehand: every delivery asks."""


def _takes_payload_only(handler: HandlerSpec) -> bool:
    extras = (handler.parameters, handler.envelope_parameter, handler.delivery_parameter)
    return all(extra is None for extra in extras)


class Asked(enum.Enum):
    """What a worker is given because a parameter is annotated with it."""

    CONTEXT = "context"
    """The worker's `Context`."""
    LOG = "log"
    """A logger of structlog, bound to the worker."""
    LOGGER = "logger"
    """A logger of `logging`, called like the worker."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class InterceptorSpec(ByFields):
    """What stands around the sends of a driver, or the calls of handlers; it has an object for each life of those."""

    name: str
    """Its import path."""
    use: Callable[..., object] = attrs.field(repr=False)
    drivers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Parameter -> driver id."""
    asked: Mapping[str, Asked | tuple[type[Event], ...]] = attrs.field(factory=dict[str, Any])
    """As that of a worker."""
    is_context: bool = False
    """Whether the object is an async context manager, entered for the life."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class WorkerSpec(ComponentSpec):
    """A worker: a class (an object per instance) or an async function.

    A function with a dispatcher, or named as a failure worker, is a handler; without, it is the `run` loop itself.
    """

    use: Callable[..., object]
    is_function: bool
    dispatcher: str | None = None
    """Id, such as `dispatcher/orders`."""
    options: object = None
    """An instance of the dispatcher's `WorkerOptions`, or None."""
    drivers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Parameter -> driver id."""
    clients: Mapping[str, Contract] = attrs.field(factory=dict[str, Contract])
    """Those of these parameters that are given an object of the driver's contract, and not its resource."""
    asked: Mapping[str, Asked | tuple[type[Event], ...]] = attrs.field(factory=dict[str, Any])
    """Parameter -> what it is given for its annotation; for types of events, a channel in which they arrive."""
    config_parameter: str | None = None
    config: object = None
    handlers: tuple[HandlerSpec, ...] = ()
    filter: Filter | None = None
    """Asked about every payload, as the protocol decoded it, before a handler is given it; None lets all through."""
    is_context: bool = False
    """Whether instances are async context managers."""
    runs: bool = False
    """Whether instances have `run`, or the function is one."""
    oneshot: bool = False
    """Whether `run` comes to an end, and those that depend on the worker wait for that."""
    main: bool = False
    """Whether the service ends when its `run` has returned, with what that returned as its exit status."""
    instances: int = 1
    concurrency: int | None = None
    """Handlers at a time in one instance; None leaves it to the dispatcher's."""
    timeout: float = 600.0
    """Seconds that a handler may take; then it is cancelled and has failed."""
    retry: RetryPolicy = RetryPolicy()
    kill_switch: KillSwitchPolicy | None = None
    runs_in: str | None = None
    """Id of the driver whose `Executor` calls its handlers, which are plain; None calls them in the event loop."""
    failure_worker: str | None = None
    """Name of the worker that gets what this one failed at for good, instead of the dead letters."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class GroupSpec(ByFields):
    """Workers that belong together."""

    name: str
    strategy: Strategy
    members: tuple[str, ...]
    """Ids, in start order."""
    restart: RestartPolicy
    """Restarts of all members count together; its `policy` is not used: each member has its own."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class HookSpec(ByFields):
    """A function that receives events as they happen."""

    name: str
    """Its import path."""
    call: Callable[[Event], object] = attrs.field(repr=False)
    types: tuple[type[Event], ...]


class Direction(enum.Enum):
    """In what order the hooks of a stage are called. Source: systemPY."""

    FORWARD = "forward"
    """In start order, one after the other."""
    BACKWARD = "backward"
    """In the reverse of it."""
    GATHER = "gather"
    """All at once."""


class Zone(enum.Enum):
    """How much of a service there is at a stage."""

    PROCESS = "process"
    """No event loop."""
    LOOP = "loop"
    """No component is open."""
    ALIVE = "alive"
    """All are."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class StageHook(ByFields):
    """A method that is called at a stage."""

    component: str
    """Id."""
    method: str
    owner: type[object] = attrs.field(repr=False)
    takes_reason: bool = False
    """Whether it is given the reason of the stop."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class StageSpec(ByFields):
    """A named point in the life of a service at which components do something besides opening and closing."""

    name: str
    zone: Zone
    is_rising: bool
    """Whether it is on the way up."""
    direction: Direction
    timeout: float
    """Seconds for all of its hooks together."""
    hooks: tuple[StageHook, ...]
    """In the order in which they are called."""


@final
@attrs.frozen(eq=False, repr=False)
class Wait(ByFields):
    """One bounded wait of the stop, for the proof that they fit."""

    what: str
    seconds: float


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class StopBudget(ByFields):
    """The longest that a stop can take, and why."""

    waits: tuple[Wait, ...]
    grace_period: float

    @property
    def seconds(self) -> float:
        """The sum of the waits."""
        return sum(wait.seconds for wait in self.waits)


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Value(ByFields):
    """One effective value and where it came from, for `kernel plan`."""

    path: str
    """`[table].key`."""
    shown: str
    """The value as TOML; a `Secret` is `***`."""
    origin: str
    """`kernel.toml:12`, `--set`, `default`, ..."""


def _unplaced(_at: tuple[str, ...], text: str) -> Problem:
    """Say what is wrong with a manifest of which no line is known."""
    return Problem("<plan>", 0, "", text)


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class ServiceSpec(ByFields):
    """A service inside the service: its components are `kind/NAME/name`."""

    name: str
    """`NAME`; `OUTER/NAME` if it is inside of one that is inside."""
    service: str
    """What its own manifest calls it."""
    directory: Path
    """Its manifest's folder, absolute."""
    where: str
    """`file:line` of its table."""
    essential: bool
    """Whether its failure is the failure of what it is inside of."""
    vital: frozenset[str]
    """Ids of the components whose failure for good is its own."""
    main: bool
    """Whether what it is inside of ends with it."""
    restart: RestartPolicy | None = None
    """When all of it is started again, if it has failed; None if it is not."""


AnySpec: TypeAlias = DriverSpec | DispatcherSpec | WorkerSpec


def is_resident(spec: AnySpec) -> bool:
    """Return whether a component is there for others only: a service has ended when all that are not have."""
    return not spec.runs if isinstance(spec, WorkerSpec) else isinstance(spec, DriverSpec) or spec.cls.surrounds


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Plan(ByFields):
    """A manifest resolved against the installed plugins: everything is checked, nothing is open."""

    __repr__ = object.__repr__  # it holds what nobody may see in a traceback

    path: str
    """Of the manifest, as it is shown."""
    name: str
    grace_period: float
    """Seconds from the stop request to the last exit."""
    drain_timeout: float
    """Seconds for what is in flight, inside the grace period."""
    protocols: Mapping[str, ProtocolSpec]
    components: Mapping[str, AnySpec]
    """By id, in start order: whatever a component `uses` or comes `after` stands before it."""
    groups: Sequence[GroupSpec]
    budget: StopBudget
    warnings: tuple[Problem, ...] = ()
    """What is allowed and does something that its author may not expect, in the order of the file."""
    directory: Path = Path()
    """The manifest's folder, absolute."""
    hooks: tuple[HookSpec, ...] = ()
    stages: tuple[StageSpec, ...] = ()
    """Those at which anybody does anything, in their order."""
    services: Mapping[str, ServiceSpec] = attrs.field(factory=dict[str, ServiceSpec])
    """Those inside of it, by name, each after the one that it is inside of."""
    log: LogPolicy = LogPolicy()
    control: bool = True
    """Whether `kernel run` listens on a control socket."""
    processes: int = 1
    """How many processes `kernel run` starts, each with all of it."""
    process_restart: RestartPolicy = RestartPolicy()
    """When one of them that has ended is started again; its `policy` is not used."""
    secrets: tuple[Secret, ...] = attrs.field(default=(), eq=False)
    """Every secret that the manifest names: what is inside of them is never logged."""
    tables: Mapping[str, object] = attrs.field(factory=dict[str, object], eq=False, repr=False)
    """The manifest's tables that it was made of, with nothing from outside left to be replaced; empty if it was made of
    none. Secrets stand in them."""
    problem: Callable[[tuple[str, ...], str], Problem] = attrs.field(default=_unplaced, eq=False, repr=False)
    """Returns a problem with what stands at a path of the manifest."""
    values: Callable[[], Sequence[Value]] = attrs.field(default=tuple, eq=False, repr=False)
    """Lists what the manifest means: only `kernel plan` asks, and a service need not hold the answer."""

    def service_of(self, id_: str) -> ServiceSpec | None:
        """Return the service inside this one that a component belongs to; None if it is this one's own."""
        return self.services.get(id_.partition("/")[2].rpartition("/")[0]) if self.services else None
