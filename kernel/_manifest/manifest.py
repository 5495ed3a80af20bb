"""The manifest: TOML text -> `Manifest`, a tree of plain values that knows where each of them was written.

First arrow of a service's way: `kernel.toml -> load -> Manifest -> resolve`. Knows which tables there are, but
not what components take; no plugin is imported.

Besides TOML itself it understands `${NAME}` and `${NAME:-default}` in strings (`$${` is a literal `${`), and below a
component a table that has only the key `env` or only the key `file` stands for a `Secret`. Those two shapes are
reserved: a plugin cannot be given a table whose only key is `env` or `file`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, cast, final

import attrs

from .._convert.strict import is_array, is_table
from .._core.secret import Secret
from .._core.words import listed, shown, toml_path, unknown
from ..errors import ManifestError, Problem
from .substitute import Substitution
from .toml import MAX_DEPTH, Lines, parse_key, parse_text, read_toml

COMPONENT_TABLES: Final = ("drivers", "protocols", "dispatchers", "workers", "groups")
"""Tables of tables: `[drivers.NAME]`."""
TABLES: Final = ("kernel", "logging", *COMPONENT_TABLES)
_OVERRIDE: Final = "--set"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ABSENT: Final = object()
_NAME_RULE: Final = "a name must be at most 64 of a-z, 0-9 and _, and start with a letter"


@final
@attrs.frozen(kw_only=True, eq=False)
class Manifest:
    """What a manifest says, everything replaced, and where it says so.

    Paths (`at`) are tuples of keys from the root: `("drivers", "queue", "path")`; array elements are `"0"`, `"1"`.
    """

    path: str
    """Of the file, as the user gave it."""
    directory: Path
    """Of the file: relative paths in the manifest start here."""
    tables: Mapping[str, object] = attrs.field(repr=False)
    """Dicts, lists and scalars as TOML knows them, and `Secret`s."""
    lines: Lines = attrs.field(factory=Lines)
    overridden: frozenset[tuple[str, ...]] = frozenset()
    """Paths that `--set` wrote, with the tables that it had to create."""
    sources: Mapping[tuple[str, ...], tuple[str, ...]] = attrs.field(factory=dict[tuple[str, ...], tuple[str, ...]])
    """What came from outside: `$NAME`, or the file of a secret."""
    warnings: tuple[Problem, ...] = ()
    """What was read all the same, and should be looked at."""

    def secrets(self) -> Iterator[Secret]:
        """Return every secret, wherever it stands."""
        return _secrets(self.tables)

    def line(self, at: tuple[str, ...]) -> int:
        """Return the 1-based line of a key, or of the nearest table around it; 0 if no line can be named."""
        return 0 if self._is_overridden(at) else self.lines.line(at)

    def origin(self, at: tuple[str, ...]) -> str:
        """Return where a value comes from: `kernel.toml:12`, `kernel.toml:12 ($NAME)`, `--set` or `default`."""
        if _find(self.tables, at) is _ABSENT:
            return "default"
        line = self.line(at)
        place = _OVERRIDE if self._is_overridden(at) else f"{self.path}:{line}" if line else self.path
        return f"{place} ({listed(self.sources[at])})" if at in self.sources else place

    def problem(self, at: tuple[str, ...], text: str) -> Problem:
        """Return a problem with what is, or should be, at a path."""
        file = _OVERRIDE if self._is_overridden(at) else self.path
        return Problem(file, self.line(at), _shown_path(self.tables, at), text)

    def _is_overridden(self, at: tuple[str, ...]) -> bool:
        return any(at[:length] in self.overridden for length in range(1, len(at) + 1))


def load(path: str | Path, *, environ: Mapping[str, str], overrides: Sequence[str] = ()) -> Manifest:
    """Read a manifest.

    Args:
        path: Of the TOML file; problems name it as it is given here.
        environ: The environment for `${NAME}` and `{ env = "NAME" }`.
        overrides: `a.b=value` each, as after `--set`: the value is TOML, or else a string as it stands. Missing
            tables are created.

    Raises:
        ManifestError: listing every problem, if there is any.
    """
    file = str(path)
    tables, lines = read_toml(Path(path), file=file)
    return _build(tables, lines, file=file, directory=Path(path).parent, environ=environ, overrides=overrides)


def from_mapping(
    tables: Mapping[str, object],
    *,
    name: str = "<mapping>",
    directory: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Manifest:
    """Make a manifest from values in memory, for tests and for programs that embed the kernel; it has no lines.

    Args:
        tables: As the TOML file would hold them; `Secret`s may stand in them directly. Not changed.
        name: What problems call it.
        directory: Where relative paths start; the current one by default.
        environ: As for `load`; empty by default.

    Raises:
        ManifestError: as `load`.
    """
    _check_keys(tables, (), name)
    return _build(tables, Lines(), file=name, directory=directory or Path(), environ=environ or {}, overrides=())


def _build(
    tables: Mapping[str, object],
    lines: Lines,
    *,
    file: str,
    directory: Path,
    environ: Mapping[str, str],
    overrides: Sequence[str],
) -> Manifest:
    problems: list[Problem] = []
    warnings: list[Problem] = []
    edited, overridden = _override(tables, overrides, problems)
    draft = Manifest(path=file, directory=directory, tables=edited, lines=lines, overridden=frozenset(overridden))
    substitution = Substitution(
        environ=environ,
        directory=directory,
        report=lambda at, text: problems.append(draft.problem(at, text)),
        warn=lambda at, text: warnings.append(draft.problem(at, text)),
    )
    substituted = {
        key: substitution.value(value, (key,), secrets=key in COMPONENT_TABLES) for key, value in edited.items()
    }
    problems += _misshapen(draft)
    if problems:
        raise ManifestError(problems)
    return attrs.evolve(draft, tables=substituted, sources=substitution.sources, warnings=tuple(warnings))


# --- shape ------------------------------------------------------------------------------------------------------


def _misshapen(manifest: Manifest) -> list[Problem]:
    if not manifest.tables:
        return [manifest.problem((), f"is empty; allowed: {listed(TABLES)}")]
    problems: list[Problem] = []
    for key, value in manifest.tables.items():
        if key not in TABLES:
            problems.append(manifest.problem((key,), unknown("table" if is_table(value) else "key", key, TABLES)))
        elif not is_table(value):
            problems.append(manifest.problem((key,), f"must be a table, got {shown(value)}"))
        elif key in COMPONENT_TABLES:
            problems += _misshapen_components(manifest, key, value)
    return problems


def _misshapen_components(manifest: Manifest, kind: str, components: Mapping[str, object]) -> list[Problem]:
    problems: list[Problem] = []
    for name, value in components.items():
        if not _NAME.fullmatch(name):
            problems.append(manifest.problem((kind, name), _NAME_RULE))
        if not is_table(value):
            text = f"must be a table, as in {toml_path((kind, name))}, got {shown(value)}"
            problems.append(manifest.problem((kind, name), text))
    return problems


def _check_keys(value: object, at: tuple[str, ...], name: str) -> None:
    """Refuse what TOML could not have said, before anything relies on it."""
    if len(at) > MAX_DEPTH:
        raise ManifestError([Problem(name, 0, toml_path(at[:1]), f"is nested more than {MAX_DEPTH} deep")])
    if is_table(value):
        for key, item in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str):
                raise ManifestError([Problem(name, 0, toml_path(at), f"keys must be strings, got {shown(key)}")])
            _check_keys(item, (*at, key), name)
    elif is_array(value):
        for index, item in enumerate(value):
            _check_keys(item, (*at, str(index)), name)


def _find(value: object, at: tuple[str, ...]) -> object:
    for key in at:
        value = _child(value, key)
    return value


def _secrets(value: object) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif is_table(value) or is_array(value):
        for item in value.values() if is_table(value) else value:
            yield from _secrets(item)


def _child(value: object, key: str) -> object:
    if is_table(value):
        return value.get(key, _ABSENT)
    if is_array(value) and key.isdecimal() and int(key) < len(value):
        return value[int(key)]
    return _ABSENT


def _shown_path(tables: Mapping[str, object], at: tuple[str, ...]) -> str:
    """Return `[table].key`: the longest part of the path that is tables, then the rest."""
    header: list[str] = []
    rest: list[str | int] = []
    value: object = tables
    for key in at:
        outer, value = value, _child(value, key)
        if is_table(value) and not rest:
            header.append(key)
        else:
            rest.append(int(key) if is_array(outer) and key.isdecimal() else key)
    return toml_path(header, rest)


# --- overrides --------------------------------------------------------------------------------------------------


def _override(
    tables: Mapping[str, object], overrides: Sequence[str], problems: list[Problem]
) -> tuple[dict[str, object], set[tuple[str, ...]]]:
    edited = dict(tables)
    written: set[tuple[str, ...]] = set()
    for override in overrides:
        key, sign, text = override.partition("=")
        at = parse_key(key.strip())
        if not sign or at is None:
            problems.append(Problem(_OVERRIDE, 0, "", f"{shown(key)} must be written as table.key=value"))
        elif (obstacle := _write(edited, at, _override_value(text), written)) is not None:
            text = f"cannot be set: {toml_path(obstacle)} is not a table"
            problems.append(Problem(_OVERRIDE, 0, _shown_path(edited, at), text))
    return edited, written


def _override_value(text: str) -> object:
    try:
        parsed, _ = parse_text(f"value = {text}", file=_OVERRIDE)
    except ManifestError:
        return text
    # More than one key: the text held a line break, and was not one value.
    return parsed["value"] if len(parsed) == 1 else text


def _write(
    tables: dict[str, object], at: tuple[str, ...], value: object, written: set[tuple[str, ...]]
) -> tuple[str, ...] | None:
    """Set a value, copying the tables on the way; return the path of what is in the way, if anything is."""
    for depth, key in enumerate(at[:-1], start=1):
        if key not in tables:
            written.add(at[:depth])
        inner = tables.get(key, {})
        if not is_table(inner):
            return at[:depth]
        tables[key] = copy = dict(inner)
        tables = copy
    tables[at[-1]] = value
    written.add(at)
    return None
