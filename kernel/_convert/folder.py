"""The modules beside a manifest: found while its service is planned and runs, never mistaken for others of their names.

Python has one name space of modules for a process. So what stands beside a manifest must not be called like something
that Python or the kernel needs, and two manifests in one process must not get each other's modules.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Final, final

from ..errors import ManifestError, Problem

NEEDED: Final = frozenset({
    *("attr", "attrs", "cattr", "cattrs", "click", "idna", "kernel", "orjson", "outcome", "pygments", "rich"),
    *("sniffio", "sortedcontainers", "structlog", "tomli", "trio", "typing_extensions"),
})
"""Modules of the libraries that the kernel runs on."""
_NOT_TO_IMPORT: Final = frozenset({"__main__", "antigravity", "idlelib", "test", "this"})
"""Modules of Python that do something, or take long, when they are imported; nothing needs them."""
_OF_TESTS: Final = ("conftest", "test_")
"""What pytest may have imported from anywhere; no service imports it."""


def folder_of(manifest: str | Path) -> Path:
    """Return where what a manifest names is looked for: beside it, or, if it comes from a pipe, where one works."""
    path = Path(manifest)
    return Path() if path.is_fifo() else path.parent


@contextmanager
def on_path(directory: Path) -> Generator[None]:
    """Find the modules of a manifest's folder first, while inside: when its service is planned and while it runs.

    Modules of the same names that came from a folder which is not on the path any more are forgotten.

    Raises:
        ManifestError: if a module that stands there is loaded from another folder that is in use.
    """
    _clear(directory)
    with first_on_path(directory):
        yield


@final
class _Added(str):
    """An entry of `sys.path` that goes away with another one."""

    __slots__ = ("owner",)
    owner: str


def add_to_path(directory: Path, *, owner: Path) -> None:
    """Find the modules of a folder too, after those of a folder that is on the path, for as long as that one is.

    Raises:
        ManifestError: as `on_path`.
    """
    entry, other = _Added(directory.absolute()), str(owner.absolute())
    if entry in sys.path:
        return
    _clear(directory)
    entry.owner = other
    sys.path.insert(sys.path.index(other) + 1 if other in sys.path else 0, entry)


def _clear(directory: Path) -> None:
    """Make room for the modules of a folder, or say that there is none."""
    texts = [_in_the_way(name, directory) for name in sorted(modules_in(directory)) if name in sys.modules]
    if any(texts):
        raise ManifestError([Problem(str(directory), 0, "", text) for text in texts if text])
    _load_what_would_be_hidden(directory)


def _load_what_would_be_hidden(directory: Path) -> None:
    """Import what Python and the kernel call like a module that stands in a folder, before that folder comes first.

    Otherwise a `queue.py` beside the manifest makes trio fail, and the problem would be told of every plugin.
    """
    hidden = (sys.stdlib_module_names | NEEDED) - _NOT_TO_IMPORT - sys.modules.keys()
    names = hidden.intersection(modules_in(directory))
    path = sys.path
    sys.path = [entry for entry in path if names and Path(entry).resolve() != directory.resolve()] or path
    try:
        for name in sorted(names):
            with suppress(ImportError):  # of another system, or not installed: nobody needs it then
                importlib.import_module(name)
    finally:
        sys.path = path


@contextmanager
def first_on_path(directory: Path | None) -> Generator[None]:
    """Let Python look into a folder first, while inside; None changes nothing."""
    if directory is None:
        yield
        return
    entry = str(directory.absolute())  # not relative: Python remembers forever what it found below a relative entry
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
        if entry not in sys.path:
            sys.path[:] = [one for one in sys.path if not (isinstance(one, _Added) and one.owner == entry)]


def modules_in(directory: Path | None) -> list[str]:
    """Return the names of the modules and packages of a folder."""
    entries = directory.iterdir() if directory is not None and directory.is_dir() else ()
    return [entry.stem for entry in entries if entry.suffix == ".py" or (entry / "__init__.py").is_file()]


def name_fault(module: str, directory: Path | None) -> str:
    """Return why a module beside the manifest cannot be had by its name; empty if it can, or stands elsewhere."""
    name = module.partition(".")[0]
    if directory is None or _is_loaded_from(name, directory) or not _stands_in(name, directory):
        return ""
    if name in sys.stdlib_module_names:
        return f'"{name}" is the name of a module of Python itself; rename the one beside the manifest'
    if name in NEEDED:
        return f'"{name}" is the name of a module that the kernel needs; rename the one beside the manifest'
    return _in_the_way(name, directory)


def _is_loaded_from(name: str, directory: Path) -> bool:
    """Return whether a module is the one beside the manifest, as it is for all of its workers but the first.

    To find that out by what links lead to costs more than all else that is done to import a worker.
    """
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or name in sys.stdlib_module_names or name in NEEDED:
        return False
    folder = directory.absolute()
    return file in {os.path.join(folder, f"{name}.py"), os.path.join(folder, name, "__init__.py")}


def _stands_in(name: str, directory: Path) -> bool:
    return (directory / f"{name}.py").is_file() or (directory / name / "__init__.py").is_file()


def place_of(module: object) -> str:
    """Return where a module came from, for people; empty if it stands nowhere."""
    file = getattr(module, "__file__", None)
    paths = list(getattr(module, "__path__", ()))
    return file or (f"{paths[0]}, a folder without __init__.py" if paths else "")


def _in_the_way(name: str, directory: Path) -> str:
    """Forget a module of another folder that has a name; if that folder is in use, return what is to be said."""
    loaded = sys.modules.get(name)
    homes = list(_homes(loaded))
    if loaded is None or directory.resolve() in homes or name.startswith(_OF_TESTS) or name in NEEDED:
        return ""  # of what is needed, only who asks for it is told
    if getattr(loaded, "__file__", None) is None:
        # A mere folder: pytest makes such packages, one for each folder between its root and a test file.
        del sys.modules[name]
        return ""
    if homes[0] in _paths(sys.path):
        import sysconfig  # noqa: PLC0415  hardly ever needed

        is_installed = homes[0] in _paths(sysconfig.get_paths().values())
        return "" if is_installed else f'the module "{name}" beside it is not {place_of(loaded)}, which is in use'
    _forget(name)
    return ""


def _homes(module: ModuleType | None) -> Iterator[Path]:
    """Return the folders that a module stands in."""
    file = getattr(module, "__file__", None)
    if file is None:
        yield from (Path(path).resolve().parent for path in getattr(module, "__path__", ()))
    else:
        yield Path(file).resolve().parents[Path(file).stem == "__init__"]


def _paths(entries: Iterable[str]) -> set[Path]:
    return {Path(entry).resolve() for entry in entries}


def _forget(name: str) -> None:
    for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
        del sys.modules[known]
