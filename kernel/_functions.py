"""Functions of the service that the manifest names, such as filters and translators: imported, and looked at."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import cast

from ._imports import NotImportableError, import_object


def import_function(path: str, *, directory: Path | None, taking: str) -> Callable[[object], object]:
    """Return the plain function of one argument that an import path names.

    Args:
        path: `module:name`.
        directory: Searched first for modules while importing; None if there is none.
        taking: What the argument is, for the sentence that says why not.

    Raises:
        NotImportableError: if it names no such function.
    """
    found = import_object(path, directory=directory)
    if fault := _fault(found):
        raise NotImportableError(f'"{path}" must be a plain function of one argument, {taking}: it {fault}')
    return cast("Callable[[object], object]", found)


def _fault(found: object) -> str | None:
    if isinstance(found, type):
        return "is a class"
    if not callable(found):
        return f"is an instance of {type(found).__qualname__}"
    for one in (found, getattr(found, "__call__", None)):  # noqa: B004  the method is looked at, not whether it exists
        if inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one):
            return "is async, and would have to be waited for"
        if inspect.isgeneratorfunction(one):
            return "is a generator"
    return _fault_of_signature(found)


def _fault_of_signature(function: Callable[..., object]) -> str | None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function written in C that does not say
        return None
    try:
        signature.bind(None)
    except TypeError as error:
        return f"cannot be called with one: {error}"
    return None
