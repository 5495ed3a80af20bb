"""`[kernel] setup`: a function of the service's own that looks at what the manifest says and lays tables over it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .._convert.folder import first_on_path
from .._convert.imports import NotImportableError, describe, import_function
from .._convert.strict import is_array, is_table
from .._core.words import shown


class SetupFailedError(Exception):
    """Nothing can be laid over; `str()` says why."""


def tables_of(path: str, tables: Mapping[str, object], *, directory: Path) -> Mapping[str, object]:
    """Call the function and return the tables that it wants laid over those of the manifest.

    Args:
        path: `module:function`.
        tables: What the manifest says, everything from outside replaced.
        directory: Of the manifest, where modules are looked for first.

    Raises:
        SetupFailedError: if there is no such function, or it raises, or returns neither tables nor None.
    """
    try:
        function = import_function(path, directory=directory, taking="the tables of the manifest")
        with first_on_path(directory):
            made = function(_copied(tables))
    except NotImportableError as error:
        raise SetupFailedError(str(error)) from error
    except (Exception, SystemExit) as error:
        raise SetupFailedError(f'"{path}" raised {describe(error)}') from error
    if made is None:
        return {}
    if not is_table(made):
        raise SetupFailedError(f'"{path}" must return tables to lay over the manifest, or None; got {shown(made)}')
    return made


def _copied(value: object) -> object:
    """Return a value that can be changed without changing what the manifest says."""
    if is_table(value):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if is_array(value) else value
