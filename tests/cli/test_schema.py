"""Facts about `kernel schema`: it takes what `kernel check` takes, and refuses what an editor can know to be wrong."""

from __future__ import annotations

import copy
import enum
import functools
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import jsonschema
import pytest

from kernel import Secret
from kernel._cli.schema import manifest_schema
from kernel._convert.imports import import_object
from kernel._convert.schema import table_schema
from kernel._manifest.registry import Plugin, Registry, discover

ROOT = Path(__file__).parents[2]
OWN = ROOT / "tests" / "plan" / "manifests"
EXAMPLES = [ROOT / "kernel.toml", *sorted(ROOT.glob("examples/**/kernel.toml"))]
GOOD = sorted((OWN / "good").glob("*.toml"))
FREE = {"config", "options", "drivers"}
"""Tables of workers whose keys are known by looking at the code only."""

every_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Inner:
    size: int


@attrs.frozen(kw_only=True)
class Everything:
    """All that a field can be."""

    name: str
    """What it is
    called."""
    port: int = attrs.field(default=1, validator=[attrs.validators.ge(1), attrs.validators.lt(10)])
    share: float | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.gt(0)))
    mode: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    word: str = attrs.field(default="x", validator=attrs.validators.matches_re("[a-z]+"))
    road: str = attrs.field(default="/", validator=attrs.validators.matches_re(r"(/[^/\s]*)+"))
    few: str = attrs.field(default="ab", validator=[attrs.validators.min_len(2), attrs.validators.max_len(3)])
    one: int = attrs.field(default=1, validator=attrs.validators.in_([1, 2]))
    inner: Inner | None = None
    pair: tuple[int, str] = (1, "a")
    many: tuple[bool, ...] = ()
    table: Mapping[str, int] = attrs.field(factory=dict[str, int])
    both: int | str = 1
    path: Path = Path("x")
    anything: object = None
    password: Secret | None = None


def accepts(value: Mapping[str, object]) -> bool:
    return jsonschema.Draft202012Validator(table_schema(Everything)).is_valid({"name": "n", **value})


def fake_registry() -> Registry:
    found = import_object("fake_plugins:REGISTRY", directory=OWN)
    assert isinstance(found, Registry)
    return found


def validator(registry: Registry) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(manifest_schema(registry)[0])


@functools.cache
def validator_of_what_is_installed() -> jsonschema.Draft202012Validator:
    """One for all tests: to look at every plugin takes more than a second."""
    return validator(discover())


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"port": 9},
        {"road": "/sales/s"},
        {"share": 0.5},
        {"share": 1},
        {"mode": "b"},
        {"mode": "${MODE}"},
        {"colour": "blue"},
        {"inner": {"size": 1}},
        {"pair": [1, "b"]},
        {"many": [True, False]},
        {"table": {"a": 1}},
        {"both": "a"},
        {"anything": [1]},
        {"password": {"env": "X"}},
        {"password": {"file": "x"}},
    ],
    ids=str,
)
def test_the_schema_of_a_class_takes(value: Mapping[str, object]) -> None:
    assert accepts(value)


@pytest.mark.parametrize(
    "value",
    [
        {"name": 1},
        {"port": 0},
        {"port": 10},
        {"road": "/a b"},
        {"port": True},
        {"share": 0},
        {"mode": "c"},
        {"colour": "green"},
        {"word": "A"},
        {"few": "a"},
        {"few": "abcd"},
        {"one": 3},
        {"inner": {}},
        {"inner": {"size": 1, "sise": 1}},
        {"pair": [1]},
        {"pair": ["a", 1]},
        {"many": [1]},
        {"table": {"a": "b"}},
        {"both": True},
        {"password": "hunter2"},
        {"password": {"env": "X", "file": "x"}},
        {"stranger": 1},
    ],
    ids=str,
)
def test_the_schema_of_a_class_refuses(value: Mapping[str, object]) -> None:
    assert not accepts(value)


def test_the_schema_has_defaults_and_descriptions() -> None:
    schema = table_schema(Everything)

    assert schema["required"] == ["name"]
    assert "default" not in schema["properties"]["name"]
    assert schema["properties"]["name"]["description"] == "What it is called."
    assert schema["properties"]["port"] == {"type": "integer", "minimum": 1, "exclusiveMaximum": 10, "default": 1}
    assert schema["properties"]["colour"]["default"] == "red"


