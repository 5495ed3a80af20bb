"""Paths of keys in plain tables: what stands there, and how a problem writes it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from .._convert.strict import is_array, is_table
from .._core.words import toml_path

ABSENT: Final = object()


def find(value: object, at: tuple[str, ...]) -> object:
    """Return what stands at a path, `ABSENT` if nothing does; elements of arrays are keys `"0"`, `"1"`, ..."""
    for key in at:
        value = _child(value, key)
    return value


def _child(value: object, key: str) -> object:
    if is_table(value):
        return value.get(key, ABSENT)
    if is_array(value) and key.isdecimal() and int(key) < len(value):
        return value[int(key)]
    return ABSENT


def removed(tables: Mapping[str, object], paths: Collection[tuple[str, ...]]) -> dict[str, object]:
    """Return tables without what stands at some paths; the given ones are not changed."""
    return {
        key: removed(value, below) if is_table(value) and (below := _below(key, paths)) else value
        for key, value in tables.items()
        if (key,) not in paths
    }


def _below(key: str, paths: Collection[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [at[1:] for at in paths if at[0] == key and len(at) > 1]


def shown_path(tables: Mapping[str, object], at: tuple[str, ...]) -> str:
    """Return `[table].key`: the longest part of the path that is tables, then the rest."""
    header: list[str] = []
    rest: list[str | int] = []
    value: object = tables
    for key in at:
        outer, value = value, _child(value, key)
        if is_table(value) and not rest:
            header.append(key)
        else:
            rest.append(int(key) if is_array(outer) and key.isdecimal() else key)
    return toml_path(header, rest)


def write(
    tables: dict[str, object], at: tuple[str, ...], value: object, written: set[tuple[str, ...]]
) -> tuple[str, ...] | None:
    """Set a value, copying the tables on the way; return the path of what is in the way, if anything is.

    Args:
        tables: Changed in place; the tables in it are not.
        at: Where; missing tables are made.
        value: What.
        written: Is given the paths of all that was written.
    """
    for depth, key in enumerate(at[:-1], start=1):
        if key not in tables:
            written.add(at[:depth])
        inner = tables.get(key, {})
        if not is_table(inner):
            return at[:depth]
        tables[key] = copy = dict(inner)
        tables = copy
    tables[at[-1]] = value
    written.add(at)
    return None
