"""A manifest, read and resolved in one go, so that what is wrong with either is told at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .._core.spec import Plan
from .._manifest.manifest import Manifest
from .._manifest.registry import Registry
from ..errors import InvalidError, ManifestError, Problem
from .plan import resolve


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
    if any(at[0] == "stages" for at in draft.unknown):  # they hang on each other, and functions on their names
        return ()
    try:
        resolve(draft, registry)
    except InvalidError as error:
        return error.problems
    return ()
