"""What a service is called: as its manifest says, or else like the folder of that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .._convert.strict import is_table

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def is_name(text: str) -> bool:
    """Return whether a service can be called so."""
    return _NAME.fullmatch(text) is not None


def nearest_name(text: str) -> str:
    """Return the name that was probably meant by what is none; empty if there is no such."""
    meant = re.sub(r"[^a-z0-9_-]+", "-", text, flags=re.IGNORECASE).strip("-_")
    return meant if is_name(meant) else ""


def named_like(directory: Path) -> str:
    """Return what a service is called whose manifest does not say it."""
    folder = re.sub(r"[^A-Za-z0-9_-]+", "_", directory.absolute().name)
    return re.sub(r"^[^A-Za-z]+", "", folder)[:64] or "service"


def name_in(tables: Mapping[str, object], directory: Path) -> str:
    """Return what a service is called by tables of which nobody knows whether they are right."""
    kernel = tables.get("kernel")
    given = kernel.get("name") if is_table(kernel) else None
    return given if isinstance(given, str) and is_name(given) else named_like(directory)
