"""What cannot be had from outside hides nothing else that is wrong, and nothing is said that only follows from it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kernel._manifest.manifest import Manifest, from_mapping, load
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve
from kernel._plan.read import read_plan
from kernel.errors import InvalidError, Problem

from .test_bad_manifests import BAD, ENVIRON, GOOD, MANIFESTS, registry

Tables = dict[str, object]
SAMPLES = 12
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*/kernel.toml"))
EMPTY = {"empty", "only_a_comment"}
"""Those that a table more would make right."""


def problems(read: Callable[[], Manifest], installed: Registry | None = None) -> set[Problem]:
    try:
        read_plan(read, installed or registry())
    except InvalidError as error:
        return set(error.problems)
    return set()


@pytest.mark.parametrize("path", [path for path in BAD if path.stem not in EMPTY], ids=lambda path: path.stem)
def test_what_is_wrong_is_told_beside_what_is_missing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless there is nothing to go on with: a file that is no TOML, or one whose tables have wrong names or kinds."""
    monkeypatch.chdir(path.parent)
    before = problems(partial(load, path.name, environ=ENVIRON))
    unrelated = ['protocols.unrelated={ plugin = "json", nothing = "${NOPE}" }']
    after = problems(partial(load, path.name, environ=ENVIRON, overrides=unrelated))

    missing = {one for one in after if one.text == "needs the environment variable NOPE, which is not set"}
    assert len(missing) == 1 or before == after  # the same, if it cannot be read at all
    assert told(before) <= told(after)


def told(found: set[Problem]) -> set[tuple[str, str]]:
    """What is said of what; allowed and installed names, which end a text, are others where there is a table more."""
    return {(one.path, one.text.split(";")[0].split(": ")[0]) for one in found}


def strings(value: object, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all strings in plain tables."""
    if isinstance(value, str):
        yield at
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings(item, (*at, index))


def without(value: object, at: tuple[str | int, ...]) -> Any:
    """Plain tables in which a variable stands that is not set."""
    if not at:
        return "${NOPE}"
    if isinstance(value, Mapping):
        return {key: without(item, at[1:]) if key == at[0] else item for key, item in value.items()}
    assert isinstance(value, list)
    return [without(item, at[1:]) if index == at[0] else item for index, item in enumerate(value)]


@pytest.mark.parametrize("path", [*GOOD, *EXAMPLES], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_nothing_follows_from_what_is_missing_and_nothing_hides_behind_it(path: Path) -> None:
    """Whatever value it is that cannot be had: a plugin's name, an element of a list, a reference to a component."""
    installed = registry() if path in GOOD else discover()
    good = load(path, environ=ENVIRON)
    every = list(strings(good.tables))
    for at in random.sample(every, min(SAMPLES, len(every))):
        tables = {"workers": {}, **without(good.tables, at)}
        tables["workers"] = {**tables["workers"], "unrelated": {"use": "nowhere"}}
        read = partial(from_mapping, tables, directory=good.directory, name=good.path, environ=ENVIRON)

        found = problems(read, installed)
        missing = {one for one in found if one.text == "needs the environment variable NOPE, which is not set"}
        assert len(missing) == 1, at
        expected = set() if at[0] == "stages" else {"[workers.unrelated].use"}
        assert {one.path for one in found - missing} == expected, at


def test_a_service_inside_that_cannot_be_read_hides_nothing(tmp_path: Path) -> None:
    outer = tmp_path / "outer.toml"
    outer.write_text(
        '[kernel]\nbogus = 1\n[services.inner]\nmanifest = "inner.toml"\n'
        '[services.later]\nmanifest = "later.toml"\ndepends = ["services.inner"]\n'
    )
    (tmp_path / "later.toml").write_text('[workers.w]\nuse = "nowhere:W"\n')
    (tmp_path / "inner.toml").write_text('[workers.w]\nuse = "${NOPE}"\n')

    assert [(Path(one.file).name, one.path) for one in sorted(problems(partial(load, outer, environ={})))] == [
        ("inner.toml", "[workers.w].use"),
        ("later.toml", "[workers.w].use"),
        ("outer.toml", "[kernel].bogus"),
    ]


def test_a_function_that_sets_up_is_not_called_with_a_part_of_the_values(tmp_path: Path) -> None:
    (tmp_path / "setting_up.py").write_text("def tables(given):\n    raise SystemExit('called')\n")
    path = tmp_path / "kernel.toml"
    path.write_text('[kernel]\nname = "${NOPE}"\nbogus = 1\nsetup = "setting_up:tables"\n')

    [only] = problems(partial(load, path, environ={}))
    assert only.path == "[kernel].name"


def test_whoever_reads_in_two_steps_is_told_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "kernel.toml"
    path.write_text('[kernel]\nname = "${NOPE}"\nbogus = 1\n')

    with pytest.raises(InvalidError) as caught:
        resolve(load(path, environ={}), registry())
    assert len(caught.value.problems) == 1
    assert MANIFESTS.is_dir()
