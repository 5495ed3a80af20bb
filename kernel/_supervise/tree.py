"""Plan -> supervised children: what each kind of component does in one life.

The bodies below are the three scopes of `life` spelt out for a driver, a dispatcher and a worker.
"""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final, TypeVar, cast, final

import attrs
import trio

from .._core.events import DrainTimedOut, Event, EventHub, KillSwitchChanged, StateChanged
from .._core.lifecycle import FINAL, State, SwitchState
from .._core.policies import RestartHistory
from .._core.router import Router
from .._core.spec import Asked, ComponentSpec, DispatcherSpec, DriverSpec, GroupSpec, Plan, ProtocolSpec, WorkerSpec
from .._core.words import listed
from .._delivery.attempt import Route
from .._delivery.bucket import Bucket
from .._delivery.collect import Collector
from .._delivery.failure import describe
from .._delivery.fan_out import FanOut
from .._delivery.hold import Hold
from .._delivery.intake import KernelIntake
from .._delivery.judge import Judge
from .._delivery.kill_switch import KillSwitch
from .._delivery.leash import Attempting
from .._delivery.pipeline import Pipeline
from .._delivery.pool import Instance, Pool
from .._delivery.translate import translated
from ..abc import Broker, Context, Dispatcher, Protocol
from ..errors import DependencyError, SendError, StartupError, UnavailableError
from .child import Child, Group
from .gate import Gate, gate
from .life import Life
from .supervisor import Supervisor

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

T = TypeVar("T")

EVENTS_KEPT: Final = 1_000
"""Events that a worker has not taken yet; further ones are dropped, since whoever makes one does not wait."""
UNBOUNDED_CALLS: Final = 1_000_000
"""Calls at a time in an instance that only its callers bound (a failure worker)."""


@final
@attrs.define(eq=False, repr=False)
class Tree:
    """The children of one service and what they share."""

    plan: Plan
    hub: EventHub
    log: FilteringBoundLogger
    supervisor: Supervisor
    protocols: Mapping[str, Protocol] = attrs.field(factory=dict[str, Protocol], init=False)
    pools: dict[str, Pool] = attrs.field(factory=dict[str, Pool], init=False)
    gate: Gate = attrs.field(init=False)
    intakes: dict[str, KernelIntake] = attrs.field(factory=dict[str, KernelIntake], init=False)
    """By dispatcher id, while it lives."""
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

    def value(self, component: str | None) -> object:
        """Return the resource of a component that is ready; None for None."""
        return None if component is None else self._instances[component][0].value

    def _protocol(self, name: str, spec: ProtocolSpec) -> Protocol:
        try:
            protocol = _built(spec.cls, spec.config, self._context(f"protocol/{name}", name))
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
            body=functools.partial(_BODIES[type(spec)], self, spec),
            policy=spec.restart,
            history=RestartHistory(spec.restart, random.random),
            essential=spec.essential,
            start_timeout=spec.start_timeout,
            stop_timeout=spec.stop_timeout,
            accepts=isinstance(spec, DispatcherSpec),
            resident=isinstance(spec, DriverSpec) or (isinstance(spec, WorkerSpec) and not spec.runs),
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
            context, driver=self.value(spec.driver), protocol_or_none=protocol, stop_timeout=spec.stop_timeout
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
            report_degraded=functools.partial(report, State.DEGRADED),
            report_ready=functools.partial(report, State.READY),
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
        return Pipeline(Router[Route].of(routes), judge, last_resorts, hold)


def _built(cls: Callable[..., T], config: object, context: Context) -> T:
    """Call a component class the way that `abc` says it is called."""
    return cls(config=config, context=context)


def _group(spec: GroupSpec) -> Group:
    return Group(spec.strategy, RestartHistory(spec.restart, random.random))


# --- one life of each kind -------------------------------------------------------------------------------------


async def _live_as_driver(tree: Tree, spec: DriverSpec, life: Life) -> None:
    driver = _built(spec.cls, spec.config, tree.context(spec))
    child = tree.supervisor.children[spec.id]
    async with driver.open() as resource:
        await _declare(tree, spec, resource)
        life.started(resource)
        try:
            with life.inner:
                await trio.sleep_forever()
        finally:
            if not life.stopping:  # it broke by itself: those who use it go first, each within its own bound
                with trio.CancelScope(shield=True):
                    await tree.supervisor.stop_users(child)
            life.drained()


async def _declare(tree: Tree, spec: DriverSpec, resource: object) -> None:
    """Make exist what dispatchers need of a broker, before anybody can send through it."""
    for other in tree.plan.components.values():
        if not isinstance(other, DispatcherSpec) or other.driver != spec.id or not isinstance(resource, Broker):
            continue
        topology = other.cls.topology(other.config)
        if topology is not None:
            with suppress(SendError, UnavailableError):  # the dispatcher declares it as well, and is the one that fails
                await resource.declare(topology)


