"""`kernel.open`: a part of a service that is open while a program needs it."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast, final

import attrs
import trio

from .._convert.folder import on_path
from .._core.events import EventHub
from .._core.spec import Plan
from .._manifest.manifest import load
from .._manifest.registry import Registry, discover
from .._plan.part import free_id, named, part_of
from .._plan.read import read_plan
from .._supervise.kernel import Kernel, Result
from .._supervise.run import serve
from ..errors import StartupError
from .guest import STOP_TIMEOUT, guest

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


@asynccontextmanager
async def open(  # noqa: A001  `kernel.open`, as files are opened
    manifest: str | Path,
    *,
    only: Collection[str] | None = None,
    overlays: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    arguments: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    hub: EventHub | None = None,
    log: FilteringBoundLogger | None = None,
) -> AsyncGenerator[Mapping[str, object]]:
    """Open components of a manifest, with all that they stand on, while inside; nothing else is opened.

    Args:
        manifest: Path of the file.
        only: Names of components, `kind/name` or the name alone; all if None.
        overlays: Paths of files to lay over it.
        overrides: `table.key=value` each, as after `--set`.
        arguments: What would follow `--` on the command line.
        environ: What `${NAME}` and secrets read; that of the process if None.
        registry: The installed plugins if None.
        hub: Where events go; a new one if None.
        log: What components log to; structlog's, as the program has configured it, if None.

    Returns:
        Name, as it was given -> what the component offers: a driver's resource, a worker's object.

    Raises:
        InvalidError: if the manifest is wrong, or has no such component.
        StartupError: if something does not become ready.
        BaseExceptionGroup: of what failed for good while it was open, with what was raised inside, which is cancelled
            then.

    Cancellation: Is a checkpoint. What is open is closed in order, also if it is cancelled.
    """
    directory = Path(manifest).parent
    with on_path(directory):
        read = partial(
            load,
            manifest,
            environ=os.environ if environ is None else environ,
            overlays=overlays,
            overrides=overrides,
            arguments=arguments,
        )
        plan = read_plan(read, discover() if registry is None else registry)
        ids = named(plan, plan.components if only is None else only)
        visit = _Visit()
        worker = guest(plan, free_id(plan, "program"), visit.stay, uses=tuple(ids.values()))
        async with _serving(part_of(plan, ids.values(), user=worker), visit, hub, log) as kernel:
            yield {name: kernel.resource(id_) for name, id_ in ids.items()}


@final
@attrs.define(eq=False, repr=False)
class _Visit:
    """What the program does inside, as the supervisor sees it: a worker that runs until that is done."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    done: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def stay(self) -> None:
        """Be there until it is done. If cancelled, cancel it, and wait for it as long as a component may."""
        try:
            await self.done.wait()
        finally:
            self.scope.cancel()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_TIMEOUT):
                await self.done.wait()


@asynccontextmanager
async def _serving(
    plan: Plan, visit: _Visit, hub: EventHub | None, log: FilteringBoundLogger | None
) -> AsyncGenerator[Kernel]:
    results: list[Result] = []
    raised: BaseException | None = None

    async def serve_to_end(task_status: trio.TaskStatus[Kernel]) -> None:
        with trio.CancelScope(shield=True):  # a stop is in order, whoever cancels; `plan.budget` bounds it
            results.append(await serve(plan, log=log or default_log(), hub=hub, task_status=task_status))

    async with trio.open_nursery() as nursery:
        kernel: Kernel = await nursery.start(serve_to_end)
        try:
            await kernel.wait_ready()
            with visit.scope:
                yield kernel
        except BaseException as error:  # noqa: ASYNC103, BLE001  raised below, when all is closed
            raised = error
        finally:
            visit.done.set()
            kernel.request_stop("the program is done")
    errors = results[0].errors if results else ()
    if errors and not isinstance(raised, trio.Cancelled | GeneratorExit | StartupError):
        inside = [] if raised is None else [raised]
        raise BaseExceptionGroup("the service failed", [*errors, *inside])
    if raised is not None:
        raise raised


def default_log() -> FilteringBoundLogger:
    """Return structlog's logger, as the program has configured it."""
    import structlog  # noqa: PLC0415  slow, and not needed by whoever brings a log

    return cast("FilteringBoundLogger", structlog.get_logger("kernel"))
