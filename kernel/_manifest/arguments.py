"""What follows `--` on the command line: `--key value` for `[kernel.arguments]`, and for workers that take the rest.

An argument is declared by its default, which is its type, or by a table with `type`, `default` and `help`. A worker
with `options = "arguments"` is given all others as keys of its `config`, whose type says what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, final

import attrs

from .._convert.strict import FromOutside, is_array, is_table
from .._core.fields import ByFields
from .._core.words import did_you_mean, listed, shown, toml_path, unknown
from ..errors import Problem
from .overrides import value_of
from .paths import find, write
from .substitute import option_name

Report = Callable[[tuple[str, ...], str], None]

AT: Final = ("kernel", "arguments")
_TAKES: Final = "arguments"
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "boolean": (bool,),
    "integer": (int,),
    "number": (float, int),
    "string": (str,),
    "array": (list, tuple),
}
_KEYS: Final = ("type", "default", "help")


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Argument(ByFields):
    """One argument of `[kernel.arguments]`."""

    name: str
    type: str
    """A key of `_TYPES`."""
    default: object = attrs.field(default=None, repr=False)
    """None if it has to be given."""
    help: str = ""


def declared(table: object, report: Report) -> Iterator[Argument]:
    """Yield the arguments that `[kernel.arguments]` declares; what is wrong with one is reported.

    Args:
        table: What the manifest says there.
        report: Takes problems, with paths below it.
    """
    if not is_table(table):
        report((), f"must be a table, got {shown(table)}")
        return
    for name, given in table.items():
        said = given if is_table(given) else {"default": given}
        kind = said.get("type", _type_of(said.get("default")))
        if not name.isidentifier() or name != name.lower():
            report((name,), "a name must be of a-z, 0-9 and _, and start with a letter")
        elif faulty := [key for key in said if key not in _KEYS]:
            report((name, faulty[0]), unknown("key", faulty[0], _KEYS))
        elif not isinstance(kind, str) or kind not in _TYPES:
            report((name, "type"), f"must be one of {listed(_TYPES)}, got {shown(kind)}")
        elif "default" in said and not _is(said["default"], kind):
            report((name, "default"), f"must be of the type {kind}, got {shown(said['default'])}")
        elif not isinstance(about := said.get("help", ""), str):
            report((name, "help"), f"must be text, got {shown(about)}")
        else:
            yield Argument(name=name, type=kind, default=said.get("default"), help=about)


def _type_of(value: object) -> object:
    return next((name for name, kinds in _TYPES.items() if type(value) in kinds), None)


def _is(value: object, kind: str) -> bool:
    return type(value) in _TYPES[kind]


def takers(tables: Mapping[str, object]) -> list[str]:
    """Return the names of the workers that take arguments."""
    workers = tables.get("workers")
    found = workers.items() if is_table(workers) else ()
    return [name for name, table in found if is_table(table) and table.get("options") == _TAKES]


def take(
    tables: Mapping[str, object], given: Sequence[str], problems: list[Problem], report: Report
) -> tuple[dict[str, object], dict[tuple[str, ...], str]]:
    """Return tables with arguments written into them, and by what option each of the paths was written.

    `[kernel.arguments]` holds values afterwards, and no worker says `options = "arguments"`.

    Args:
        tables: Of the manifest; not changed.
        given: What follows `--`.
        problems: Takes what is wrong with the options.
        report: Takes what is wrong with the manifest.
    """
    edited, origins = dict(tables), dict[tuple[str, ...], str]()
    known = {one.name: one for one in declared(find({"t": tables}, ("t", *AT)) if _has(tables) else {}, _below(report))}
    names = takers(tables)
    for name in names:
        _drop_options(edited, name)
    values: dict[str, object] = {name: one.default for name, one in known.items()}
    for option, text in _pairs(given, problems):
        name = option.removeprefix("--").replace("-", "_")
        if name in known:
            values[name] = _value(known[name], option, text, problems)
            origins[*AT, name] = option
        elif names:
            for at in (("workers", worker, "config", name) for worker in names):
                if write(edited, at, _text(text), set()) is None:
                    origins[at] = option
        else:
            options = [option_name(one) for one in known]
            near = did_you_mean(option, options) or f"; there are: {listed(options)}"
            problems.append(Problem(option, 0, "", f"there is no such option{near}"))
    for name in [name for name, value in values.items() if value is None and (*AT, name) not in origins]:
        report((*AT, name), f"has no default, and has to be given after --, as {option_name(name)} VALUE")
    if known:
        write(edited, AT, values, set())
    return edited, origins


def _has(tables: Mapping[str, object]) -> bool:
    kernel = tables.get("kernel")
    return is_table(kernel) and "arguments" in kernel


def _below(report: Report) -> Report:
    return lambda at, text: report((*AT, *at), text)


def _drop_options(tables: dict[str, object], worker: str) -> None:
    workers = tables["workers"]
    if is_table(workers) and is_table(table := workers[worker]):
        rest = {key: value for key, value in table.items() if key != "options"}
        tables["workers"] = {**workers, worker: rest}


def _pairs(given: Sequence[str], problems: list[Problem]) -> Iterator[tuple[str, str | None]]:
    """Yield options with their texts; None where an option stands alone."""
    rest, seen = list(given), set[str]()
    while rest:
        option, sign, text = rest.pop(0).partition("=")
        if not option.startswith("--") or option == "--":
            problems.append(Problem(option, 0, "", "an option must begin with --, as in --key value"))
            continue
        if option in seen:
            problems.append(Problem(option, 0, "", "is given twice"))
        seen.add(option)
        takes_next = not sign and rest and not rest[0].startswith("--")
        yield option, rest.pop(0) if takes_next else text if sign else None


def _text(text: str | None) -> object:
    """Return what an option means whose type is not known yet."""
    if text is None:
        return True
    return value_of(text) if text.startswith(("[", "{")) else FromOutside(text)


def _value(argument: Argument, option: str, text: str | None, problems: list[Problem]) -> object:
    """Return the value of an argument that is declared; its default, with a problem, if the text is none."""
    value = _text(text)
    readings = reversed(list(value.readings())) if isinstance(value, FromOutside) else [value]
    for reading in readings:
        if _is(reading, argument.type):
            return list(reading) if is_array(reading) else reading
    got = "nothing" if text is None else shown(text)
    problems.append(Problem(option, 0, toml_path(AT, (argument.name,)), f"must be {_a(argument.type)}, got {got}"))
    return argument.default


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "ai" else f"a {kind}"
