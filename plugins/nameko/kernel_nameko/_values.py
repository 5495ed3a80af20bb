"""Values of JSON as what they are taken for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast


def as_table(value: object) -> Mapping[str, object]:
    """Return an object of JSON; an empty one for all else."""
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}
