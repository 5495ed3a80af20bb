"""What each kind of component does in one life: the three scopes of `life`, spelt out.

A driver is its `open`; a dispatcher is `open` around what is in flight around `accept`; a worker is entered, works, and
is left. `tree` makes the children that live so.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Final, cast

import attrs
import trio

from .._core.events import ComponentFailed, DrainTimedOut
from .._core.executor import Executor
from .._core.interceptors import handling, intercepting
from .._core.lifecycle import State, exit_status
from .._core.spec import ComponentSpec, DispatcherSpec, DriverSpec, WorkerSpec
from .._core.topologies import topologies_of
from .._core.words import listed
from .._delivery.bucket import Bucket
from .._delivery.collect import Collector
from .._delivery.hold import Hold
from .._delivery.intake import KernelIntake
from .._delivery.pipeline import Pipeline
from .._delivery.pool import Instance
from ..abc import Broker, Dispatcher, Driver
from ..errors import DependencyError, SendError, StartupError, UnavailableError
from .elsewhere import employ
from .given import arguments, interceptors
from .life import Life
from .tree import PAUSED, Tree, built


async def _live_as_driver(tree: Tree, spec: DriverSpec, life: Life) -> None:
    async with AsyncExitStack() as stack:
        methods = await interceptors(tree, spec, "sending", stack)
        context = attrs.evolve(tree.context(spec), intercept=intercepting(spec.id, methods))
        life.component = driver = built(spec.cls, spec.config, context)
        await _live_open(tree, spec, life, driver)


async def _live_open(tree: Tree, spec: DriverSpec, life: Life, driver: Driver[object]) -> None:
    child = tree.supervisor.children[spec.id]
    async with driver.open() as resource:
        await declare(tree, spec, resource)
        life.started(resource)
        try:
            with life.inner:
                await trio.sleep_forever()
        finally:
            if not life.stopping:  # it broke by itself: those who use it go first, each within its own bound
                with trio.CancelScope(shield=True):
                    await tree.supervisor.stop_users(child)
            life.drained()


async def declare(  # noqa: ASYNC910  suspends only to wait
    tree: Tree, spec: DriverSpec, resource: object, *, only: Collection[str] | None = None
) -> None:
    """Make exist what dispatchers need of a broker, before anybody can send through it.

    Args:
        tree: Of the dispatchers.
        spec: Of the broker's driver.
        resource: The broker.
        only: Ids of the dispatchers; all if None.
    """
    for other in tree.plan.components.values():
        if only is not None and other.id not in only:
            continue
        if not isinstance(other, DispatcherSpec) or other.driver != spec.id or not isinstance(resource, Broker):
            continue
        for topology in topologies_of(other, tree.plan.components, service=tree.service_name(other.id)):
            with suppress(SendError, UnavailableError):  # the dispatcher declares it as well, and is the one that fails
                await resource.declare(topology)


async def _live_as_dispatcher(tree: Tree, spec: DispatcherSpec, life: Life) -> None:
    life.component = dispatcher = built(spec.cls, spec.config, tree.context(spec))
    targets = [tree.pools[name] for name in spec.workers]
    async with AsyncExitStack() as stack:
        within = handling(await interceptors(tree, spec, "handling", stack))
        await stack.enter_async_context(dispatcher.open())
        async with trio.open_nursery() as in_flight:
            bucket = None if spec.rate is None else Bucket(spec.rate)
            hold = Hold(spec.concurrency, life.stop_accepting)
            pipeline = tree.attempting(spec, hold, within)
            intake = KernelIntake(
                spec.id, spec.concurrency, targets, pipeline, tree.hub, in_flight, bucket, life.shield
            )
            if spec.batch is not None and isinstance(pipeline, Pipeline):
                pipeline.collecting = Collector(spec.batch, pipeline, in_flight, intake.working_on)
            intake.failures.mask = tree.masks.applied
            tree.intakes[spec.id] = intake
            intake.tap = tree.taps.get(spec.id)
            if spec.id in tree.paused:
                intake.pause()
                tree.supervisor.report(tree.supervisor.children[spec.id], State.DEGRADED, PAUSED)
            if tree.is_deserted(spec):
                life.stop_accepting()
            for worker, executor in _executors(tree, spec):
                executor.resume(worker)
            try:
                await _accept(tree, spec, dispatcher, intake, life)
                pipeline.close()
                for worker, executor in _executors(tree, spec):
                    executor.drain(worker)
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


def _executors(tree: Tree, spec: DispatcherSpec) -> Iterator[tuple[str, Executor]]:
    """Return those of a dispatcher's workers whose handlers are called elsewhere, and by whom at this moment."""
    for name in spec.workers:
        worker = tree.pools[name].spec
        executor = tree.value(worker.runs_in)
        if isinstance(executor, Executor):
            yield worker.id, executor


async def _accept(tree: Tree, spec: DispatcherSpec, dispatcher: Dispatcher, intake: KernelIntake, life: Life) -> None:
    """Bring deliveries in. What is raised when that is cancelled is noted only: what is in flight may still finish."""
    try:
        with life.inner:
            if not spec.cls.surrounds:  # what does is up before anything else, and waits for nothing
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
        life.component = worker = _build_worker(tree, spec, stack)
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
            if spec.main:
                await _run_main(tree, spec, worker)
            else:
                await (_run_loop(spec, worker) if spec.runs else trio.Event().wait())


async def _run_main(tree: Tree, spec: WorkerSpec, worker: object) -> None:  # noqa: ASYNC910  `_run_loop` is one
    """Run what the service is there for, and end it."""
    try:
        returned = await _run_loop(spec, worker)
    except SystemExit as error:
        if isinstance(error.code, str):
            raise
        returned = error.code
    status = 0
    try:
        status = exit_status(returned)
    except ValueError as error:  # told, but not tried again: it has done what it was there for
        tree.supervisor.errors.append(error)
        tree.hub.emit(ComponentFailed(component=spec.id, error=error, restart_in=None))
    tree.end_with(spec, status)


async def _run_loop(spec: WorkerSpec, worker: object) -> object:
    run = worker if spec.is_function else worker.run  # type: ignore[attr-defined]  # the plan has looked at its class
    await trio.lowlevel.checkpoint_if_cancelled()
    return await run()  # type: ignore[operator]


def _build_worker(tree: Tree, spec: WorkerSpec, stack: AsyncExitStack) -> object:
    given = arguments(tree, spec, spec.drivers, spec.asked, stack)
    for parameter, contract in spec.clients.items():
        given[parameter] = contract.client(given[parameter])
    if spec.config_parameter is not None:
        given[spec.config_parameter] = spec.config
    if spec.runs_in is not None:
        return employ(cast("Executor", tree.value(spec.runs_in)), spec, given)
    if spec.is_function:
        return functools.partial(spec.use, **given) if given else spec.use
    return spec.use(**given)


BODIES: Final[Mapping[type[ComponentSpec], Callable[..., Awaitable[None]]]] = {
    DriverSpec: _live_as_driver,
    DispatcherSpec: _live_as_dispatcher,
    WorkerSpec: _live_as_worker,
}
