"""What few manifests have: found workers, contracts, interceptors, services inside; read by modules of their own.

Those are imported for the manifests that have it, and for no other: every start would pay for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from .._convert.strict import is_table
from .._core.spec import AnySpec, InterceptorSpec, ServiceSpec
from .._manifest.manifest import Manifest
from .._manifest.registry import Registry
from .._manifest.tables import SenderTable
from ..errors import Problem
from .ground import Ground, Wiring
from .staff import Hired

if TYPE_CHECKING:
    from .inside import Part
    from .services import Resolve

Interceptors: TypeAlias = Mapping[str, tuple[InterceptorSpec, ...]]
"""Id of a component -> its interceptors."""


def with_found_workers(
    manifest: Manifest, registry: Registry, problems: list[Problem], warnings: list[Problem]
) -> Manifest:
    """Return a manifest with the workers that its dispatchers find; see `found`."""
    dispatchers = manifest.tables.get("dispatchers")
    if not is_table(dispatchers) or not any(is_table(one) and "workers" in one for one in dispatchers.values()):
        return manifest
    from . import found  # noqa: PLC0415  as the module says

    return found.with_found_workers(
        manifest,
        registry,
        lambda at, text: problems.append(manifest.problem(at, text)),
        lambda at, text: warnings.append(manifest.problem(at, text)),
    )


def with_contracts(ground: Ground, wiring: Wiring) -> Wiring:
    """Return what is wired with the contracts of its drivers; see `contracts`."""
    tables = [one.entry.table for one in wiring.drivers.values()]
    if not ground.lent_contracts and not any(
        isinstance(one, SenderTable) and one.contract is not None for one in tables
    ):
        return wiring
    from . import contracts  # noqa: PLC0415  as the module says

    return contracts.with_contracts(ground, wiring)


def check_contracts(ground: Ground, wiring: Wiring, workers: Mapping[str, Hired]) -> None:
    """Report where drivers and handlers of the same service do not agree; see `between`."""
    if wiring.contracts:
        from . import between  # noqa: PLC0415  as the module says

        between.check_contracts(ground, wiring, workers)


def read_services(ground: Ground, wiring: Wiring, resolve: Resolve, problems: list[Problem]) -> list[Part]:
    """Resolve the manifests inside of one; see `services`."""
    if not ground.tables.services:
        return []
    from . import services  # noqa: PLC0415  as the module says

    return services.read_services(ground, wiring, resolve, problems)


def refused_answers(
    manifest: Manifest, name: str, inside: Mapping[str, ServiceSpec], specs: Mapping[str, AnySpec]
) -> list[Problem]:
    """Return a problem for each call that would be answered twice; None can be where no service is inside."""
    if not inside:
        return []
    from . import services  # noqa: PLC0415  as the module says

    return list(services.refused_answers(manifest, name, inside, specs))


def read_interceptors(ground: Ground, wiring: Wiring) -> Interceptors:
    """Return the interceptors of each component that has some; see `interceptors`."""
    wired = (*wiring.drivers.values(), *wiring.dispatchers.values())
    if not any(one.entry.table is not None and one.entry.table.interceptors for one in wired):
        return {}
    from . import interceptors  # noqa: PLC0415  as the module says

    return interceptors.read_interceptors(ground, wiring)
