"""Facts about manifests of several files: what they become, and that each problem names the file that it is in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel._manifest.layers import Layer, lay_over
from kernel._manifest.manifest import Manifest, from_mapping, load
from kernel._manifest.registry import Registry
from kernel._manifest.toml import Lines
from kernel._plan.plan import resolve
from kernel.errors import InvalidError, ManifestError

BASE = """\
[kernel]
name = "shop"
plugins = ["memory", "sqlite", "publisher"]
[drivers.queue]
plugin = "memory"
max_length = 10
[workers.loop]
use = "tea:run"
config = { kind = "green", cups = 2 }
[workers.loop.restart]
max_restarts = 3
"""
CODE = """
import attrs, trio
@attrs.frozen
class Config:
    kind: str = "black"
    cups: int = 1
    sugar: bool = False
async def run(config: Config):
    await trio.sleep_forever()
def more(tables):
    return {"workers": {"loop": {"config": {"cups": tables["workers"]["loop"]["config"]["cups"] + 40}}}}
def nothing(tables):
    return None
def wrong(tables):
    return {"drivers": {"queue": {"max_length": "many"}}}
def misshapen(tables):
    return {"drivers": 3}
def broken(tables):
    raise LookupError("no tea")
def number(tables):
    return 42
def keys(tables):
    return {1: {}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "base.toml").write_text(BASE)
    (tmp_path / "tea.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def values(manifest: Manifest) -> dict[str, tuple[str, str]]:
    return {value.path: (value.shown, value.origin) for value in resolve(manifest, registry()).values()}


def registry() -> Registry:
    from kernel import discover  # noqa: PLC0415  reads all that is installed

    return discover()


# --- what several files become ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["overlay", "extends"])
def test_tables_are_merged_lists_replaced_and_every_value_knows_its_place(folder: Path, how: str) -> None:
    text = '[drivers.queue]\nmax_length = 20\n[workers.loop]\nconfig.cups = 3\n[kernel]\nplugins = ["memory", "json"]\n'
    written(folder, prod=text if how == "overlay" else f'{text}extends = "base.toml"\n')

    manifest = (
        load("base.toml", environ={}, overlays=["prod.toml"]) if how == "overlay" else load("prod.toml", environ={})
    )

    found = values(manifest)
    assert found["[drivers.queue].max_length"] == ("20", "prod.toml:2")
    assert found["[drivers.queue].plugin"] == ('"memory"', "base.toml:5")
    assert found["[workers.loop.config].kind"] == ('"green"', "base.toml:9")
    assert found["[workers.loop.config].cups"] == ("3", "prod.toml:4")
    assert found["[workers.loop.config].sugar"] == ("false", "default")
    assert found["[workers.loop.restart].max_restarts"] == ("3", "base.toml:11")
    assert found["[kernel].plugins"] == ('["memory", "json"]', "prod.toml:6")
    assert found["[kernel].name"] == ('"shop"', "base.toml:2")


def test_a_chain_of_files_is_laid_from_the_lowest_up(folder: Path) -> None:
    written(
        folder,
        middle='[kernel]\nextends = "base.toml"\nname = "middle"\n[drivers.queue]\nmax_length = 11\n',
        top='[kernel]\nextends = "middle.toml"\nname = "top"\n',
        over='[kernel]\nname = "over"\n',
    )

    manifest = load("top.toml", environ={}, overlays=["over.toml"], overrides=["workers.loop.config.cups=9"])

    found = values(manifest)
    assert found["[kernel].name"] == ('"over"', "over.toml:2")
    assert found["[drivers.queue].max_length"] == ("11", "middle.toml:5")
    assert found["[workers.loop.config].cups"] == ("9", "--set")


def test_a_file_in_a_folder_below_is_found_from_where_it_is_named(folder: Path) -> None:
    written(folder, parts__a='[kernel]\nextends = "b.toml"', parts__b='[kernel]\nextends = "../base.toml"')
    written(folder, top='[kernel]\nextends = "parts/a.toml"')

    manifest = load("top.toml", environ={})

    assert manifest.origin(("drivers", "queue", "plugin")) == "parts/../base.toml:5"


def test_what_is_off_above_is_gone(folder: Path) -> None:
    written(folder, test="[drivers.queue]\nenabled = false")

    plan = resolve(load("base.toml", environ={}, overlays=["test.toml"]), registry())

    assert list(plan.components) == ["worker/loop"]


def test_a_secret_takes_the_place_of_a_secret(folder: Path) -> None:
    written(
        folder,
        a='[drivers.db]\npassword = { env = "A" }\nother = { env = "A" }',
        b='[drivers.db]\npassword = { file = "key" }\nother = { env = "B" }',
    )
    (folder / "key").write_text("of the file")
    (folder / "key").chmod(0o600)

    manifest = load("a.toml", environ={"A": "a", "B": "of B"}, overlays=["b.toml"])

    table = manifest.tables["drivers"]["db"]  # type: ignore[index]
    assert [table["password"].reveal(), table["other"].reveal()] == ["of the file", "of B"]
    assert manifest.origin(("drivers", "db", "password")) == "b.toml:2 (key)"


# --- what is wrong ------------------------------------------------------------------------------------------------

WRONG: Mapping[str, tuple[str, str, str]] = {
    # name: (the upper file, how it is used, the problem)
    "unknown table": ("[driver.queue]", "over", "over.toml:1: [driver]: unknown table; did you mean"),
    "unknown key": ("[kernel]\nnam = 1", "over", "over.toml:2: [kernel].nam: unknown key"),
    "type": ("[kernel]\nname = 1", "over", "over.toml:2: [kernel].name: must be a string"),
    "range": ("[kernel]\n\ngrace_period = -1", "over", "over.toml:3: [kernel].grace_period: must be"),
    "plugin option": ("[drivers.queue]\nmax_length = 0", "over", "over.toml:2: [drivers.queue].max_length: "),
    "plugin unknown": ('[drivers.queue]\nplugin = "memry"', "over", "over.toml:2: [drivers.queue].plugin: "),
    "option of another": (
        '[drivers.queue]\nplugin = "publisher"',
        "over",
        "base.toml:6: [drivers.queue].max_length: ",
    ),
    "a key that is missing": ('[drivers.db]\nplugin = "sqlite"', "over", "over.toml:1: [drivers.db].path: is missing"),
    "a table is a value": ("drivers = 3", "over", "over.toml:1: drivers: must be a table"),
    "a component is a value": ("[drivers]\nqueue = 3", "over", "over.toml:2: [drivers].queue: must be a table"),
    "a value is a table": ("[kernel.name]\na = 1", "over", "over.toml:1: [kernel.name]: must be a string"),
    "name": ("[drivers.Queue]", "over", "over.toml:1: [drivers.Queue]: a name must be"),
    "worker": ('[workers.loop]\nuse = "tea:rum"', "over", 'over.toml:2: [workers.loop].use: "tea" (from tea.py) has'),
    "config of a worker": ("[workers.loop.config]\nkind = 1", "over", "over.toml:2: [workers.loop.config].kind: must"),
    "element of a list": ('[kernel]\nhooks = [\n  "tea:run",\n  ]', "over", "over.toml:3: [kernel].hooks[0]: "),
    "reference": ('[workers.loop]\ndepends = ["quue"]', "over", "over.toml:2: [workers.loop].depends[0]: there is no"),
    "to what is off": (
        '[workers.loop]\ndepends = ["driver/queue"]\n[drivers.queue]\nenabled = false',
        "over",
        "over.toml:2: [workers.loop].depends[0]: driver/queue is disabled",
    ),
    "cycle": ('[workers.loop]\ndepends = ["loop"]', "over", "base.toml:7: [workers.loop]: can never start"),
    "budget": ("[drivers.queue]\nstop_timeout = 60", "over", "base.toml:1: [kernel].grace_period: a stop can take"),
    "variable": ('[kernel]\nname = "${NOT_SET}"', "over", "over.toml:2: [kernel].name: needs the environment"),
    "secret": (
        '[drivers.queue]\nx = { file = "missing" }',
        "over",
        "over.toml:2: [drivers.queue.x].file: the secret file",
    ),
    "no TOML": ("[kernel]\nname = ", "over", "over.toml:2: Invalid value"),
    "no UTF-8": ("\n# \udcff", "over", "over.toml:2: must be UTF-8"),
    "twice the same key": ("[kernel]\na = 1\na = 2", "over", "over.toml:3: Cannot overwrite a value"),
    "overlay that extends": ('[kernel]\nextends = "base.toml"', "over", "over.toml:2: [kernel].extends: an overlay"),
    "base missing": ('[kernel]\nextends = "bas.toml"', "top", "over.toml:2: [kernel].extends: bas.toml: no such file"),
    "base is itself": ('[kernel]\nextends = "over.toml"', "top", "over.toml:2: [kernel].extends: over.toml is part of"),
    "base outside": ('[kernel]\nextends = "../base.toml"', "top", "over.toml:2: [kernel].extends: ../base.toml is out"),
    "base by an absolute path": (
        '[kernel]\nextends = "/base.toml"',
        "top",
        "over.toml:2: [kernel].extends: /base.toml",
    ),
    "base is a folder": ('[kernel]\nextends = "."', "top", "over.toml:2: [kernel].extends: .: is a directory"),
    "base is a number": ("[kernel]\n\nextends = 3", "top", "over.toml:3: [kernel].extends: must be the path"),
    "base is empty": ('[kernel]\nextends = ""', "top", "over.toml:2: [kernel].extends: must be the path"),
    "base is broken": ('[kernel]\nextends = "broken.toml"', "top", "broken.toml:2: "),
    "loop of three": ('[kernel]\nextends = "loop.toml"', "top", "loop.toml:1: [kernel].extends: over.toml is part of"),
    "through a link": ('[kernel]\nextends = "link.toml"', "top", "over.toml:2: [kernel].extends: link.toml is outside"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_problem_names_the_file_and_line_that_it_is_in(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, how, expected = WRONG[name]
    inner = folder / "inner"
    inner.mkdir()
    for file in ("base.toml", "tea.py"):
        (inner / file).write_bytes((folder / file).read_bytes())
    (inner / "over.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    written(inner, broken="[kernel]\nname = 'a", loop='kernel.extends = "over.toml"')
    (inner / "link.toml").symlink_to(folder / "base.toml")
    top, overlays = ("over.toml", []) if how == "top" else ("base.toml", ["over.toml"])

    monkeypatch.chdir(inner)

    with pytest.raises(InvalidError) as caught:
        resolve(load(top, environ={}, overlays=overlays), registry())

    assert [line for line in str(caught.value).splitlines() if line.startswith(expected)], str(caught.value)


@pytest.mark.parametrize(
    ("overlays", "expected"),
    [
        (["missing.toml"], "missing.toml: no such file"),
        (["../other.toml"], "--overlay: ../other.toml is outside of the manifest's folder"),
        (["base.toml"], "--overlay: base.toml is part of the manifest already"),
        (["a.toml", "a.toml"], "--overlay: a.toml is part of the manifest already"),
        ([f"{number}.toml" for number in range(16)], "--overlay: more than 16 files"),
    ],
    ids=["missing", "outside", "itself", "twice", "too many"],
)
def test_an_overlay_that_cannot_be_is_named(folder: Path, overlays: list[str], expected: str) -> None:
    written(folder, a="", **{str(number): "" for number in range(16)})

    with pytest.raises(ManifestError) as caught:
        load("base.toml", environ={}, overlays=overlays)

    assert str(caught.value).startswith(expected)


def test_every_overlay_that_is_wrong_is_told(folder: Path) -> None:
    written(folder, a="=", b="=")

    with pytest.raises(ManifestError) as caught:
        load("base.toml", environ={}, overlays=["a.toml", "missing.toml", "b.toml"])

    assert [problem.file for problem in caught.value.problems] == ["a.toml", "b.toml", "missing.toml"]


def test_tables_in_memory_extend_nothing() -> None:
    with pytest.raises(ManifestError, match="only a file has a folder"):
        from_mapping({"kernel": {"extends": "base.toml"}})


KEYS = st.sampled_from("abc")
TREES = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
TABLES = st.dictionaries(KEYS, TREES, max_size=3)


def leaves(value: object, at: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    if not isinstance(value, dict):
        return {at: value}
    return {path: leaf for key, inner in value.items() for path, leaf in leaves(inner, (*at, key)).items()} or {at: {}}


@given(lower=TABLES, upper=TABLES)
def test_what_the_upper_layer_says_holds_and_the_rest_is_of_the_lower(
    lower: dict[str, object], upper: dict[str, object]
) -> None:
    before = repr((lower, upper))
    merged = leaves(lay_over(Layer(lower, Lines()), Layer(upper, Lines())).tables)

    assert repr((lower, upper)) == before
    assert {at: leaf for at, leaf in leaves(upper).items() if leaf != {}}.items() <= merged.items()
    assert {**leaves(lower), **leaves(upper), **merged}.keys() >= merged.keys()
    assert all(leaf in {**leaves(lower)}.values() for at, leaf in merged.items() if at not in leaves(upper))


# --- setup --------------------------------------------------------------------------------------------------------


def test_a_setup_function_lays_tables_over_and_is_shown_as_their_origin(folder: Path) -> None:
    written(folder, top='[kernel]\nextends = "base.toml"\nsetup = "tea:more"\n')

    found = values(load("top.toml", environ={}))
    above = values(load("top.toml", environ={}, overrides=["workers.loop.config.cups=5"]))

    assert found["[workers.loop.config].cups"] == ("42", "setup tea:more")
    assert found["[workers.loop.config].kind"] == ('"green"', "base.toml:9")
    assert above["[workers.loop.config].cups"] == ("5", "--set")


def test_a_setup_function_may_want_nothing(folder: Path) -> None:
    written(folder, top='[kernel]\nextends = "base.toml"\nsetup = "tea:nothing"\n')

    assert load("top.toml", environ={}).tables["drivers"] == load("base.toml", environ={}).tables["drivers"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wrong", "setup tea:wrong: [drivers.queue].max_length: must be an integer"),
        ("misshapen", "setup tea:misshapen: drivers: must be a table"),
        ("broken", 'top.toml:3: [kernel].setup: "tea:broken" raised LookupError: no tea'),
        ("number", 'top.toml:3: [kernel].setup: "tea:number" must return tables'),
        ("keys", "setup tea:keys: keys must be strings"),
        ("missing", 'top.toml:3: [kernel].setup: "tea" (from tea.py) has no "missing"'),
        ("run", 'top.toml:3: [kernel].setup: "tea:run" must be a plain function'),
    ],
)
def test_what_is_wrong_with_a_setup_function_is_told(folder: Path, name: str, expected: str) -> None:
    written(folder, top=f'[kernel]\nextends = "base.toml"\nsetup = "tea:{name}"\n')

    with pytest.raises(InvalidError) as caught:
        resolve(load("top.toml", environ={}), registry())

    assert str(caught.value).startswith(expected)


def test_setup_stands_in_a_file(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"--set: \[kernel\].setup: stands in a file"):
        load("base.toml", environ={}, overrides=["kernel.setup=tea:more"])
