"""Plan -> supervised children, and what they share. What each of them does in one life stands in `lives`."""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeVar, cast, final

import attrs

from .._core.events import EventHub, KillSwitchChanged, StateChanged
from .._core.lifecycle import FINAL, USABLE, State, SwitchState
from .._core.masks import Masks
from .._core.policies import RestartHistory
from .._core.router import Router
from .._core.snapshot import Snapshot, Usage
from .._core.spec import Asked, ComponentSpec, DispatcherSpec, DriverSpec, GroupSpec, Plan, ProtocolSpec, WorkerSpec
from .._delivery.attempt import Route
from .._delivery.failure import describe
from .._delivery.fan_out import FanOut
from .._delivery.hold import Hold
from .._delivery.intake import KernelIntake, Tap
from .._delivery.judge import Judge
from .._delivery.kill_switch import KillSwitch
from .._delivery.leash import Attempting
from .._delivery.pipeline import Pipeline
from .._delivery.pool import Pool
from .._delivery.translate import translated
from ..abc import Context, Protocol
from ..errors import StartupError
from .child import Child, Group
from .gate import Gate, gate
from .supervisor import Supervisor

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

T = TypeVar("T")

PAUSED: Final = "paused: it takes nothing new"
UNBOUNDED_CALLS: Final = 1_000_000
"""Calls at a time in an instance that only its callers bound (a failure worker)."""


def _end_nothing(_reason: str) -> None:
    """There is no service yet."""


