"""`module:Name` -> the object, or one sentence that says why not. The only place that imports the user's code."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import cast

from .._core.words import did_you_mean
from .folder import first_on_path, modules_in, name_fault


class NotImportableError(Exception):
    """An import path leads nowhere; `str()` says why."""

    of_module: bool = False
    """Whether it is the module, and so would be the same for any name of it."""


def import_object(path: str, *, directory: Path | None) -> object:
    """Return what an import path names.

    Args:
        path: `module:Name`, where both parts may have dots.
        directory: Searched first for modules while importing; None if there is none.

    Raises:
        NotImportableError: if it is no such path, or importing fails in whatever way.
    """
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise NotImportableError('must be "module:Name"')
    directory = directory and directory.absolute()
    if fault := name_fault(module, directory):
        raise NotImportableError(fault)
    with first_on_path(directory):
        return _find(module, name, directory)


def _find(module: str, name: str, directory: Path | None) -> object:
    # Importing runs code of the user's: whatever it raises, sys.exit() included, is a fault of the manifest.
    try:
        found: object = importlib.import_module(module)
        for part in name.split("."):
            found = _attribute(module, found, part, directory)
    except NotImportableError:
        raise
    except (Exception, SystemExit) as error:
        failure = NotImportableError(_why(error, module, directory))
        failure.of_module = True
        raise failure from error
    return found


def _attribute(module: str, owner: object, name: str, directory: Path | None) -> object:
    if not hasattr(owner, name):
        near = did_you_mean(name, (known for known in dir(owner) if not known.startswith("_")))
        raise NotImportableError(
            f'"{getattr(owner, "__qualname__", module)}"{_whence(owner, directory)} has no "{name}"{near}'
        )
    return getattr(owner, name)


def _whence(owner: object, directory: Path | None) -> str:
    """Say which file or folder a module is from: it may not be the one that was meant."""
    if directory is None or not isinstance(owner, ModuleType) or owner.__name__ in sys.builtin_module_names:
        return ""
    if owner.__file__ is not None:
        return f" (from {_shown(owner.__file__, directory)})"
    return f" (from {', '.join(getattr(owner, '__path__', ())) or 'nowhere'}, a namespace package)"


def _why(error: BaseException, module: str, directory: Path | None) -> str:
    if isinstance(error, ModuleNotFoundError) and _is_part_of(error.name or "", module):
        return f'there is no module "{error.name}"{did_you_mean(module, modules_in(directory))}'
    if isinstance(error, SyntaxError):
        return f'cannot import "{module}": {_place(error.filename, error.lineno, directory)}: {error.msg}'
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    hint = f'; is what has "{missing}" installed here?' if missing else ""
    return f'cannot import "{module}": {_place(*_origin(error, directory), directory)}: {describe(error)}{hint}'


def _is_part_of(missing: str, module: str) -> bool:
    return f"{module}.".startswith(f"{missing}.")


def _origin(error: BaseException, directory: Path | None) -> tuple[str | None, int | None]:
    """Return where it was raised: in the code beside the manifest if it passed through that, since there it is mended."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if directory is not None and Path(frame.filename).is_relative_to(directory)]
    frames = own or frames
    return (frames[-1].filename, frames[-1].lineno) if frames else (None, None)


def _place(filename: str | None, line: int | None, directory: Path | None) -> str:
    if filename is None:
        return "somewhere"
    return f"{_shown(filename, directory)}:{line}"


def _shown(filename: str, directory: Path | None) -> str:
    path = Path(filename)
    return str(path.relative_to(directory) if directory is not None and path.is_relative_to(directory) else path)


def describe(error: BaseException) -> str:
    """Return type and text of an error in one line, even if its text cannot be made."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001  # somebody else's __str__
        text = "(its text cannot be made)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def imports_asyncio(found: object) -> bool:
    """Return whether the module that an object is from has imported asyncio under its own name."""
    module = sys.modules.get(str(getattr(found, "__module__", "")))
    return module is not None and vars(module).get("asyncio") is sys.modules.get("asyncio", module)


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
