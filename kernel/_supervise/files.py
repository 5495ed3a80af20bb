"""Whether the files that components read have changed: what they hold, and not when they were written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .._core.regular import read_regular
from .._core.spec import Plan, WorkerSpec

MOST: Final = 1 << 24
"""Bytes of a file that is looked at; of a larger one nothing is known."""


def files_of(plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """Return for each component that reads files what tells whether they have changed. Reads them."""
    found: dict[str, tuple[str, ...]] = {}
    for id_, spec in plan.components.items():
        paths = [] if isinstance(spec, WorkerSpec) else [path for path in spec.cls.reads(spec.config) if path]
        if paths:
            inside = plan.service_of(id_)
            directory = plan.directory if inside is None else inside.directory
            found[id_] = tuple(_stamp(directory / path) for path in paths)
    return found


def _stamp(path: Path) -> str:
    """Return what tells a content from another; empty if it cannot be read, which is for the component to say."""
    import hashlib  # noqa: PLC0415  a service without such files does not pay for it

    try:
        return hashlib.sha256(read_regular(path, most=MOST)).hexdigest()
    except OSError:
        return ""
