"""Manifests that a manifest names in `[services]`: where they may be, and what the outer one says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, final

import attrs

from .._convert.folder import folder_of
from .._convert.strict import FromOutside, is_table
from .._core.words import listed
from .layers import Layer, lay_over, paths_in
from .overrides import OF_FILES
from .paths import find
from .toml import KeyPath, Lines

MAX_SERVICES: Final = 64
"""Services inside one, all in all."""
MAX_SERVICES_DEEP: Final = 8
"""Services inside each other."""


def is_disabled(enabled: object) -> bool:
    """Return whether the key `enabled` of a component leaves it out."""
    return enabled is False or (isinstance(enabled, FromOutside) and enabled == "false")


@final
@attrs.define(eq=False, repr=False)
class Way:
    """The manifests from the outermost one to the one that is read."""

    root: Path
    """The folder of the outermost: all of them lie in it."""
    files: tuple[tuple[Path, str], ...]
    """Where each is, and what it is called in problems."""
    _count: list[int] = attrs.field(factory=lambda: [0])
    """How many have been read, on all ways together."""

    @classmethod
    def of(cls, path: Path, file: str) -> Way:
        """Begin at the outermost manifest."""
        return cls(folder_of(path), ((path.resolve(), file),))

    def fault(self, path: Path, file: str) -> str:
        """Return why a manifest cannot be run inside the last one; empty if it can."""
        try:
            real = path.resolve()
        except (OSError, RuntimeError, ValueError) as error:
            return f"{file} cannot be found: {error}"
        self._count[0] += 1
        if any(real == known for known, _ in self.files):
            return f"{file} would be inside itself for ever: {listed([*(name for _, name in self.files), file])}"
        if not real.is_relative_to(self.root.resolve()):
            return f"{file} is outside of the folder of {self.files[0][1]}, where all that is inside of it has to be"
        if len(self.files) > MAX_SERVICES_DEEP:
            return f"more than {MAX_SERVICES_DEEP} services inside each other"
        if self._count[0] > MAX_SERVICES:
            return f"more than {MAX_SERVICES} services inside one"
        return ""

    def into(self, path: Path, file: str) -> Way:
        """Return the way to one that is inside the last."""
        return Way(self.root, (*self.files, (path.resolve(), file)), self._count)


@final
@attrs.frozen(eq=False, repr=False)
class Said:
    """What the outer manifest says of one inside it."""

    lent: frozenset[str]
    """Names of drivers that it has in the place of those inside: what is written of these is not read."""
    over: Layer
    """What it lays over it, everything from outside replaced."""

    @classmethod
    def of(cls, table: Mapping[str, object], name: str, lines: Lines, file: str) -> Said:
        """Read it.

        Args:
            table: `[services.NAME]`.
            name: `NAME`.
            lines: Of the outer manifest.
            file: What that is called in problems.
        """
        lent, over = table.get("drivers"), table.get("set")
        laid: Mapping[str, object] = over if is_table(over) else {}
        at = ("services", name, "set")
        return cls(
            frozenset(lent if is_table(lent) else ()), Layer(laid, lines_of(lines, file, paths_in(laid), above=at))
        )

    def refused(self) -> Iterator[KeyPath]:
        """Yield what stands in a file, and cannot be laid over one."""
        return (at for at in OF_FILES if at in self.over.lines.known)

    def laid_over(self, layer: Layer) -> tuple[Layer, frozenset[str]]:
        """Return a manifest with it laid over, and the names of the drivers that are left out."""
        drivers = layer.tables.get("drivers")
        known: Mapping[str, object] = drivers if is_table(drivers) else {}
        kept = {name: driver for name, driver in known.items() if name not in self.lent}
        tables = {**layer.tables, "drivers": kept} if len(kept) < len(known) else layer.tables
        return lay_over(Layer(tables, layer.lines), self.over), self.lent.intersection(known)

    def values(self) -> frozenset[KeyPath]:
        """Return the paths of all values that are no tables."""
        return frozenset(at for at in self.over.lines.known if not is_table(find(self.over.tables, at)))


def lines_of(lines: Lines, file: str, paths: Iterator[KeyPath], *, above: KeyPath = ()) -> Lines:
    """Return the places of some paths.

    Args:
        lines: Of a manifest.
        file: What it is called.
        paths: Below `above`.
        above: What they lose.
    """
    known = {at: lines.line((*above, *at)) for at in paths}
    return Lines(known, {at: lines.file((*above, *at)) or file for at in known})
