"""`--set table.key=value`: values that the command line writes into a manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .._core.words import shown, toml_path
from ..errors import ManifestError, Problem
from .paths import shown_path, write
from .toml import parse_key, parse_text

OVERRIDE: Final = "--set"
"""What problems call it."""
OF_FILES: Final = (("kernel", "extends"), ("kernel", "setup"))
"""Keys that say what files a manifest is made of."""


def override(
    tables: Mapping[str, object], overrides: Sequence[str], problems: list[Problem]
) -> tuple[dict[str, object], set[tuple[str, ...]]]:
    """Return tables with values written over, and the paths of what was written; what cannot be is reported."""
    edited = dict(tables)
    written: set[tuple[str, ...]] = set()
    for one in overrides:
        key, sign, text = one.partition("=")
        at = parse_key(key.strip())
        if not sign or at is None:
            problems.append(Problem(OVERRIDE, 0, "", f"{shown(key)} must be written as table.key=value"))
        elif at in OF_FILES:
            problems.append(Problem(OVERRIDE, 0, shown_path(edited, at), "stands in a file, and cannot be set"))
        elif (obstacle := write(edited, at, value_of(text), written)) is not None:
            text = f"cannot be set: {toml_path(obstacle)} is not a table"
            problems.append(Problem(OVERRIDE, 0, shown_path(edited, at), text))
    return edited, written


def value_of(text: str) -> object:
    """Return a value of the command line: TOML, or else a string as it stands."""
    try:
        parsed, _ = parse_text(f"value = {text}", file=OVERRIDE)
    except ManifestError:
        return text
    # More than one key: the text held a line break, and was not one value.
    return parsed["value"] if len(parsed) == 1 else text