def test_the_schema_is_one() -> None:
    schema, broken = manifest_schema(discover())

    jsonschema.Draft202012Validator.check_schema(schema)
    assert list(broken) == []


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_the_schema_takes_good_manifests(path: Path) -> None:
    manifest = tomllib.loads(path.read_text(encoding="utf-8"))

    assert [error.message for error in validator(fake_registry()).iter_errors(manifest)] == []


@every_example
def test_the_schema_takes_the_examples(path: Path) -> None:
    manifest = tomllib.loads(path.read_text(encoding="utf-8"))

    assert [error.message for error in validator_of_what_is_installed().iter_errors(manifest)] == []


@every_example
def test_the_schema_refuses_every_misspelt_key_of_the_examples(path: Path) -> None:
    checks = validator_of_what_is_installed()
    manifest = tomllib.loads(path.read_text(encoding="utf-8"))
    unnoticed = [at for at in keys(manifest) if checks.is_valid(misspelt(manifest, at))]

    assert unnoticed == []


@pytest.mark.parametrize(("path", "is_taken"), [("/sales", True), ("${ROOT}", True), ("", True), ("/sales/", False)])
def test_the_schema_knows_what_a_path_of_a_dispatcher_may_be(path: str, is_taken: bool) -> None:
    manifest = {"kernel": {"name": "shop"}, "dispatchers": {"web": {"plugin": "web", "root_path": path}}}

    assert validator_of_what_is_installed().is_valid(manifest) is is_taken


def keys(manifest: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Every key that a schema can know: not names of components, nor what only their code knows."""
    yield from [(kind,) for kind in manifest]
    for section in ("kernel", "logging"):
        yield from [(section, key) for key in manifest.get(section, {})]
    for kind in manifest.keys() - {"kernel", "logging"}:
        for name, table in manifest[kind].items():
            yield from [(kind, name, key) for key in table]
            yield from [(kind, name, "retry", key) for key in table.get("retry", {})]
            yield from [(kind, name, "restart", key) for key in table.get("restart", {})]


def misspelt(manifest: Mapping[str, Any], at: tuple[str, ...]) -> dict[str, Any]:
    changed = copy.deepcopy(dict(manifest))
    table = changed
    for key in at[:-1]:
        table = table[key]
    table[f"{at[-1]}x"] = table.pop(at[-1])
    return changed


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"kernel": {"grace_period": 0}},
        {"kernel": {"grace_period": "25"}},
        {"drivers": {"a": {}}},
        {"drivers": {"a": {"plugin": "nothing"}}},
        {"drivers": {"A": {"plugin": "queue"}}},
        {"drivers": {"store": {}}},
        {"drivers": {"a": {"plugin": "store", "url": "x", "pool": 0}}},
        {"drivers": {"queue": {"restart": {"policy": "sometimes"}}}},
        {"workers": {"a": {}}},
        {"workers": {"a": {"use": "a:b", "instances": 0}}},
        {"workers": {"a": {"use": "a:b", "retry": {"jitter": 2}}}},
        {"groups": {"a": {"strategy": "one_for_all"}}},
        {"dispatchers": {"a": {"plugin": "tick", "concurrency": 10_001}}},
    ],
    ids=str,
)
def test_the_schema_refuses_manifests(manifest: Mapping[str, object]) -> None:
    assert not validator(fake_registry()).is_valid(manifest)


@pytest.mark.parametrize(
    "manifest",
    [
        {"drivers": {"queue": {}}},
        {"drivers": {"a": {"plugin": "fake_plugins:queue"}}},
        {"drivers": {"store": {"plugin": "queue"}}},
        {"drivers": {"a": {"use": "here:Driver", "anything": 1}}},
        {"drivers": {"a": {"enabled": False, "plugin": "nothing", "key": 1}}},
        {"workers": {"a": {"enabled": False}}},
    ],
    ids=str,
)
def test_the_schema_takes_manifests(manifest: Mapping[str, object]) -> None:
    assert validator(fake_registry()).is_valid(manifest)


def test_a_plugin_that_cannot_be_loaded_is_named_and_left_open() -> None:
    lost = Plugin(kind="driver", name="lost", distribution="kernel-lost", version="1", value="no_such_module:Lost")
    schema, broken = manifest_schema(Registry((*fake_registry().plugins, lost)))

    assert [error.name for error in broken if "no_such_module" in str(error)] == ["lost"]
    assert jsonschema.Draft202012Validator(schema).is_valid({"drivers": {"a": {"plugin": "lost", "key": 1}}})
