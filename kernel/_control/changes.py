"""What a reload does, or has done, as plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping

from .._core.changes import Changes
from .._core.events import KernelReloaded
from .._core.spec import Plan, Value
from .._supervise.leftovers import foretold


def reload_as_json(event: KernelReloaded) -> Mapping[str, object]:
    """Return what a reload has done."""
    return {
        "changed": event.changed,
        "added": event.added,
        "removed": event.removed,
        "restarted": event.restarted,
        "failed": dict(event.failed),
        "refused": dict(event.refused),
        "left": event.left,
        "undone": event.undone,
        "seconds": round(event.seconds, 3),
    }


def changes_as_json(old: Plan, new: Plan, changes: Changes) -> Mapping[str, object]:
    """Return what a reload would do, with the values that differ; secrets are not shown."""
    before, after = ({value.path: value for value in plan.values()} for plan in (old, new))
    differing = [_difference(path, before.get(path), after.get(path)) for path in dict.fromkeys([*before, *after])]
    return {
        "manifest": new.path,
        "changed": changes.changed,
        "added": changes.added,
        "removed": changes.removed,
        "restarted": changes.restarted,
        "left": foretold(old, new, changes),
        "values": [one for one in differing if one["old"] != one["new"]],
    }


def _difference(path: str, old: Value | None, new: Value | None) -> Mapping[str, object]:
    """Return both sides of a value; None for one that is not there. `origin` is of the side that is."""
    known = new or old
    return {
        "path": path,
        "old": None if old is None else old.shown,
        "new": None if new is None else new.shown,
        "origin": "" if known is None else known.origin,
    }
