"""Tables of the manifest -> typed objects; the one place where that happens.

Strict: no coercion, no unknown keys, and every problem of a table is reported, not the first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from .annotations import NotUnderstoodError
from .compiler import compile_type
from .walk import MANIFEST, WRONG, At, Walk

T = TypeVar("T")


@overload
def structure(
    value: Mapping[str, object],
    cls: type[T],
    *,
    report: Callable[[tuple[str, ...], str], None],
    also_allowed: Collection[str] = (),
    directory: Path | None = None,
    owner: str = "the plugin",
) -> T | None: ...
@overload
def structure(
    value: Mapping[str, object],
    cls: object,
    *,
    report: Callable[[tuple[str, ...], str], None],
    also_allowed: Collection[str] = (),
    directory: Path | None = None,
    owner: str = "the plugin",
) -> object: ...
def structure(
    value: Mapping[str, object],
    cls: Any,
    *,
    report: Callable[[tuple[str, ...], str], None],
    also_allowed: Collection[str] = (),
    directory: Path | None = None,
    owner: str = "the plugin",
) -> object:
    """Make an object of a table.

    Args:
        value: The table, as `Manifest.tables` holds it.
        cls: A type that is understood (docs/reference/types.md): an attrs class as a rule. Besides those of messages,
            fields may be `Secret`, and `type[Base]` and `Callable` (imported from `module:Name`, or the name of one
            that Python has built in); dates are those of TOML.
        report: Called with the path below the table and the text of every problem.
        also_allowed: Keys that somebody else has taken out of the table: suggested for a misspelt key.
        directory: Searched first for modules, and where relative paths begin; None if there is none.
        owner: Whose fault a type is that is not understood.

    Returns:
        The object, or None if a problem was reported.
    """

    def at_strings(at: At, text: str) -> None:
        report(tuple(map(str, at)), text)

    try:
        node = compile_type(cls, MANIFEST).node
    except NotUnderstoodError as error:
        report((), f"{error.what}, a fault of {owner}{': ' if error.why else ''}{error.why}")
        return None
    made = node.explain(value, (), Walk(MANIFEST, at_strings, directory=directory, also=tuple(also_allowed)))
    return None if made is WRONG else made
