"""Several files as one: what a manifest extends, the manifest itself, and what is laid over it, from the lowest up.

Tables are merged key by key; anything else of the upper file takes the place of what the lower one has. Each key keeps
the file and line that it is from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, final

import attrs

from .._convert.folder import folder_of
from .._convert.strict import is_table
from .._core.words import listed, shown
from ..errors import ManifestError, Problem
from .substitute import stands_for_secret
from .toml import KeyPath, Lines, is_below, read_toml

MAX_FILES: Final = 16
"""Files that one manifest may be made of."""
_EXTENDS: Final = ("kernel", "extends")


@final
@attrs.frozen(eq=False, repr=False)
class Layer:
    """One file, or several that became one."""

    tables: Mapping[str, object]
    lines: Lines


@final
@attrs.define(eq=False, repr=False)
class _Files:
    """The files of one manifest, in the order in which they are read."""

    root: Path
    """The manifest's folder: all of them lie in it, since their relative paths begin there."""
    known: dict[Path, str] = attrs.field(factory=dict[Path, str], init=False)
    """Where each is -> what it is called in problems."""

    def read(self, path: Path, file: str) -> Layer:
        """Read one that has been allowed in."""
        tables, lines = read_toml(path, file=file)
        return Layer(tables, Lines(lines.known, dict.fromkeys(lines.known, file) if len(self.known) > 1 else {}))

    def admit(self, path: Path, file: str) -> str:
        """Take a file in; return why it cannot be, empty if it can."""
        try:
            real = path.resolve()
        except (OSError, RuntimeError, ValueError) as error:
            return f"{file} cannot be found: {error}"
        if self.known and not real.is_relative_to(self.root.resolve()):
            return f"{file} is outside of the manifest's folder, where all that it is made of has to be"
        if real in self.known:
            chain = listed([*self.known.values(), file])
            return f"{file} is part of the manifest already ({chain}), and would be read for ever"
        if len(self.known) == MAX_FILES:
            return f"more than {MAX_FILES} files for one manifest"
        self.known[real] = file
        return ""


def read_layers(path: Path, *, file: str, overlays: Sequence[str | Path]) -> Layer:
    """Read a manifest with what it extends and what is laid over it.

    Args:
        path: Of the manifest.
        file: What to call it in problems.
        overlays: Paths of files, each laid over all before it.

    Raises:
        ManifestError: if a file cannot be had or is not TOML; the first problem of the manifest and of each overlay.
    """
    files = _Files(folder_of(path))
    problems: list[Problem] = []
    result = Layer({}, Lines())
    try:
        files.admit(path, file)
        result = _extended(files, files.read(path, file), path, file)
    except ManifestError as error:
        problems += error.problems
    for overlay in overlays:
        try:
            result = lay_over(result, _overlay(files, Path(overlay), str(overlay)))
        except ManifestError as error:
            problems += error.problems
    if problems:
        raise ManifestError(problems)
    return result


def _overlay(files: _Files, path: Path, file: str) -> Layer:
    if fault := files.admit(path, file):
        raise ManifestError([Problem("--overlay", 0, "", fault)])
    layer = files.read(path, file)
    if _name_of_base(layer) is not None:
        text = "an overlay extends nothing: it lies over the manifest already"
        raise ManifestError([Problem(file, layer.lines.line(_EXTENDS), "[kernel].extends", text)])
    return layer


def _extended(files: _Files, top: Layer, path: Path, file: str) -> Layer:
    """Return a file laid over those that it extends, directly or not."""
    above, lowest = [top], top
    while (name := _name_of_base(lowest)) is not None:
        place = lowest.lines.line(_EXTENDS)
        if not isinstance(name, str) or not name:
            raise _problem(file, place, f"must be the path of a manifest in a string, got {shown(name)}")
        path, base = folder_of(path) / name, str(folder_of(file) / name)
        if fault := files.admit(path, base):
            raise _problem(file, place, fault)
        try:
            lowest = files.read(path, base)
        except ManifestError as error:
            [problem] = error.problems
            raise error if problem.line else _problem(file, place, f"{base}: {problem.text}") from error
        above.append(lowest)
        file = base
    result = above.pop()
    while above:
        result = lay_over(result, above.pop())
    return result


def _name_of_base(layer: Layer) -> object | None:
    kernel = layer.tables.get("kernel")
    return kernel.get("extends") if is_table(kernel) else None


def _problem(file: str, line: int, text: str) -> ManifestError:
    return ManifestError([Problem(file, line, "[kernel].extends", text)])


def lay_over(lower: Layer, upper: Layer) -> Layer:
    """Return two layers as one; nothing of theirs is changed."""
    replaced: dict[KeyPath, None] = {}
    tables = _merged(lower.tables, upper.tables, (), replaced)
    old, new = lower.lines, upper.lines
    known = {at: line for at, line in old.known.items() if not is_below(at, replaced)}
    fresh = {at: line for at, line in new.known.items() if at not in known}
    files = {at: file for at, file in old.files.items() if at in known}
    return Layer(tables, Lines({**known, **fresh}, {**files, **{at: new.files.get(at, "") for at in fresh}}))


def _merged(
    lower: Mapping[str, object], upper: Mapping[str, object], at: KeyPath, replaced: dict[KeyPath, None]
) -> dict[str, object]:
    tables = dict(lower)
    for key, value in upper.items():
        here, old = (*at, key), lower.get(key)
        if is_table(old) and is_table(value) and not (stands_for_secret(old, here) or stands_for_secret(value, here)):
            tables[key] = _merged(old, value, here, replaced)
        else:
            tables[key] = value
            replaced[here] = None
    return tables


def paths_in(value: object, at: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of a value and, in tables, of all keys."""
    if at:
        yield at
    for key, item in value.items() if is_table(value) else ():
        yield from paths_in(item, (*at, key))
