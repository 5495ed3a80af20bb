"""What the supervisor and the pipeline are told of each component: the specifications of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypedDict, cast, final

import attrs

from .._core.policies import RestartPolicy, RetryPolicy
from .._core.spec import AnySpec, ComponentSpec, DispatcherSpec, DriverSpec, GroupSpec, InterceptorSpec, WorkerSpec
from .._manifest.tables import DispatcherTable, RetryTable
from ..abc import Dispatcher, Driver
from .ground import Wired, Wiring
from .seldom import Interceptors
from .staff import Hired, fed_by, shape_of
from .whole import joined

if TYPE_CHECKING:
    from .inside import Part


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Made:
    """What the tables of a manifest have become, before it is known in what order that starts."""

    wiring: Wiring
    workers: Mapping[str, Hired]
    groups: Sequence[GroupSpec]
    parts: Sequence[Part]
    interceptors: Interceptors


class _Life(TypedDict):
    id: str
    name: str
    where: str
    restart: RestartPolicy
    essential: bool
    start_timeout: float
    stop_timeout: float
    uses: tuple[str, ...]
    after: tuple[str, ...]
    on_reload: bool


def _life(spec: ComponentSpec) -> _Life:
    return cast("_Life", attrs.asdict(spec, recurse=False))


def specs_of(lives: Mapping[str, ComponentSpec], made: Made) -> dict[str, AnySpec]:
    """Return the specification of each component, by id.

    Args:
        lives: What the supervisor needs of each.
        made: All else.
    """
    wiring, workers, interceptors = made.wiring, made.workers, made.interceptors
    inner = joined(part.components for part in made.parts)
    specs: dict[str, AnySpec] = {id_: attrs.evolve(spec, after=lives[id_].after) for id_, spec in inner.items()}
    for wired in wiring.drivers.values():
        around = interceptors.get(wired.entry.id, ())
        specs[wired.entry.id] = _driver_spec(lives[wired.entry.id], wired, wiring, around)
    fed = fed_by(workers.values())
    for name, wired in wiring.dispatchers.items():
        names = tuple(worker.entry.name for worker in fed.get(name, ()))
        around = interceptors.get(wired.entry.id, ())
        specs[wired.entry.id] = _dispatcher_spec(lives[wired.entry.id], wired, names, around)
    for worker in workers.values():
        specs[worker.entry.id] = _worker_spec(lives[worker.entry.id], worker)
    return specs


def _driver_spec(
    life: ComponentSpec, wired: Wired, wiring: Wiring, interceptors: tuple[InterceptorSpec, ...]
) -> DriverSpec:
    return DriverSpec(
        **_life(life),
        cls=cast("type[Driver[object]]", wired.cls),
        config=wired.config,
        driver=_id("driver", wired.driver),
        protocol=wired.protocol,
        contract=wiring.contracts.get(wired.entry.name),
        interceptors=interceptors,
    )


def _dispatcher_spec(
    life: ComponentSpec, wired: Wired, workers: tuple[str, ...], interceptors: tuple[InterceptorSpec, ...]
) -> DispatcherSpec:
    table, cls = cast("DispatcherTable", wired.entry.table), cast("type[Dispatcher]", wired.cls)
    return DispatcherSpec(
        **_life(life),
        cls=cls,
        config=wired.config,
        driver=_id("driver", wired.driver),
        protocol=wired.protocol,
        concurrency=table.concurrency if "concurrency" in wired.entry.given else cls.default_concurrency,
        rate=table.rate,
        batch=table.batch,
        fan_out=table.fan_out,
        workers=workers,
        interceptors=interceptors,
    )


def _worker_spec(life: ComponentSpec, worker: Hired) -> WorkerSpec:
    shape, table = shape_of(worker), worker.table
    return WorkerSpec(
        **_life(life),
        use=shape.use,
        is_function=shape.is_function,
        dispatcher=_id("dispatcher", worker.dispatcher),
        options=worker.options,
        drivers=shape.injection.drivers,
        clients=shape.injection.clients,
        asked=shape.injection.asked,
        config_parameter=shape.injection.config_parameter,
        config=shape.injection.config,
        handlers=shape.handlers,
        is_context=shape.is_context,
        runs=shape.runs,
        oneshot=table.oneshot,
        main=table.main,
        instances=table.instances,
        concurrency=table.concurrency,
        timeout=table.timeout,
        retry=_retry_policy(table.retry, worker.retry_on),
        kill_switch=table.kill_switch,
        failure_worker=worker.failure_worker,
        runs_in=_id("driver", worker.runs_in),
        filter=worker.filter,
    )


def _retry_policy(table: RetryTable, exceptions: tuple[type[Exception], ...]) -> RetryPolicy:
    return RetryPolicy(
        attempts=table.attempts,
        backoff_initial=table.backoff_initial,
        backoff_factor=table.backoff_factor,
        backoff_max=table.backoff_max,
        jitter=table.jitter,
        on=exceptions,
    )


def _id(kind: Literal["driver", "dispatcher"], name: str | None) -> str | None:
    return None if name is None else f"{kind}/{name}"
