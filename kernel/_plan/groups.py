"""Groups of workers that restart together."""

from __future__ import annotations

from .._core.spec import GroupSpec
from .ground import Ground, refer


def read_groups(ground: Ground) -> list[GroupSpec]:
    """Check that groups name workers that exist, each in one group only."""
    owners: dict[str, str] = {}
    groups: list[GroupSpec] = []
    for name, table in ground.tables.groups.items():
        at = ("groups", name, "members")
        if not table.members:
            ground.report(at, "must name at least one worker")
        members = [
            f"worker/{member}"
            for index, member in enumerate(table.members)
            if refer(ground.tables, "worker", member, (*at, str(index)), ground.report)
            and _joins(ground, member, (*at, str(index)), owners, name)
        ]
        groups.append(GroupSpec(name=name, strategy=table.strategy, members=tuple(members), restart=table.restart))
    return groups


def _joins(ground: Ground, member: str, at: tuple[str, ...], owners: dict[str, str], group: str) -> bool:
    if member in owners:
        ground.report(at, f'worker "{member}" is in [groups.{owners[member]}] already; a worker is in one group')
        return False
    owners[member] = group
    return True
