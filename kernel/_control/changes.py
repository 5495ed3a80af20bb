"""What a reload does, or has done, as plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping

from .._core.changes import Changes
from .._core.events import KernelReloaded
from .._core.spec import Plan


def reload_as_json(event: KernelReloaded) -> Mapping[str, object]:
    """Return what a reload has done."""
    return {
        "changed": event.changed,
        "added": event.added,
        "removed": event.removed,
        "restarted": event.restarted,
        "failed": dict(event.failed),
        "undone": event.undone,
        "seconds": round(event.seconds, 3),
    }


def changes_as_json(old: Plan, new: Plan, changes: Changes) -> Mapping[str, object]:
    """Return what a reload would do, with the values that differ; secrets are not shown."""
    before = {value.path: value.shown for value in old.values()}
    after = {value.path: value for value in new.values()}
    values = [
        {"path": path, "old": before.get(path), "new": after[path].shown if path in after else None}
        | ({"origin": after[path].origin} if path in after else {})
        for path in dict.fromkeys([*before, *after])
        if before.get(path) != (after[path].shown if path in after else None)
    ]
    return {
        "manifest": new.path,
        "changed": changes.changed,
        "added": changes.added,
        "removed": changes.removed,
        "restarted": changes.restarted,
        "values": values,
    }
