"""Opens a service inside a test: the real kernel, the real plugins, and what the test wants replaced."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol, TypeAlias, cast

import trio

from .._convert.folder import on_path
from .._core.events import EventHub
from .._core.spec import Plan
from .._manifest.registry import Registry
from .._supervise.kernel import Kernel
from ._faults import Faults
from ._patience import Patience
from ._plan_for import plan_for
from ._running import RunningService
from ._threads import hold_clock_for_threads
from ._unexpected import check_nothing_unexpected

Expected: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


class OpenKernel(Protocol):
    """The type of `open_kernel`, for the signature of a test that uses the fixture of that name."""

    def __call__(
        self,
        manifest: Mapping[str, object] | str | Path,
        *,
        replace: Mapping[str, object] | None = None,
        set: Mapping[str, object] | None = None,  # noqa: A002  as the function's
        registry: Registry | None = None,
        environ: Mapping[str, str] | None = None,
        faults: Faults | None = None,
        expected: Expected = (),
        patience: Patience = ...,
        ready: bool = True,
    ) -> AbstractAsyncContextManager[RunningService]:
        """Run a service while inside; as the function `open_kernel`."""
        ...


@asynccontextmanager
async def open_kernel(
    manifest: Mapping[str, object] | str | Path,
    *,
    replace: Mapping[str, object] | None = None,
    set: Mapping[str, object] | None = None,  # noqa: A002  the word of the command line
    registry: Registry | None = None,
    environ: Mapping[str, str] | None = None,
    faults: Faults | None = None,
    expected: Expected = (),
    patience: Patience = Patience(),  # noqa: B008  frozen
    ready: bool = True,
) -> AsyncGenerator[RunningService]:
    """Run a service while inside, in this process and on this test's clock.

    Modules are looked for in the manifest's folder first, while inside.

    Args:
        manifest: A path, or the tables as a mapping.
        replace: `"drivers.queue"` -> the table to use instead (a mapping with its `plugin`), or, for a driver, any
            other object: workers get exactly this object. Give what is replaced no other role.
        set: `"workers.shop.retry.attempts"` -> the value of this one key; missing tables are made.
        registry: The installed plugins if None.
        environ: What `${...}` and secrets read; nothing if None.
        faults: What is to go wrong at which call of which driver's resource.
        expected: What handlers, and workers that are restarted, may raise; `Exception` is whatever they like. The
            errors of `faults` are expected anyway.
        patience: How long each wait of the test may take.
        ready: Whether to wait until everything is ready first.

    Raises:
        InvalidError: if the manifest is wrong.
        StartupError: if the service does not become ready.
        ExceptionGroup: on exit, of what failed while it ran, unless the test called `stop` itself; or of what
            handlers and workers raised and the test did not expect.
        AssertionError: on exit, if a delivery could not be settled, and nothing failed that would explain it; or if
            a fault was never reached.
        ValueError: if there is no driver that a fault is for.
        KeyError: if `replace` names what is not in the manifest, or `set` leads through what is no table.

    Cancellation: Is a checkpoint. If cancelled, the service is stopped at once, without a drain.
    """
    with on_path(Path() if isinstance(manifest, Mapping) else Path(manifest).parent):
        plan = plan_for(
            manifest, replace=replace or {}, set_=set or {}, registry=registry, environ=environ or {}, faults=faults
        )
        async with _serving(plan, patience, ready=ready) as service:
            yield service
    check_nothing_unexpected(service, expected, faults)
    if faults is not None:
        faults.check_reached()


@asynccontextmanager
async def _serving(plan: Plan, patience: Patience, *, ready: bool) -> AsyncGenerator[RunningService]:
    hold_clock_for_threads()
    service = RunningService(cast("Kernel", None), plan, patience)
    hub = EventHub()
    hub.subscribe(service.hear)
    try:
        async with trio.open_nursery() as nursery:
            service.kernel = await nursery.start(service.serve, hub)
            if ready:
                await service.wait_ready()
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
