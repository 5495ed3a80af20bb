"""The manifest: TOML text -> `Manifest`, a tree of plain values that knows where each of them was written.

First arrow of a service's way: `kernel.toml -> load -> Manifest -> resolve`. Knows which tables there are, but
not what components take; no plugin is imported. Long, since it is one walk: from layers to one manifest, and those inside.

Besides TOML itself it understands `${NAME}` and `${NAME:-default}` in strings (`$${` is a literal `${`), and below a
component a table that has only the key `env` or only the key `file` stands for a `Secret`. Those two shapes are
reserved: a plugin cannot be given a table whose only key is `env` or `file`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, cast, final

import attrs

from .._convert.folder import folder_of
from .._convert.strict import is_array, is_table
from .._core.secret import Secret
from .._core.words import did_you_mean, listed, shown, toml_path, unknown
from ..errors import ManifestError, Problem
from .arguments import AT, Argument, declared, take, takers
from .inside import Said, Way, is_disabled, lines_of
from .layers import Layer, lay_over, paths_in, read_layers
from .overrides import OVERRIDE, override
from .paths import ABSENT, find, removed, shown_path, write
from .setup import SetupFailedError, tables_of
from .substitute import Substitution
from .toml import MAX_DEPTH, Lines

COMPONENT_TABLES: Final = ("drivers", "protocols", "dispatchers", "workers", "groups", "stages", "services")
"""Tables of tables: `[drivers.NAME]`."""
TABLES: Final = ("kernel", "logging", *COMPONENT_TABLES)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
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
    sources: Mapping[tuple[str, ...], tuple[str, ...]] = attrs.field(factory=dict[tuple[str, ...], tuple[str, ...]])
    """What came from outside: `$NAME`, or the file of a secret."""
    warnings: tuple[Problem, ...] = ()
    """What was read all the same, and should be looked at."""
    arguments: tuple[Argument, ...] = ()
    """What `[kernel.arguments]` declares."""
    takers: tuple[str, ...] = ()
    """Names of the workers that are given all other options of the command line."""
    services: Mapping[str, Manifest] = attrs.field(factory=dict[str, "Manifest"], repr=False)
    """Those that it runs inside, by name."""
    replaced: frozenset[str] = frozenset()
    """Names of its drivers for which the manifest that it is inside of has others: they are not in `tables`."""
    faults: tuple[Problem, ...] = ()
    """What is wrong with a draft of a manifest; of a whole one there is none."""
    unknown: frozenset[tuple[str, ...]] = frozenset()
    """Paths in a draft of what could not be had, and is not in `tables`."""

    def secrets(self) -> Iterator[Secret]:
        """Return every secret, wherever it stands."""
        return _secrets(self.tables)

    def line(self, at: tuple[str, ...]) -> int:
        """Return the 1-based line of a key, or of the nearest table around it; 0 if no line can be named."""
        return self.lines.line(at)

    def file(self, at: tuple[str, ...]) -> str:
        """Return what `line` counts in: the manifest, or another file that it is made of; or what is no file."""
        return self.lines.file(at) or self.path

    def origin(self, at: tuple[str, ...]) -> str:
        """Return where a value comes from: `kernel.toml:12`, `kernel.toml:12 ($NAME)`, `--set` or `default`."""
        if find(self.tables, at) is ABSENT:
            return "default"
        file, line = self.file(at), self.line(at)
        place = f"{file}:{line}" if line else file
        return f"{place} ({listed(self.sources[at])})" if at in self.sources else place

    def is_unknown(self, at: tuple[str, ...]) -> bool:
        """Return whether a path leads to, or past, what could not be had: nothing can be said of it."""
        return any(at[: len(one)] == one[: len(at)] for one in self.unknown)

    def is_from_outside(self, at: tuple[str, ...]) -> bool:
        """Return whether what stands at a path, or a part of it, comes from a variable or a file: it may be a secret."""
        return any(at[: len(one)] == one[: len(at)] for one in self.sources)

    def problem(self, at: tuple[str, ...], text: str) -> Problem:
        """Return a problem with what is, or should be, at a path."""
        return Problem(self.file(at), self.line(at), shown_path(self.tables, at), text)


def load(
    path: str | Path,
    *,
    environ: Mapping[str, str],
    overrides: Sequence[str] = (),
    overlays: Sequence[str | Path] = (),
    arguments: Sequence[str] = (),
) -> Manifest:
    """Read a manifest, with what it extends and what is laid over it.

    Calls the function of `[kernel] setup`, if there is one.

    Args:
        path: Of the TOML file; problems name it as it is given here.
        environ: The environment for `${NAME}` and `{ env = "NAME" }`.
        overrides: `a.b=value` each, as after `--set`: the value is TOML, or else a string as it stands. Missing
            tables are created.
        overlays: Paths of files to lay over it, in this order, as after `--overlay`.
        arguments: What follows `--` on the command line.

    Raises:
        ManifestError: listing every problem, if there is any.
    """
    file = str(path)
    layer = read_layers(Path(path), file=file, overlays=overlays)
    whole = _build(
        layer, file=file, directory=folder_of(path), environ=environ, overrides=overrides, arguments=arguments
    )
    return with_services(whole, environ=environ)


def outline(path: str, *, overrides: Sequence[str] = (), overlays: Sequence[str | Path] = ()) -> Manifest:
    """Read what a manifest says of its options, with nothing from outside in it, so that nothing has to be there.

    Raises:
        ManifestError: if it cannot be read.
    """
    layer = read_layers(Path(path), file=path, overlays=overlays)
    problems: list[Problem] = []
    tables, _ = override(layer.tables, overrides, problems)
    whole = Manifest(path=path, directory=folder_of(path), tables=tables, lines=layer.lines)
    problems += _misshapen(whole)
    arguments = declared(_argument_table(tables), lambda at, text: problems.append(whole.problem((*AT, *at), text)))
    whole = attrs.evolve(whole, arguments=tuple(arguments), takers=tuple(takers(tables)))
    if problems:
        raise ManifestError(problems)
    return whole


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
    if find(tables, ("kernel", "extends")) is not ABSENT:
        raise ManifestError([Problem(name, 0, "[kernel].extends", "only a file has a folder to look for another one")])
    whole = _build(Layer(tables, Lines()), file=name, directory=directory or Path(), environ=environ or {})
    return with_services(whole, environ=environ or {})


def with_services(manifest: Manifest, *, environ: Mapping[str, str], way: Way | None = None) -> Manifest:
    """Return a manifest with those read that it runs inside.

    Args:
        manifest: Of which only the tables count.
        environ: As for `load`.
        way: How it was reached; None if it is inside of none.

    Raises:
        ManifestError: listing every problem of each of them, if there is any.
    """
    problems = list(manifest.faults)
    unknown = set(manifest.unknown)
    services: dict[str, Manifest] = {}
    way = way or Way.of(manifest.directory / Path(manifest.path).name, manifest.path)
    named = manifest.tables.get("services", {})
    for name, table in named.items() if is_table(named) else ():
        path = table.get("manifest") if is_table(table) and not is_disabled(table.get("enabled")) else None
        if is_table(table) and isinstance(path, str) and path:  # what is wrong with the table is told with the others'
            try:
                services[name] = _read_inside(manifest, name, table, path, way, environ)
            except ManifestError as error:
                problems += error.problems
                unknown.add(("services", name))
    if problems:
        raise ManifestError(problems, draft=attrs.evolve(manifest, services=services, unknown=frozenset(unknown)))
    return attrs.evolve(manifest, services=services) if services else manifest


def _read_inside(
    outer: Manifest, name: str, table: Mapping[str, object], given: str, way: Way, environ: Mapping[str, str]
) -> Manifest:
    at = ("services", name, "manifest")
    path, file = outer.directory / given, str(Path(outer.path).parent / given)
    said = Said.of(table, name, outer.lines, outer.path)
    problems = [outer.problem((*at[:2], "set", *key), "stands in a file, and cannot be set") for key in said.refused()]
    if fault := way.fault(path, file):
        problems.append(outer.problem(at, fault))
    if problems:
        raise ManifestError(problems)
    try:
        layer, replaced = said.laid_over(read_layers(path, file=file, overlays=()))
        inner = _build(layer, file=file, directory=path.parent, environ=environ, said=said)
    except ManifestError as error:
        # Of a file that is not there, or is empty, only who names it has a line.
        raise ManifestError([
            one if one.line or one.file != file else outer.problem(at, f"{file}: {one.text}") for one in error.problems
        ]) from error
    return attrs.evolve(with_services(inner, environ=environ, way=way.into(path, file)), replaced=replaced)


def _build(
    layer: Layer,
    *,
    file: str,
    directory: Path,
    environ: Mapping[str, str],
    overrides: Sequence[str] = (),
    arguments: Sequence[str] = (),
    said: Said | None = None,
) -> Manifest:
    laid_over = frozenset[tuple[str, ...]]() if said is None else said.values()
    problems: list[Problem] = []
    warnings: list[Problem] = []
    tables, overridden = override(layer.tables, overrides, problems)
    lines = layer.lines.written(overridden, OVERRIDE) if overridden else layer.lines
    whole = Manifest(path=file, directory=directory, tables=tables, lines=lines)
    edited, given = take(tables, arguments, problems, lambda at, text: problems.append(whole.problem(at, text)))
    for at, option in given.items():
        lines = lines.written([at], option)
    draft = attrs.evolve(whole, tables=edited, lines=lines)
    missing: dict[tuple[str, ...], str] = {}
    substitution = Substitution(
        environ=environ,
        directory=directory,
        report=missing.__setitem__,
        warn=lambda at, text: warnings.append(draft.problem(at, text)),
        done=laid_over,
    )
    substituted = _substituted(edited, substitution)
    faults = [draft.problem(at, text) for at, text in missing.items()]
    if problems := problems + _misshapen(draft):
        raise ManifestError(problems + faults)
    manifest = attrs.evolve(
        draft,
        tables=substituted,
        faults=tuple(faults),
        sources=substitution.sources,
        warnings=tuple(warnings),
        arguments=tuple(declared(_argument_table(whole.tables), lambda _at, _text: None)),
        takers=tuple(takers(whole.tables)),
    )
    return _without(manifest, missing) if faults else _set_up(manifest, (*overridden, *given, *laid_over))


def _without(manifest: Manifest, missing: Collection[tuple[str, ...]]) -> Manifest:
    """Return a draft without the values that could not be had.

    Raises:
        ManifestError: if it has a setup function, which may not be called with a part of them; nor can the rest be told
            without what it returns.
    """
    if find(manifest.tables, ("kernel", "setup")) is not ABSENT:
        raise ManifestError(manifest.faults)
    unknown = frozenset(at[:3] if at[0] in COMPONENT_TABLES else at[:2] for at in missing)
    return attrs.evolve(manifest, tables=removed(manifest.tables, unknown), unknown=unknown)


def _substituted(tables: Mapping[str, object], substitution: Substitution) -> dict[str, object]:
    # `[kernel]` goes first: its arguments stand in the strings of all other tables.
    first = {key: tables[key] for key in ("kernel",) if key in tables}
    kernel = {key: substitution.value(value, (key,), secrets=False) for key, value in first.items()}
    substitution.arguments = _argument_table(kernel)
    if not substitution.arguments and _names_argument(tables):
        _report_misspelt(kernel.get("kernel"), substitution)
    rest = {
        key: substitution.value(value, (key,), secrets=key in COMPONENT_TABLES)
        for key, value in tables.items()
        if key not in kernel
    }
    return {key: kernel[key] if key in kernel else rest[key] for key in tables}


def _names_argument(value: object) -> bool:
    """Return whether any string stands for an argument."""
    if is_table(value) or is_array(value):
        return any(map(_names_argument, value.values() if is_table(value) else value))
    return isinstance(value, str) and "${arguments." in value


def _argument_table(tables: Mapping[str, object]) -> Mapping[str, object]:
    found = find(tables, ("kernel", "arguments"))
    return found if is_table(found) else {}


def _report_misspelt(kernel: object, substitution: Substitution) -> None:
    """Report a table that is nearly called `arguments`: what stands for its arguments is told before other tables are."""
    for key in kernel if is_table(kernel) else ():
        if did_you_mean(key, ["arguments"]):
            substitution.report(("kernel", key), unknown("key", key, ["arguments"]))


def _set_up(manifest: Manifest, written: Collection[tuple[str, ...]]) -> Manifest:
    """Return a manifest with the tables of its `setup` function laid over it.

    Args:
        manifest: Complete otherwise.
        written: Paths of what the command line or an outer manifest wrote, which stays above.
    """
    path = find(manifest.tables, ("kernel", "setup"))
    if path is ABSENT or not isinstance(path, str):
        return manifest
    name = f"setup {path}"
    try:
        made = tables_of(path, manifest.tables, directory=manifest.directory)
    except SetupFailedError as error:
        raise ManifestError([manifest.problem(("kernel", "setup"), str(error))]) from error
    _check_keys(made, (), name)
    above: dict[str, object] = {}
    lines = Lines()
    for at in written:
        write(above, at, find(manifest.tables, at), set())
        own = lines_of(manifest.lines, manifest.path, paths_in(find(above, at), at))
        lines = Lines({**lines.known, **own.known}, {**lines.files, **own.files})
    upper = Layer(made, Lines().written(paths_in(made), name))
    top = Layer(above, lines)
    result = lay_over(lay_over(Layer(manifest.tables, manifest.lines), upper), top)
    whole = attrs.evolve(manifest, tables=result.tables, lines=result.lines)
    if problems := _misshapen(whole):
        raise ManifestError(problems)
    sources = {at: source for at, source in manifest.sources.items() if whole.file(at) != name}
    return attrs.evolve(whole, sources=sources)


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
            problems.append(manifest.problem((kind, name), f"{_NAME_RULE}{_proper(name)}"))
        if not is_table(value):
            text = f"must be a table, as in {toml_path((kind, name))}, got {shown(value)}"
            problems.append(manifest.problem((kind, name), text))
    return problems


def _proper(name: str) -> str:
    """Return `; write "x"` with the name that was probably meant, or nothing."""
    meant = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")
    return f'; write "{meant}"' if _NAME.fullmatch(meant) else ""


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


def _secrets(value: object) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif is_table(value) or is_array(value):
        for item in value.values() if is_table(value) else value:
            yield from _secrets(item)
