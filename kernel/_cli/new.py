"""Skeletons of services and plugins: the files of `_templates`, with names put in.

A template ends in `.tmpl`, so that no tool takes it for what it will become; `PACKAGE` in a path and `$package` and
the like in a text are replaced.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from string import Template
from typing import Final

import click

_SERVICE_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")
_PLUGIN_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_DISTRIBUTION: Final = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")
_LONGEST: Final = 64
_TAKEN: Final = frozenset({"kernel", "test", "tests", "trio", "attrs"})
"""Packages that a service would hide."""
_SUFFIX: Final = ".tmpl"


def write_service(name: str, parent: Path) -> list[Path]:
    """Write the skeleton of a service into a new folder.

    Args:
        name: Of the folder and of the service.
        parent: Where the folder goes.

    Returns:
        The files, relative to `parent`.

    Raises:
        click.ClickException: if the name will not do, the folder exists, or it cannot be written.
    """
    package = name.replace("-", "_")
    if not _SERVICE_NAME.fullmatch(name) or len(name) > _LONGEST:
        raise click.UsageError(f"{name!r} must be lower-case words of a-z and 0-9, joined by - or _")
    if keyword.iskeyword(package) or package in sys.stdlib_module_names or package in _TAKEN:
        raise click.UsageError(f"{name!r} is the name of a Python module; choose another one")
    return _write("service", {"name": name, "package": package}, parent / name)


def write_plugin(name: str, kind: str, parent: Path, *, package: str = "", distribution: str = "") -> list[Path]:
    """Write the skeleton of a plugin into a new folder.

    Args:
        name: Of the folder and of the plugin.
        kind: `driver`, `protocol` or `dispatcher`.
        parent: Where the folder goes.
        package: What is imported; the name if empty.
        distribution: What is installed; the name, with - for _, if empty.

    Returns:
        The files, relative to `parent`.

    Raises:
        click.ClickException: as `write_service`.
    """
    package, distribution = package or name, distribution or name.replace("_", "-")
    for word in (name, package):
        if not _PLUGIN_NAME.fullmatch(word) or len(word) > _LONGEST:
            raise click.UsageError(f"{word!r} must be lower-case words of a-z and 0-9, joined by _")
    if not _DISTRIBUTION.fullmatch(distribution) or len(distribution) > _LONGEST:
        raise click.UsageError(f"{distribution!r} must be lower-case words of a-z and 0-9, joined by - or _")
    if _is_taken(package):
        raise click.UsageError(f"{package!r} is the name of a Python module; say another one with --package")
    class_ = "".join(map(str.capitalize, name.split("_")))
    words = {"name": name, "package": package, "distribution": distribution, "class_": class_}
    return _write(kind, words, parent / name)


def _is_taken(package: str) -> bool:
    """Whether a package of this name would hide another one, or be hidden by it."""
    known = keyword.iskeyword(package) or package in sys.stdlib_module_names or package in _TAKEN
    return known or importlib.util.find_spec(package) is not None


def _write(template: str, words: Mapping[str, str], folder: Path) -> list[Path]:
    try:
        folder.mkdir()
        return sorted(_fill(folder, words, template))
    except FileExistsError:
        raise click.UsageError(f"{folder.name} exists already; choose another name") from None
    except OSError as error:
        raise click.ClickException(f"{error.filename or folder} cannot be written: {error.strerror}") from error


def _fill(folder: Path, words: Mapping[str, str], template: str) -> Iterator[Path]:
    source = resources.files("kernel").joinpath("_cli", "_templates", template)
    for path, text in _templates(source, PurePosixPath()):
        target = folder / str(path).replace("PACKAGE", words["package"])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(text).substitute(words), encoding="utf-8")
        yield target.relative_to(folder.parent)


def _templates(source: Traversable, at: PurePosixPath) -> Iterator[tuple[PurePosixPath, str]]:
    for entry in source.iterdir():
        if entry.is_dir():
            yield from _templates(entry, at / entry.name)
        elif entry.name.endswith(_SUFFIX):
            yield at / entry.name.removesuffix(_SUFFIX), entry.read_text(encoding="utf-8")
