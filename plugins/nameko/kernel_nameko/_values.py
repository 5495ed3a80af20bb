"""Values of JSON as what they are taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from kernel import Arguments
from kernel.errors import EncodeError


def as_table(value: object) -> Mapping[str, object]:
    """Return an object of JSON; an empty one for all else."""
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def as_arguments(payload: object) -> Arguments:
    """Return what a call is made with: an object gives arguments by name, an array by position.

    Raises:
        EncodeError: if it is neither.
    """
    if isinstance(payload, Arguments):
        return payload
    if isinstance(payload, dict):
        return Arguments(kwargs=as_table(cast("object", payload)))
    if isinstance(payload, list | tuple):
        return Arguments(cast("Sequence[object]", payload))
    raise EncodeError(f"a call takes Arguments, an object or an array, not {type(payload).__name__}")
