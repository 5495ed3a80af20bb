"""`kernel contracts`: what a service takes and gives, as text, as JSON Schemas, and as AsyncAPI.

`asyncapi-3.0.0.json.gz` is the official schema, `3.0.0-without-$id.json` of the npm package @asyncapi/specs 6.8.1
(Apache-2.0).
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft7Validator, Draft202012Validator

from kernel._cli.cli import cli

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted([ROOT / "kernel.toml", *ROOT.glob("examples/**/*.toml")])
OFFICIAL = Draft7Validator(json.loads(gzip.decompress((Path(__file__).parent / "asyncapi-3.0.0.json.gz").read_bytes())))

DESK = '''
from __future__ import annotations
from typing import Annotated, Protocol
import attrs
import pydantic
import trio
from kernel import Retry, answers, contract, handles

@attrs.frozen
class Tree:
    name: str
    children: list[Tree] = attrs.field(factory=list)

class Cat(pydantic.BaseModel):
    kind: str = "cat"

@contract("stock")
class Stock(Protocol):
    async def take(self, sku: str, /, *more: str, amount: int = 1, **others: Tree) -> tuple[int, str]:
        """Take it.

        Really."""
        ...

class Desk:
    def __init__(self, stock: Stock): ...

    @answers("desk.*")
    async def sell(self, tree: Tree, *, by: Cat | None = None) -> Tree | Retry:
        """Sell a tree."""

    @handles("tree.#")
    async def note(self, tree: Tree) -> None: ...
'''
MANIFEST = """
[kernel]
name = "desk"
[drivers.queue]
plugin = "memory"
[drivers.stock]
plugin = "rpc_client"
driver = "queue"
protocol = "json"
contract = "desk:Stock"
[drivers.events]
plugin = "publisher"
driver = "queue"
protocol = "json"
[dispatchers.incoming]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "desk"
bindings = ["desk.*", "tree.#"]
[workers.desk]
use = "desk:Desk"
dispatcher = "incoming"
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "desk.py").write_text(DESK)
    (tmp_path / "kernel.toml").write_text(MANIFEST)
    return str(tmp_path / "kernel.toml")


def contracts(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["contracts", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def referred(document: Any, reference: str) -> Any:
    for step in reference.removeprefix("#/").split("/"):
        document = document[step]
    return document


def references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [reference for item in value for reference in references(item)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return own + [reference for item in value.values() for reference in references(item)]


def test_people_see_what_a_service_takes_and_gives(desk: str) -> None:
    lines = [line.strip() for line in contracts(desk).splitlines()]

    assert lines[:2] == ["desk", ""]
    assert "desk.*(tree: Tree, *, by: Cat | None = ...) -> Tree  worker/desk.sell" in lines
    assert "tree.#(tree: Tree)                                   worker/desk.note" in lines
    take = "stock.take(sku: str, /, *more: str, amount: int = ..., **others: Tree) -> tuple[int, str]"
    assert any(line.startswith(take) and line.endswith("desk:Stock.take") for line in lines)
    assert lines[-2:] == ["driver/events", "anything"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_asyncapi_document_of_an_example_is_valid(path: Path) -> None:
    document = json.loads(contracts(str(path), "--asyncapi"))

    OFFICIAL.validate(document)


def test_an_asyncapi_document_is_valid_and_every_reference_leads_somewhere(desk: str) -> None:
    document = json.loads(contracts(desk, "--asyncapi"))

    OFFICIAL.validate(document)
    found = [referred(document, reference) for reference in references(document)]
    assert all(one is not None for one in found)
    assert document["channels"]["desk.any"]["address"] == "desk.{word2}"
    assert set(document["channels"]["desk.any"]["parameters"]) == {"word2"}
    assert document["operations"]["receive.incoming.desk.any"]["action"] == "receive"
    assert document["operations"]["send.stock.stock.take"]["summary"] == "Take it."
    assert "reply" not in document["operations"]["receive.incoming.tree.all"]
    assert document["channels"]["events"]["address"] is None
    assert "Tree" in document["components"]["schemas"]


@pytest.mark.parametrize(
    ("payload", "is_valid"),
    [
        ({"args": ["tea", "oil"], "kwargs": {"amount": 2, "more": {"name": "x"}}}, True),
        (["tea", "oil"], True),
        (["tea", 5], False),
        ([], False),
        ({"amount": 2}, False),
        ({"args": ["tea"], "kwargs": {"amount": "2"}}, False),
    ],
)
def test_both_forms_of_schema_take_the_same(desk: str, payload: object, is_valid: bool) -> None:
    schemas, document = json.loads(contracts(desk, "--schema")), json.loads(contracts(desk, "--asyncapi"))
    [take] = [one for one in schemas["gives"] if one["subject"] == "stock.take"]
    message = document["components"]["messages"]["send.stock.stock.take"]["payload"]

    assert Draft202012Validator({**schemas, **take["arguments"]}).is_valid(payload) is is_valid
    assert Draft7Validator({**document, **message}).is_valid(payload) is is_valid


def test_schemas_are_schemas(desk: str) -> None:
    document = json.loads(contracts(desk, "--schema"))

    for side in ("takes", "gives"):
        for one in document[side]:
            for part in {"arguments", "payload", "result"} & set(one):
                Draft202012Validator.check_schema({**one[part], "$defs": document["$defs"]})
    [sold] = [one for one in document["takes"] if one["subject"] == "desk.*"]
    tree = Draft202012Validator({**sold["result"], "$defs": document["$defs"]})
    assert tree.is_valid({"name": "a", "children": [{"name": "b"}]})
    assert not tree.is_valid({"name": "a", "children": [{}]})