@final
@attrs.define(eq=False, repr=False)
class Tree:
    """The children of one service and what they share."""

    plan: Plan
    hub: EventHub
    log: FilteringBoundLogger
    supervisor: Supervisor
    bodies: Mapping[type[ComponentSpec], Callable[..., Awaitable[None]]]
    """What a component of each kind does in one life."""
    protocols: Mapping[str, Protocol] = attrs.field(factory=dict[str, Protocol], init=False)
    pools: dict[str, Pool] = attrs.field(factory=dict[str, Pool], init=False)
    gate: Gate = attrs.field(init=False)
    masks: Masks = attrs.field(
        init=False, default=attrs.Factory(lambda self: Masks.of(self.plan.secrets), takes_self=True)
    )
    snapshot: Callable[[], Snapshot] = attrs.field(init=False)
    intakes: dict[str, KernelIntake] = attrs.field(factory=dict[str, KernelIntake], init=False)
    """By dispatcher id, while it lives."""
    usages: dict[str, Callable[[], Usage]] = attrs.field(factory=dict[str, "Callable[[], Usage]"], init=False)
    """By component id: what says how its connections are used."""
    paused: set[str] = attrs.field(factory=set[str], init=False)
    """Ids of dispatchers that begin nothing new, in this life and the next ones."""
    taps: dict[str, Tap] = attrs.field(factory=dict[str, Tap], init=False)
    """By dispatcher id: what is called with each delivery that was settled."""
    end: Callable[[str], None] = attrs.field(default=_end_nothing, init=False)
    """Asks the service to stop, for a reason, because all is done that it is there for."""
    returned: int = attrs.field(default=0, init=False)
    """The exit status that the main worker returned."""
    is_held: bool = attrs.field(default=False, init=False)
    """Whether it is not ready although all its components are, since stages are still to come."""
    _instances: dict[str, list[Child]] = attrs.field(factory=dict[str, list[Child]], init=False)
    """Component id -> its children: several for a worker with `instances`."""
    _unfinished: dict[str, int] = attrs.field(factory=dict[str, int], init=False)
    """Component id -> how many of its children have not ended for good."""

    def build(self) -> None:
        """Make every child; nothing is started.

        Raises:
            StartupError: if a protocol cannot be built; there are no children then.
        """
        self.protocols = {name: self._protocol(name, spec) for name, spec in self.plan.protocols.items()}
        groups = {member: group for spec in self.plan.groups for group in [_group(spec)] for member in spec.members}
        for spec in self.plan.components.values():
            self._instances[spec.id] = self._children(spec, groups.get(spec.id))
        self._unfinished.update({id_: len(children) for id_, children in self._instances.items()})
        self.gate = gate(self.plan.components)
        self.hub.subscribe(self._close_pool, StateChanged)

    def children(self, component: str) -> list[Child]:
        """Return the children of a component; those of one instance, if its number is given."""
        found = self._instances.get(component)
        return found or [child for child in [self.supervisor.children.get(component)] if child is not None]

    def alive(self, component: str) -> list[object]:
        """Return the objects of a component that are ready."""
        return [
            one.life.component for one in self._instances[component] if one.state in USABLE and one.life is not None
        ]

    def value(self, component: str | None) -> object:
        """Return the resource of a component that is ready; None for None."""
        return None if component is None else self._instances[component][0].value

    def _protocol(self, name: str, spec: ProtocolSpec) -> Protocol:
        try:
            protocol = built(spec.cls, spec.config, self._context(f"protocol/{name}", name))
        except Exception as error:
            raise StartupError(f"protocol/{name} cannot be built: {describe(error)}") from error
        return translated(protocol, inbound=spec.inbound, outbound=spec.outbound)

    def _children(self, spec: DriverSpec | DispatcherSpec | WorkerSpec, group: Group | None) -> list[Child]:
        count = 1
        if isinstance(spec, WorkerSpec):
            count = spec.instances
            self.pools[spec.name] = Pool(spec, self._concurrency(spec), self._kill_switch(spec))
        ids = [spec.id] if count == 1 else [f"{spec.id}[{number}]" for number in range(1, count + 1)]
        return [self._child(spec, child_id, group) for child_id in ids]

    def _child(self, spec: DriverSpec | DispatcherSpec | WorkerSpec, child_id: str, group: Group | None) -> Child:
        child = Child(
            id=child_id,
            body=functools.partial(self.bodies[type(spec)], self, spec),
            policy=spec.restart,
            history=RestartHistory(spec.restart, random.random),
            essential=spec.essential,
            start_timeout=spec.start_timeout,
            stop_timeout=spec.stop_timeout,
            accepts=isinstance(spec, DispatcherSpec) and not spec.cls.surrounds,
            resident=_is_resident(spec),
            group=group,
        )
        child.depends_on(
            uses=[other for name in spec.uses for other in self._instances[name]],
            after=[other for name in spec.after for other in self._instances[name]],
        )
        return self.supervisor.add(child)

    def _concurrency(self, spec: WorkerSpec) -> int:
        if spec.concurrency is not None:
            return spec.concurrency
        if spec.dispatcher is None:
            return UNBOUNDED_CALLS
        return cast("DispatcherSpec", self.plan.components[spec.dispatcher]).concurrency

    def _kill_switch(self, spec: WorkerSpec) -> KillSwitch | None:
        if spec.kill_switch is None:
            return None
        return KillSwitch(spec.kill_switch, functools.partial(self._switched, spec))

    def _switched(self, spec: WorkerSpec, state: SwitchState, reason: str) -> None:
        self.hub.emit(KillSwitchChanged(component=spec.id, state=state, reason=reason))
        for child in self._instances[spec.id]:
            if state is SwitchState.OPEN:
                self.supervisor.report(child, State.DEGRADED, f"paused: {reason}")
            elif state is SwitchState.CLOSED:
                self.supervisor.report(child, State.READY, reason)

    def tell_paused(self, spec: WorkerSpec, switch: KillSwitch) -> None:
        """Say again that a worker is paused, for an instance that has just become ready."""
        for child in self._instances[spec.id]:
            if switch.state is not SwitchState.CLOSED:
                self.supervisor.report(child, State.DEGRADED, f"paused: {switch.reason}")

    def _close_pool(self, event: object) -> None:
        """Tell those who wait for a worker that it will not come back."""
        if not isinstance(event, StateChanged) or event.new not in FINAL or not event.component.startswith("worker/"):
            return
        worker = event.component.partition("[")[0]
        self._unfinished[worker] -= 1
        if not self._unfinished[worker]:
            pool = self.pools[worker.removeprefix("worker/")]
            pool.close(event.new.value)
            self._desert(pool.spec)

    def _desert(self, spec: WorkerSpec) -> None:
        """Have the dispatcher of a worker that will not come back accept nothing more, if it has no other."""
        dispatcher = self.plan.components.get(spec.dispatcher or "")
        if isinstance(dispatcher, DispatcherSpec) and self.is_deserted(dispatcher):
            life = self.supervisor.children[dispatcher.id].life
            if life is not None:
                life.stop_accepting()

    def is_deserted(self, spec: DispatcherSpec) -> bool:
        """Whether a dispatcher has workers, and none of them will come back."""
        return bool(spec.workers) and all(self.pools[name].closed for name in spec.workers)

    def context(self, spec: DriverSpec | DispatcherSpec) -> Context:
        """Return what a driver or dispatcher is built with."""
        protocol = None if spec.protocol is None else self.protocols[spec.protocol]
        context = self._context(spec.id, spec.name)
        return attrs.evolve(
            context,
            driver=self.value(spec.driver),
            protocol_or_none=protocol,
            contract=spec.contract if isinstance(spec, DriverSpec) else None,
            stop_timeout=spec.stop_timeout,
        )

    def given(self, spec: WorkerSpec, what: Asked) -> object:
        """Return what a worker is given for an annotation."""
        match what:
            case Asked.CONTEXT:
                return attrs.evolve(self._context(spec.id, spec.name), stop_timeout=spec.stop_timeout)
            case Asked.LOG:
                return self.log.bind(component=spec.id)
            case Asked.LOGGER:
                return logging.getLogger(spec.id)

    def _context(self, component: str, name: str) -> Context:
        def report(state: State, reason: str = "") -> None:
            for child in self._instances.get(component, ()):
                self.supervisor.report(child, state, reason)

        return Context(
            id=component,
            name=name,
            service=self.plan.name,
            log=self.log.bind(component=component),
            emit=self.hub.emit,
            hears=self.hub.hears,
            subscribe=self.hub.subscribe,
            snapshot=lambda: self.snapshot(),  # noqa: PLW0108  the kernel comes after it
            mask=self.masks.applied,
            report_degraded=functools.partial(report, State.DEGRADED),
            report_ready=functools.partial(report, State.READY),
            report_usage=functools.partial(self.usages.__setitem__, component),
            directory=self.plan.directory,
        )

    def attempting(self, spec: DispatcherSpec, hold: Hold) -> Attempting:
        """Return what handles the deliveries of a dispatcher."""
        pools = [self.pools[name] for name in spec.workers]
        protocol = None if spec.protocol is None else self.protocols[spec.protocol]
        if spec.fan_out:
            return FanOut([self._pipeline([pool], Judge(protocol), hold) for pool in pools])
        return self._pipeline(pools, Judge(protocol), hold)

    def _pipeline(self, pools: Sequence[Pool], judge: Judge, hold: Hold) -> Pipeline:
        routes: list[tuple[str, Route]] = [
            (pattern, Route(pool, handler, pool.spec.filter))
            for pool in pools
            for handler in pool.spec.handlers
            for pattern in handler.patterns
        ]
        last_resorts = {
            pool.name: Route(self.pools[name], self.pools[name].spec.handlers[0])
            for pool in pools
            if (name := pool.spec.failure_worker) is not None
        }
        return Pipeline(Router[Route].of(routes), judge, last_resorts, hold, self.hub)


def _is_resident(spec: DriverSpec | DispatcherSpec | WorkerSpec) -> bool:
    """Whether it is there for others only."""
    return not spec.runs if isinstance(spec, WorkerSpec) else isinstance(spec, DriverSpec) or spec.cls.surrounds


def built(cls: Callable[..., T], config: object, context: Context) -> T:
    """Call a component class the way that `abc` says it is called."""
    return cls(config=config, context=context)


def _group(spec: GroupSpec) -> Group:
    return Group(spec.strategy, RestartHistory(spec.restart, random.random))
