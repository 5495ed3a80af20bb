"""Facts about what follows -- on the command line: where it goes, as what, and what is said of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from kernel._cli.cli import execute
from kernel._manifest.manifest import from_mapping, load
from kernel.errors import InvalidError

DECLARED = """\
[kernel.arguments]
symbol = "BTC"
count = 10
share = 0.5
dry_run = false
tags = ["a"]
depth = { type = "integer", help = "how deep to look", default = 3 }
[workers.feed]
use = "feed:run"
config = { kind = "${arguments.symbol}", number = "${arguments.count}", name = "of ${arguments.symbol}" }
"""
TAKES = """\
[workers.feed]
use = "feed:run"
options = "arguments"
config.kind = "green"
"""
REQUIRED = DECLARED.replace('symbol = "BTC"', 'symbol = { type = "string", help = "what to trade" }')
HELP = """\
Options of required.toml, after --:
 --symbol STRING what to trade [required]
 --count INTEGER [default: 10]
 --share NUMBER [default: 0.5]
 --dry-run BOOLEAN [default: false]
 --tags ARRAY [default: ["a"]]
 --depth INTEGER how deep to look [default: 3]
Options of takes.toml, after --:
 --kind STR of worker/feed [default: green]
 --number INT of worker/feed [default: 1]
 --name STR of worker/feed [default: x]
 --dry BOOL of worker/feed [default: false]
 --sizes LIST[INT] of worker/feed [default: []]
"""
CODE = """
import attrs
@attrs.frozen
class Config:
    kind: str
    number: int = 1
    name: str = "x"
    dry: bool = False
    sizes: list[int] = []
async def run(config: Config):
    print(config)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "feed.py").write_text(CODE)
    (tmp_path / "kernel.toml").write_text(DECLARED)
    (tmp_path / "takes.toml").write_text(TAKES)
    (tmp_path / "required.toml").write_text(REQUIRED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def values(capsys: pytest.CaptureFixture[str], *words: str) -> Mapping[str, tuple[str, str]]:
    assert execute(["plan", "--json", *words]) == 0
    shown = json.loads(capsys.readouterr().out)["values"]
    return {value["path"]: (value["value"], value["origin"]) for value in shown}


def test_an_argument_has_its_default(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = values(capsys)

    assert found["[kernel.arguments].symbol"] == ('"BTC"', "kernel.toml:2")
    assert found["[kernel.arguments].depth"] == ("3", "kernel.toml:7")
    assert found["[workers.feed.config].kind"] == ('"BTC"', "kernel.toml:10 (--symbol)")
    assert found["[workers.feed.config].number"] == ("10", "kernel.toml:10 (--count)")
    assert found["[workers.feed.config].name"] == ('"of BTC"', "kernel.toml:10 (--symbol)")


@pytest.mark.parametrize("words", [["kernel.toml", "--"], ["--"]], ids=["a manifest", "no manifest"])
def test_an_option_takes_the_place_of_the_default(
    folder: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--symbol=7", "--count", "20", "--share", "1", "--dry-run", "--tags", '["x", "y"]', "--depth", "-4"]
    found = values(capsys, *words, *given)

    assert found["[kernel.arguments].symbol"] == ('"7"', "--symbol")
    assert found["[kernel.arguments].count"] == ("20", "--count")
    assert found["[kernel.arguments].share"] == ("1", "--share")
    assert found["[kernel.arguments].dry_run"] == ("true", "--dry-run")
    assert found["[kernel.arguments].tags"] == ('["x", "y"]', "--tags")
    assert found["[kernel.arguments].depth"] == ("-4", "--depth")
    assert found["[workers.feed.config].number"] == ("20", "kernel.toml:10 (--count)")


def test_a_worker_that_takes_arguments_is_given_them_as_its_types_say(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--number", "5", "--name", "5", "--dry", "--sizes=[1, 2]"]
    found = values(capsys, "takes.toml", "--", *given)

    assert found["[workers.feed.config].kind"] == ('"green"', "takes.toml:4")
    assert found["[workers.feed.config].number"] == ("5", "--number")
    assert found["[workers.feed.config].name"] == ('"5"', "--name")
    assert found["[workers.feed.config].dry"] == ("true", "--dry")
    assert found["[workers.feed.config].sizes"] == ("[1, 2]", "--sizes")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["kernel.toml", "--", "--symbl", "x"], '--symbl: there is no such option; did you mean "--symbol"?'),
        (["kernel.toml", "--", "--count", "x"], '--count: [kernel.arguments].count: must be an integer, got "x"'),
        (["kernel.toml", "--", "--count"], "--count: [kernel.arguments].count: must be an integer, got nothing"),
        (["kernel.toml", "--", "--count=1", "--count=2"], "--count: is given twice"),
        (["kernel.toml", "--", "--count=1", "x"], "x: an option must begin with --"),
        (["takes.toml", "--", "--nmber", "1"], "--nmber: [workers.feed.config].nmber: unknown key; did you mean"),
        (["takes.toml", "--", "--number", "x"], "--number: [workers.feed.config].number: must be an integer"),
        (["required.toml"], "required.toml:2: [kernel.arguments.symbol]: has no default, and has to be given"),
        (["kernel.toml", "--set", "kernel.arguments.x.typ=1"], "--set: [kernel.arguments.x].typ: unknown key"),
    ],
)
def test_what_is_wrong_is_told(
    folder: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = execute(["check", *words])

    assert status == 2
    assert capsys.readouterr().err.startswith(expected)


def test_an_argument_without_a_default_is_given(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = values(capsys, "required.toml", "--", "--symbol", "ETH")

    assert found["[kernel.arguments].symbol"] == ('"ETH"', "--symbol")


@pytest.mark.parametrize("table", [3, {"a": {"typ": "string"}}, {"a": {"type": "text"}}, {"A": 1}, {"a": {}}])
def test_a_declaration_that_means_nothing_is_refused(table: object) -> None:
    with pytest.raises(InvalidError):
        from_mapping({"kernel": {"arguments": table}})


@pytest.mark.parametrize("default", ['"x"', "true", "1.5"])
def test_a_default_is_of_its_type(folder: Path, default: str) -> None:
    (folder / "a.toml").write_text(f'[kernel.arguments]\n\na = {{ type = "integer", default = {default} }}')

    with pytest.raises(InvalidError, match=r"a.toml:3: \[kernel.arguments.a\].default: must be of the type integer"):
        load("a.toml", environ={})


def test_an_unknown_argument_in_a_string_is_told(folder: Path) -> None:
    with pytest.raises(InvalidError, match=r'"symbl" is no argument of .*; did you mean "symbol"'):
        from_mapping({"kernel": {"arguments": {"symbol": 1}}, "workers": {"a": {"use": "${arguments.symbl}"}}})


def test_the_help_lists_the_options_with_types_and_defaults(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    statuses = [execute(["run", path, "--", "--help"]) for path in ("required.toml", "takes.toml")]

    out = capsys.readouterr().out
    assert statuses == [0, 0]
    assert re.sub(" +", " ", out) == HELP


def test_there_may_be_no_options(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "none.toml").write_text('[workers.feed]\nuse = "feed:run"\nconfig.kind = "x"')

    execute(["run", "none.toml", "--", "-h"])

    assert capsys.readouterr().out == "none.toml takes no options after --\n"


def test_two_manifests_cannot_be_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["run", "kernel.toml", "takes.toml"]) == 2
    assert "unexpected extra argument (takes.toml)" in capsys.readouterr().err
