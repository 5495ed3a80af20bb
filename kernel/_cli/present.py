"""Whether the files that the components of a plan need are there. Nothing is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from .._convert.strict import is_array, is_table
from .._core.spec import Plan, WorkerSpec
from ..errors import Problem


def missing(plan: Plan) -> Iterator[Problem]:
    """Yield a problem for each file that a component could not read, or begin, when it opens."""
    for id_, spec in plan.components.items():
        if isinstance(spec, WorkerSpec):
            continue
        inside = plan.service_of(id_)
        directory = plan.directory if inside is None else inside.directory
        for path in filter(None, spec.cls.files(spec.config)):
            if reason := _why_not_read(directory / path):
                yield _problem(plan, id_, path, reason)
        for path in filter(None, spec.cls.appends(spec.config)):
            if reason := _why_not_appended(Path(path)):
                yield _problem(plan, id_, path, reason)


def _why_not_read(path: Path) -> str:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return "is a directory" if stat.S_ISDIR(mode) else "" if stat.S_ISREG(mode) else "is no regular file"


def _why_not_appended(path: Path) -> str:
    if path.is_dir():
        return "is a directory"
    return "" if path.parent.is_dir() else f'there is no folder "{path.parent}"'


def _problem(plan: Plan, id_: str, path: str, reason: str) -> Problem:
    kind, name, *_ = id_.split("/")  # what is inside of a service is called like that, and then by its own name
    section = ("services" if plan.service_of(id_) else f"{kind}s", name)
    table: object = plan.tables
    for key in section:
        table = table.get(key, {}) if is_table(table) else {}
    below = next(_paths(table, path), ())
    return plan.problem((*section, *below), f'{id_} needs the file "{path}": {reason}')


def _paths(value: object, wanted: str) -> Iterator[tuple[str, ...]]:
    """Yield where a text stands."""
    if value == wanted:
        yield ()
    parts: Mapping[str, object] = {}
    if is_table(value):
        parts = value
    elif is_array(value):
        parts = {str(number): item for number, item in enumerate(value)}
    for key, item in parts.items():
        yield from ((key, *below) for below in _paths(item, wanted))
