"""Plan -> supervised children, and what they share. What each of them does in one life stands in `lives`.

Long, since what makes children, pools and contexts reads one plan, and makes them anew when that is another one.
"""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Final, TypeVar, cast, final

import attrs
import trio

from .._core.crew import ALONE, Crew
from .._core.events import EventHub, KillSwitchChanged, StateChanged
from .._core.interceptors import Around, Incoming
from .._core.lifecycle import FINAL, USABLE, State, SwitchState
from .._core.masks import Masks
from .._core.policies import RestartHistory
from .._core.snapshot import Backlog, Snapshot, Usage
from .._core.spec import (
    AnySpec,
    Asked,
    ComponentSpec,
    DispatcherSpec,
    DriverSpec,
    GroupSpec,
    Plan,
    ProtocolSpec,
    ServiceSpec,
    WorkerSpec,
    is_resident,
)
from .._delivery.failure import describe
from .._delivery.hold import Hold
from .._delivery.intake import KernelIntake, Tap
from .._delivery.kill_switch import KillSwitch
from .._delivery.leash import Attempting
from .._delivery.pool import Pool
from .._delivery.translate import translated
from ..abc import Context, Protocol
from ..errors import StartupError
from .child import Child, Group, serves
from .gate import Gate, gate
from .routes import attempting, reroute
from .supervisor import Supervisor
from .unit import Unit

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
    crew: Crew = ALONE
    """The processes of the service."""
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
    backlogs: dict[str, Callable[[], Backlog | None]] = attrs.field(
        factory=dict[str, "Callable[[], Backlog | None]"], init=False
    )
    """By component id: what says what it has to pass on."""
    pipelines: dict[str, Attempting] = attrs.field(factory=dict[str, Attempting], init=False)
    """By dispatcher id: what handles its deliveries; of its last life, where it does not live."""
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
    _groups: dict[str, tuple[GroupSpec, Group]] = attrs.field(factory=dict[str, tuple[GroupSpec, Group]], init=False)
    """By name."""
    _units: dict[str, Unit[Child]] = attrs.field(factory=dict[str, Unit[Child]], init=False)
    """By the name of a service inside."""
    replaced: frozenset[str] = attrs.field(default=frozenset(), init=False)
    """Ids of components that are stopped to be started as others: that they end says nothing."""

    def build(self) -> None:
        """Make every child; nothing is started.

        Raises:
            StartupError: if a protocol cannot be built; there are no children then.
        """
        self.protocols = self.built_protocols(self.plan)
        self.gate = gate(self.plan.components)
        self.supervisor.on_unit_finished = self._end_unit
        for child in self._make({*self.plan.components}):
            self.supervisor.add(child)
        self.hub.subscribe(self._close_pool, StateChanged)

    def change(self, plan: Plan, protocols: Mapping[str, Protocol], changed: Collection[str]) -> None:
        """Be the tree of another plan; those that have changed must be down, and start when nobody holds them any more.

        Args:
            plan: What is to run.
            protocols: All of it.
            changed: Ids of the components that are new, or have to start anew.
        """
        before = self.supervisor.children
        self.plan, self.protocols = plan, protocols
        for id_ in changed:
            self.usages.pop(id_, None)
        children = self._make(changed)
        known = {child.id for child in children}
        # What hangs is still there, and is named when the service ends.
        hanging = [child for child in before.values() if child.id not in known and child.life is not None]
        self.supervisor.adopt([*children, *hanging], [child for child in children if before.get(child.id) is not child])
        self.gate.renew(plan.components)
        self.pools = {name: pool for name, pool in self.pools.items() if f"worker/{name}" in plan.components}
        self.paused &= plan.components.keys()
        for spec in plan.components.values():
            if isinstance(spec, DispatcherSpec) and spec.id in self.intakes:
                reroute(self.pipelines[spec.id], spec, self.pools)

    def release(self) -> None:
        """Say that nothing is being replaced any more; a worker of which no child is left is gone."""
        replaced, self.replaced = self.replaced, frozenset()
        for id_ in replaced:
            children = self._instances.get(id_, [])
            pool = self.pools.get(id_.removeprefix("worker/"))
            if pool is not None and children and all(child.state in FINAL for child in children):
                self._close(pool, children[-1].state)

    def ids(self, spec: AnySpec) -> list[str]:
        """Return the ids of the children that a component has, or would have."""
        return _child_ids(spec)

    def has_ended(self, component: str) -> bool:
        """Whether all of a component has done what it was there for."""
        children = self._instances.get(component, [])
        return bool(children) and all(child.state is State.STOPPED for child in children)

    def failed_around(self, component: str) -> set[object]:
        """Return what has failed as a whole that a component is in, or would be: services inside, and its group."""
        name = component.partition("/")[2]
        units = {unit for inside, unit in self._units.items() if unit.failed and name.startswith(f"{inside}/")}
        groups = {child.group for child in self._instances.get(component, []) if child.group and child.group.failed}
        return {*units, *groups}

    def pools_of(self, components: Collection[str]) -> list[Pool]:
        """Return the pools of those components that are workers."""
        return [pool for name, pool in self.pools.items() if f"worker/{name}" in components]

    def is_over(self, component: str) -> bool:
        """Whether nothing of a component will start again."""
        return all(child.state in FINAL for child in self._instances[component])

    def children(self, component: str) -> list[Child]:
        """Return the children of a component; those of one instance, if its number is given; all of a `service/NAME`."""
        kind, _, name = component.partition("/")
        if kind == "service" and name in self._units:
            return list(self._units[name].members)
        found = self._instances.get(component)
        return found or [child for child in [self.supervisor.children.get(component)] if child is not None]

    def alive(self, component: str) -> list[object]:
        """Return the objects of a component that are ready."""
        return [
            one.life.component
            for one in self._instances.get(component, ())
            if one.state in USABLE and one.life is not None
        ]

    def value(self, component: str | None) -> object:
        """Return the resource of a component that is ready; None for None."""
        return None if component is None else self._instances[component][0].value

    def built_protocols(self, plan: Plan, changed: Collection[str] | None = None) -> dict[str, Protocol]:
        """Return the protocols of a plan: those that have changed, or all if None, made anew.

        Raises:
            StartupError: if one cannot be built.
        """
        return {
            name: self._protocol(name, spec)
            if changed is None or name in changed or name not in self.protocols
            else self.protocols[name]
            for name, spec in plan.protocols.items()
        }

    def _protocol(self, name: str, spec: ProtocolSpec) -> Protocol:
        try:
            protocol = built(spec.cls, spec.config, self._context(f"protocol/{name}", name))
        except Exception as error:
            raise StartupError(f"protocol/{name} cannot be built: {describe(error, self.masks.applied)}") from error
        return translated(protocol, inbound=spec.inbound, outbound=spec.outbound)

    # --- children -------------------------------------------------------------------------------------------------

    def _make(self, changed: Collection[str]) -> list[Child]:
        """Return the children of the plan in start order, with all that they depend on; those there were stay."""
        groups = self._group(changed)
        made: dict[str, list[Child]] = {}
        for spec in self.plan.components.values():
            if isinstance(spec, WorkerSpec):
                self._pool(spec, is_new=spec.id in changed)
            made[spec.id] = [self._child(spec, id_, is_new=spec.id in changed) for id_ in _child_ids(spec)]
        self._instances = made
        self._unite(changed)
        for spec in self.plan.components.values():
            for child in made[spec.id]:
                child.detach()
                child.group = groups.get(spec.id)
                if child.group is not None:
                    child.group.members.append(child)
        for spec in self.plan.components.values():
            for child in made[spec.id]:
                child.depends_on(
                    uses=[other for name in spec.uses for other in made[name]],
                    after=[other for name in spec.after for other in made[name]],
                )
        return [child for children in made.values() for child in children]

    def _group(self, changed: Collection[str]) -> dict[str, Group]:
        """Return the group of each member; one that is as it was goes on counting its restarts."""
        groups: dict[str, tuple[GroupSpec, Group]] = {}
        for spec in self.plan.groups:
            known = self._groups.get(spec.name)
            group = Group(spec.strategy, RestartHistory(spec.restart, random.random))
            if known is not None and known[0] == spec and not {*spec.members} & {*changed}:
                group = known[1]
                group.members = []
            groups[spec.name] = (spec, group)
        self._groups = groups
        return {member: group for spec, group in groups.values() for member in spec.members}

    def _unite(self, changed: Collection[str]) -> None:
        """Tell the children of services inside what they belong to; one that is as it was goes on counting its restarts."""
        known, self._units = self._units, {}
        for name, service in self.plan.services.items():
            outer = self._units.get(name.rpartition("/")[0])
            self._units[name] = unit = known.get(name) or Unit(f"service/{name}")
            unit.become(service, outer, _history(service, unit))
        for id_, children in self._instances.items() if self._units else ():
            around = list(self._around(id_))
            for child in children:
                child.units = tuple(unit for _, unit in around)
                for service, unit in around:
                    unit.add(child, vital=id_ in service.vital, serves=serves(child), is_new=id_ in changed)

    def _around(self, id_: str) -> Iterator[tuple[ServiceSpec, Unit[Child]]]:
        """Yield the services inside that a component belongs to, from the innermost out."""
        service = self.plan.service_of(id_)
        while service is not None:
            yield service, self._units[service.name]
            service = self.plan.services.get(service.name.rpartition("/")[0])

    def _pool(self, spec: WorkerSpec, *, is_new: bool) -> None:
        pool = self.pools.get(spec.name)
        if pool is None:
            self.pools[spec.name] = Pool(spec, self._concurrency(spec), self._kill_switch(spec))
            return
        if is_new:
            pool.become(spec, switch=self._kill_switch(spec))
        pool.spec = spec
        pool.resize(self._concurrency(spec))

    def _child(self, spec: AnySpec, child_id: str, *, is_new: bool) -> Child:
        """Return the child that there is, or another one if that one cannot start any more."""
        known = self.supervisor.children.get(child_id)
        body = functools.partial(self.bodies[type(spec)], self, spec)
        if known is not None and not (is_new and known.state in FINAL and known.life is None):
            known.body = body
            if is_new:
                self._specify(known, spec)
            return known
        child = Child(id=child_id, body=body, policy=spec.restart, history=RestartHistory(spec.restart, random.random))
        child.lives = 0 if known is None else known.lives
        self._specify(child, spec)
        return child

    def _specify(self, child: Child, spec: AnySpec) -> None:
        child.policy, child.history = spec.restart, RestartHistory(spec.restart, random.random)
        child.essential, child.mask = spec.essential, self.masks.applied
        child.start_timeout, child.stop_timeout = spec.start_timeout, spec.stop_timeout
        child.accepts = isinstance(spec, DispatcherSpec) and not spec.cls.surrounds
        child.resident = is_resident(spec)
        if isinstance(spec, WorkerSpec):
            child.withhold = self.pools[spec.name].withhold

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
        pool = self.pools.get(worker.removeprefix("worker/"))
        if pool is not None and worker not in self.replaced and self.is_over(worker):
            self._close(pool, event.new)

    def _close(self, pool: Pool, state: State) -> None:
        pool.close(state.value)
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

    def given(self, spec: ComponentSpec, what: Asked) -> object:
        """Return what a worker, or what stands around a component, is given for an annotation."""
        match what:
            case Asked.CONTEXT:
                return attrs.evolve(self._context(spec.id, spec.name), stop_timeout=spec.stop_timeout)
            case Asked.LOG:
                return self.log.bind(component=spec.id)
            case Asked.LOGGER:
                return logging.getLogger(spec.id)

    def end_with(self, spec: WorkerSpec, status: int) -> None:
        """End the service of a main worker that has returned, with the exit status that it returned.

        Raises:
            RuntimeError: if that is none of success, and the service is one inside, for which nothing else ends.
        """
        units = [unit for _, unit in self._around(spec.id)]
        if all(unit.main for unit in units):
            self.returned = status
            self.end(f"{spec.id} has returned")
        elif status:
            raise RuntimeError(f"{spec.id} returned {status}")
        else:
            self._end_unit(units[0])

    def _end_unit(self, unit: Unit[Child]) -> None:
        """End a service inside, or what it is inside of, if that is there for it."""
        reason = f"{unit.id} has ended"
        while unit.main:
            if unit.outer is None:
                self.end(reason)
                return
            unit = unit.outer
        self.supervisor.end(unit, drain_until=trio.current_time() + self.plan.drain_timeout)

    def service_name(self, component: str) -> str:
        """Return what the service of a component is called."""
        inner = self.plan.service_of(component)
        return self.plan.name if inner is None else inner.service

    def _context(self, component: str, name: str) -> Context:
        def report(state: State, reason: str = "") -> None:
            for child in self._instances.get(component, ()):
                self.supervisor.report(child, state, reason)

        inner = self.plan.service_of(component)
        return Context(
            id=component,
            name=name.rpartition("/")[2],
            service=self.service_name(component),
            log=self.log.bind(component=component),
            emit=self.hub.emit,
            hears=self.hub.hears,
            begin=self.hub.begin,
            passes_by=self.hub.passes_by,
            subscribe=self.hub.subscribe,
            snapshot=lambda: self.snapshot(),  # noqa: PLW0108  the kernel comes after it
            mask=self.masks.applied,
            report_degraded=functools.partial(report, State.DEGRADED),
            report_ready=functools.partial(report, State.READY),
            report_usage=functools.partial(self.usages.__setitem__, component),
            report_backlog=functools.partial(self.backlogs.__setitem__, component),
            directory=self.plan.directory if inner is None else inner.directory,
            crew=self.crew,
        )

    def attempting(self, spec: DispatcherSpec, hold: Hold, around: Around[Incoming] | None) -> Attempting:
        """Return what handles the deliveries of a dispatcher."""
        protocol = None if spec.protocol is None else self.protocols[spec.protocol]
        self.pipelines[spec.id] = attempting(spec, self.pools, protocol, hold, self.hub, around, self.masks.applied)
        return self.pipelines[spec.id]


def _child_ids(spec: AnySpec) -> list[str]:
    count = spec.instances if isinstance(spec, WorkerSpec) else 1
    return [spec.id] if count == 1 else [f"{spec.id}[{number}]" for number in range(1, count + 1)]


def built(cls: Callable[..., T], config: object, context: Context) -> T:
    """Call a component class the way that `abc` says it is called."""
    return cls(config=config, context=context)


def _history(service: ServiceSpec, unit: Unit[Child]) -> RestartHistory | None:
    if service.restart is None:
        return None
    known = unit.history
    return known if known and known.policy == service.restart else RestartHistory(service.restart, random.random)
