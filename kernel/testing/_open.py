"""Opens a service inside a test: the real kernel, the real plugins, and what the test wants replaced."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, final

import attrs
import trio

from .._convert.folder import on_path
from .._core.events import DeliverySettled, Event, EventHub, SettleFailed
from .._core.spec import DriverSpec, Plan
from .._manifest.manifest import Manifest, from_mapping, load
from .._manifest.registry import Registry, discover
from .._plan.plan import resolve
from .._supervise.run import Kernel, Result, serve
from ._context import fake_context
from ._faults import Faults
from ._given import faulty_driver, given_driver

EventT = TypeVar("EventT", bound=Event)


class _Publisher(Protocol):
    async def publish(self, subject: str, payload: object, **options: object) -> object: ...


class _Caller(Protocol):
    async def call(self, subject: str, payload: object, **options: object) -> object: ...


@final
@attrs.define(eq=False, repr=False)
class OpenKernel:
    """A running service in a test."""

    kernel: Kernel
    plan: Plan
    events: list[Event] = attrs.field(factory=list[Event], init=False)
    """Everything that happened, in order."""
    settled: list[DeliverySettled] = attrs.field(factory=list[DeliverySettled], init=False)
    """Every delivery that came to its end, in order."""
    result: Result | None = attrs.field(default=None, init=False)
    """How it ended, once it has."""
    stopped_by_test: bool = attrs.field(default=False, init=False)
    """Whether the test called `stop`, and so looks at the result itself."""
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _ended: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __repr__(self) -> str:
        return f"<OpenKernel {self.plan.name}: {len(self.events)} events>"

    def resource(self, component: str) -> Any:  # noqa: ANN401  what a driver offers is the test's to know
        """Return what a component offers, for example `resource("driver/queue")`.

        Raises:
            UnavailableError: if it is not ready.
        """
        return self.kernel.resource(component)

    async def publish(self, driver: str, subject: str, payload: object, **options: object) -> None:
        """Publish through the publisher of that name.

        Cancellation: Is a checkpoint.
        """
        await cast("_Publisher", self.resource(f"driver/{driver}")).publish(subject, payload, **options)

    async def call(self, driver: str, subject: str, payload: object, **options: object) -> Any:  # noqa: ANN401  as above
        """Call through the RPC client of that name and return the answer.

        Cancellation: Is a checkpoint.
        """
        return await cast("_Caller", self.resource(f"driver/{driver}")).call(subject, payload, **options)

    async def wait_settled(
        self, count: int = 1, *, matching: Callable[[DeliverySettled], bool] | None = None
    ) -> Sequence[DeliverySettled]:
        """Wait until so many deliveries have been settled since the service was opened; returns them.

        Args:
            count: How many, at least.
            matching: Which of them count; all if None.

        Raises:
            AssertionError: if the service ends before.

        Cancellation: Is a checkpoint.
        """
        found: list[DeliverySettled] = []

        def enough() -> bool:
            found[:] = [event for event in self.settled if matching is None or matching(event)]
            return len(found) >= count

        await self._wait(enough)
        return found

    async def wait_event(self, kind: type[EventT], matching: Callable[[EventT], bool] | None = None) -> EventT:
        """Wait for an event of a type, past or future; returns the first that matches.

        Raises:
            AssertionError: if the service ends before.

        Cancellation: Is a checkpoint.
        """
        found: list[EventT] = []

        def seen() -> bool:
            found[:] = [
                event for event in self.events if isinstance(event, kind) and (matching is None or matching(event))
            ]
            return bool(found)

        await self._wait(seen)
        return found[0]

    async def stop(self) -> Result:
        """Stop the service in order and return how it ended; what failed is in the result and not raised.

        Cancellation: Is a checkpoint.
        """
        self.stopped_by_test = True
        self.kernel.request_stop("the test is over")
        await self._ended.wait()
        if self.result is None:
            raise RuntimeError("the service ended without a result")
        return self.result

    async def _wait(self, condition: Callable[[], bool]) -> None:
        await trio.lowlevel.checkpoint()
        while not condition():
            if self._ended.is_set():
                failure = next(iter(self.result.errors), None) if self.result is not None else None
                raise AssertionError("the service has ended, and what the test waits for never happened") from failure
            await self._changed.park()

    def hear(self, event: Event) -> None:
        """Take note of an event."""
        self.events.append(event)
        if isinstance(event, DeliverySettled):
            self.settled.append(event)
        self._changed.unpark_all()

    async def serve(self, hub: EventHub, task_status: trio.TaskStatus[Kernel]) -> None:
        """Run the service to its end. `open_kernel` calls it."""
        try:
            self.result = await serve(
                self.plan, log=fake_context("kernel/kernel").log, hub=hub, task_status=task_status
            )
        finally:
            self._ended.set()
            self._changed.unpark_all()


@asynccontextmanager
async def open_kernel(
    manifest: Mapping[str, object] | str | Path,
    *,
    replace: Mapping[str, object] | None = None,
    registry: Registry | None = None,
    environ: Mapping[str, str] | None = None,
    faults: Faults | None = None,
    ready: bool = True,
) -> AsyncGenerator[OpenKernel]:
    """Run a service while inside, in this process and on this test's clock.

    Modules are looked for in the manifest's folder first, while inside.

    Args:
        manifest: A path, or the tables as a mapping.
        replace: `"drivers.queue"` -> the table to use instead (a mapping with its `plugin`), or, for a driver, any
            other object: workers get exactly this object. Give what is replaced no other role.
        registry: The installed plugins if None.
        environ: What `${...}` and secrets read; nothing if None.
        faults: What is to go wrong at which call of which driver's resource.
        ready: Whether to wait until everything is ready first.

    Raises:
        InvalidError: if the manifest is wrong.
        StartupError: if the service does not become ready.
        ExceptionGroup: on exit, of what failed while it ran, unless the test called `stop` itself.
        AssertionError: on exit, if a delivery could not be settled, and nothing failed that would explain it; or if
            a fault was never reached.
        ValueError: if there is no driver that a fault is for.

    Cancellation: Is a checkpoint. If cancelled, the service is stopped at once, without a drain.
    """
    with on_path(Path() if isinstance(manifest, Mapping) else Path(manifest).parent):
        plan = _plan(manifest, replace or {}, registry, environ or {}, faults)
        async with _serving(plan, ready=ready) as service:
            yield service
    if faults is not None:
        faults.check_reached()


@asynccontextmanager
async def _serving(plan: Plan, *, ready: bool) -> AsyncGenerator[OpenKernel]:
    service = OpenKernel(cast("Kernel", None), plan)
    hub = EventHub()
    hub.subscribe(service.hear)
    try:
        async with trio.open_nursery() as nursery:
            service.kernel = await nursery.start(service.serve, hub)
            if ready:
                await service.kernel.wait_ready()
            yield service
            by_test = service.stopped_by_test
            result = await service.stop()
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        error = group.exceptions[0]  # what the test raised: the nursery is none of its business
        raise error from error.__cause__
    if result.errors and not by_test:
        raise BaseExceptionGroup("the service failed", result.errors)
    _expect_settled(service, result)


def _expect_settled(service: OpenKernel, result: Result) -> None:
    unsettled = [event for event in service.events if isinstance(event, SettleFailed)]
    if unsettled and not result.errors:
        ids = ", ".join(f"{event.delivery_id} ({event.error!r})" for event in unsettled)
        raise AssertionError(f"deliveries that were not settled: {ids}")


def _plan(
    manifest: Mapping[str, object] | str | Path,
    replace: Mapping[str, object],
    registry: Registry | None,
    environ: Mapping[str, str],
    faults: Faults | None,
) -> Plan:
    registry = discover() if registry is None else registry
    source = (
        from_mapping(manifest, environ=environ) if isinstance(manifest, Mapping) else load(manifest, environ=environ)
    )
    source, registry = _replaced(source, registry, replace)
    plan = resolve(source, registry)
    return plan if faults is None else _with_faults(plan, faults)


def _replaced(source: Manifest, registry: Registry, replace: Mapping[str, object]) -> tuple[Manifest, Registry]:
    if not replace:
        return source, registry
    tables = {name: dict(cast("Mapping[str, object]", table)) for name, table in source.tables.items()}
    given: dict[str, object] = {}
    for path, wanted in replace.items():
        kind, _, name = path.partition(".")
        if name not in tables.get(kind, {}):
            raise KeyError(f"replace: the manifest has no [{path}]")
        if isinstance(wanted, Mapping):
            tables[kind][name] = wanted
        else:
            given[f"given_{name}"] = given_driver(wanted)
            tables[kind][name] = {"plugin": f"given_{name}"}
    tables.get("kernel", {}).pop("plugins", None)  # the test has allowed what it names
    plugins = (*registry.plugins, *Registry.of({"drivers": given}).plugins)
    return attrs.evolve(source, tables=tables), Registry(plugins)


def _with_faults(plan: Plan, faults: Faults) -> Plan:
    faults.allow_only([spec.id for spec in plan.components.values() if isinstance(spec, DriverSpec)])
    components = {
        key: attrs.evolve(spec, cls=faulty_driver(spec.cls, faults, spec.id)) if isinstance(spec, DriverSpec) else spec
        for key, spec in plan.components.items()
    }
    return attrs.evolve(plan, components=components)