async def _live_as_dispatcher(tree: Tree, spec: DispatcherSpec, life: Life) -> None:
    dispatcher = _built(spec.cls, spec.config, tree.context(spec))
    targets = [tree.pools[name] for name in spec.workers]
    async with dispatcher.open():
        async with trio.open_nursery() as in_flight:
            bucket = None if spec.rate is None else Bucket(spec.rate)
            hold = Hold(spec.concurrency, life.stop_accepting)
            pipeline = tree.attempting(spec, hold)
            intake = KernelIntake(
                spec.id, spec.concurrency, targets, pipeline, tree.hub, in_flight, bucket, life.shield
            )
            if spec.batch is not None and isinstance(pipeline, Pipeline):
                pipeline.collecting = Collector(spec.batch, pipeline, in_flight, intake.working_on)
            tree.intakes[spec.id] = intake
            if tree.is_deserted(spec):
                life.stop_accepting()
            try:
                await _accept(tree, spec, dispatcher, intake, life)
                pipeline.close()
                with life.drain:
                    await intake.wait_idle()
                if life.inner.cancel_called and not _lacks_workers(tree, spec, life, hold):
                    # to close is its turn only when those that depend on it are down
                    with life.turn:
                        await trio.sleep_forever()
            finally:
                if intake.in_flight:
                    life.cut = True
                    tree.hub.emit(DrainTimedOut(component=spec.id, culprits=intake.culprits()))
                life.drained()
                intake.cut_slots()
                in_flight.cancel_scope.cancel()
                del tree.intakes[spec.id]
        await intake.wait_idle()
        if _lacks_workers(tree, spec, life, hold):
            gone = [pool.spec.id for pool in targets if pool.closed]
            error = DependencyError(spec.id, dependency=listed(gone, last="and"), how="will not come back")
            raise error from life.error
        if life.error is not None:
            raise life.error


async def _accept(tree: Tree, spec: DispatcherSpec, dispatcher: Dispatcher, intake: KernelIntake, life: Life) -> None:
    """Bring deliveries in. What is raised when that is cancelled is noted only: what is in flight may still finish."""
    try:
        with life.inner:
            with life.untimed():
                await tree.gate.wait(spec.id)
            await dispatcher.accept(intake, task_status=life)
            _expect_started(spec, life)
    except (Exception, SystemExit) as error:
        life.note(error)
        if not life.inner.cancel_called:
            raise
    await trio.lowlevel.checkpoint()


def _expect_started(spec: ComponentSpec, life: Life) -> None:
    if not life.is_ready:
        raise StartupError(f"{spec.id}: accept() returned without calling task_status.started()")


def _lacks_workers(tree: Tree, spec: DispatcherSpec, life: Life, hold: Hold) -> bool:
    """Whether a dispatcher ends because nobody is left to handle what it would accept."""
    is_asked = life.recalled or tree.supervisor.children[spec.id].retired
    return not is_asked and (tree.is_deserted(spec) or hold.was_full)


async def _live_as_worker(tree: Tree, spec: WorkerSpec, life: Life) -> None:
    pool = tree.pools[spec.name]
    async with AsyncExitStack() as stack:
        worker = _build_worker(tree, spec, stack)
        if spec.is_context:
            await stack.enter_async_context(worker)  # type: ignore[arg-type]  # the plan has looked at its class
        if spec.oneshot:
            with life.working(), life.untimed():
                await _run_loop(spec, worker)
            return
        hosted = worker
        if spec.dispatcher is not None:
            dispatcher = cast("DispatcherSpec", tree.plan.components[spec.dispatcher])
            hosted = await stack.enter_async_context(dispatcher.cls.host(worker, spec.options))
        await stack.enter_async_context(pool.offering(Instance(worker, hosted, pool.concurrency)))
        life.started(worker)
        if pool.switch is not None:
            tree.tell_paused(spec, pool.switch)
        with life.working():
            await (_run_loop(spec, worker) if spec.runs else trio.Event().wait())


async def _run_loop(spec: WorkerSpec, worker: object) -> None:
    run = worker if spec.is_function else worker.run  # type: ignore[attr-defined]  # the plan has looked at its class
    await trio.lowlevel.checkpoint_if_cancelled()
    await run()  # type: ignore[operator]


def _build_worker(tree: Tree, spec: WorkerSpec, stack: AsyncExitStack) -> object:
    arguments = {parameter: tree.value(driver) for parameter, driver in spec.drivers.items()}
    for parameter, what in spec.asked.items():
        arguments[parameter] = tree.given(spec, what) if isinstance(what, Asked) else _hearing(tree.hub, what, stack)
    if spec.config_parameter is not None:
        arguments[spec.config_parameter] = spec.config
    if spec.is_function:
        return functools.partial(spec.use, **arguments) if arguments else spec.use
    return spec.use(**arguments)


def _hearing(hub: EventHub, types: tuple[type[Event], ...], stack: AsyncExitStack) -> trio.MemoryReceiveChannel[Event]:
    """Return the channel in which events arrive until the worker has ended; when it is full, they are dropped."""
    send, receive = trio.open_memory_channel[Event](EVENTS_KEPT)
    stack.enter_context(receive)
    stack.enter_context(send)
    stack.callback(hub.subscribe(send.send_nowait, *types))
    return receive


_BODIES: Final[Mapping[type[ComponentSpec], Callable[..., Awaitable[None]]]] = {
    DriverSpec: _live_as_driver,
    DispatcherSpec: _live_as_dispatcher,
    WorkerSpec: _live_as_worker,
}
