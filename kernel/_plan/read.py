"""A manifest, read and resolved in one go, so that what is wrong with either is told at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from .._core.spec import Plan
from .._manifest.manifest import Manifest
from .._manifest.registry import Registry
from .._manifest.tables import RESERVED
from ..errors import InvalidError, ManifestError, Problem
from .plan import resolve

_FOR_CODE: Final = frozenset({"config", "options"})
"""Keys of the kernel that only a worker or a plugin reads."""


def read_plan(load: Callable[[], Manifest], registry: Registry) -> Plan:
    """Read a manifest and resolve it, so that what is wrong with either is told at once.

    Args:
        load: Reads it, and may raise `ManifestError`.
        registry: What is installed.

    Raises:
        InvalidError: listing every problem, if there is any.
    """
    try:
        manifest = load()
    except ManifestError as error:
        draft = getattr(error, "_draft", None)
        if not isinstance(draft, Manifest):
            raise
        raise ManifestError([*error.problems, *_problems_of(draft, registry)]) from None
    return resolve(manifest, registry)


def _problems_of(draft: Manifest, registry: Registry) -> Sequence[Problem]:
    if any(_decides_about_others(at) for at in draft.unknown):
        return ()
    try:
        resolve(draft, registry)
    except InvalidError as error:
        return error.problems
    return ()


def _decides_about_others(at: tuple[str, ...]) -> bool:
    """Return whether it says how components stand to each other, so that much would be wrong that only follows."""
    return any(key in RESERVED.get(at[0], ()) and key not in _FOR_CODE for key in at[2:3])
