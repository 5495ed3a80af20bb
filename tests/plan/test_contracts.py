"""Contracts that are broken on either side: found where both manifests are there, and at the edge otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from kernel._cli.cli import cli
from kernel.errors import ConversionError, RemoteError
from kernel.testing import open_kernel

HEAD = """
from __future__ import annotations
import enum
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Protocol, TypedDict
from uuid import UUID
import attrs
import pydantic
import trio
from kernel import Arguments, Retry, answers, contract, handles

@attrs.frozen
class Line:
    sku: str
    amount: int = 1

@attrs.frozen
class Order:
    lines: list[Line]
    note: str | None = None

@attrs.frozen
class Tree:
    name: str
    children: list[Tree] = attrs.field(factory=list)

class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Wish(TypedDict):
    sku: str
    amount: NotRequired[int]

class Pair(NamedTuple):
    left: int
    right: str

class Model(pydantic.BaseModel):
    sku: str
    amount: int = 1
"""
CALLER = """
[kernel]
name = "caller"
[drivers.queue]
plugin = "sqlite"
path = "queue.db"
[drivers.stock]
plugin = "rpc_client"
driver = "queue"
protocol = "json"
contract = "caller:Stock"
[workers.buyer]
use = "caller:Buyer"
"""
CALLEE = """
[kernel]
name = "callee"
[drivers.queue]
plugin = "sqlite"
path = "queue.db"
[dispatchers.incoming]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "stock"
bindings = ["stock.*"]
[workers.shelf]
use = "callee:Shelf"
dispatcher = "incoming"
"""


class Broken(NamedTuple):
    """One case."""

    mine: str
    """The method of the contract, behind `self`."""
    theirs: str
    """The handler's."""
    returned: str
    call: str
    """What is made of it that the contract allows."""
    text: str
    """What `check` says."""
    edge: type[Exception] = RemoteError
    edge_text: str = ""
    subject: str = "stock.take"
    mark: str = "answers"


ARGUMENTS = "ArgumentsError"
BROKEN = {
    "missing handler": Broken("()", "()", "1", "take()", 'no worker handles "stock.take"', RemoteError, "NoWorkerError", "other.take"),
    "renamed handler": Broken("()", "()", "1", "take()", 'no worker handles "stock.take"', RemoteError, "NoWorkerError", "stock.taek"),
    "missing argument": Broken("(sku: str)", "(sku: str, amount: int)", "1", "take('t')", "amount: is missing in the contract", edge_text="amount: is missing"),
    "missing keyword": Broken("(sku: str)", "(sku: str, *, amount: int)", "1", "take('t')", "amount: is missing in the contract", edge_text="amount: is missing"),
    "extra argument": Broken("(sku: str, amount: int)", "(sku: str)", "1", "take('t', 2)", "amount: the handler takes no such argument", edge_text="at most 1"),
    "extra keyword": Broken("(*, amount: int)", "()", "1", "take(amount=2)", "amount: the handler takes no such argument", edge_text="amount: is unexpected"),
    "extra rest": Broken("(*skus: str)", "(sku: str = '')", "1", "take('a', 'b')", "skus: the handler takes no *skus", edge_text="at most 1"),
    "extra others": Broken("(**more: int)", "()", "1", "take(a=1)", "more: the handler takes no **more", edge_text="a: is unexpected"),
    "renamed argument": Broken("(sku: str)", "(item: str)", "1", "take(sku='t')", 'sku: is called "item" by the handler', edge_text="sku: is unexpected"),
    "swapped arguments": Broken("(a: str, b: int)", "(b: int, a: str)", "1", "take('t', 1)", "a: stands in another place", edge_text="b: must be an integer"),
    "by name alone": Broken("(sku: str)", "(*, sku: str)", "1", "take('t')", "sku: the handler takes it by name alone", edge_text="at most 0"),
    "by position alone": Broken("(sku: str)", "(sku: str, /)", "1", "take(sku='t')", "sku: the handler takes it by position alone", edge_text="must be given by position"),
    "optional and required": Broken("(sku: str = '')", "(sku: str)", "1", "take()", "sku: may be left out", edge_text="sku: is missing"),
    "optional keyword": Broken("(*, amount: int = 1)", "(*, amount: int)", "1", "take()", "amount: may be left out", edge_text="amount: is missing"),
    "wrong type": Broken("(amount: str)", "(amount: int)", "1", "take('2')", "amount: is a string, and an integer is taken", edge_text="amount: must be an integer"),
    "wider number": Broken("(amount: float)", "(amount: int)", "1", "take(0.5)", "amount: is a number, and an integer is taken", edge_text="amount: must be an integer"),
    "may be null": Broken("(amount: int | None)", "(amount: int)", "1", "take(None)", "amount: may be null", edge_text="amount: must be an integer"),
    "wider union": Broken("(it: int | str)", "(it: int)", "1", "take('a')", "it: is a string, and an integer", edge_text="it: must be an integer"),
    "text for a date": Broken("(day: str)", "(day: date)", "1", "take('soon')", "day: is a string, and a date is taken", edge_text="day: must be a date"),
    "text for an identity": Broken("(it: str)", "(it: UUID)", "1", "take('x')", "it: is a string, and a UUID", edge_text="it: must be a UUID"),
    "more choices": Broken("(it: Literal['red', 'green'])", "(it: Colour)", "1", "take('green')", 'it: is "red" or "green"', edge_text='it: must be "red" or "blue"'),
    "wrong item": Broken("(its: list[str])", "(its: list[int])", "1", "take(['a'])", "its[0]: is a string", edge_text="its[0]: must be an integer"),
    "wrong length": Broken("(it: tuple[int, int])", "(it: tuple[int, int, int])", "1", "take((1, 2))", "it: is an array of 2, and one of 3", edge_text="it: must be an array of 3"),
    "wrong value": Broken("(it: dict[str, str])", "(it: dict[str, int])", "1", "take({'a': 'b'})", 'it."*": is a string', edge_text="it.a: must be an integer"),
    "field that lacks": Broken("(it: Tree)", "(it: Line)", "1", "take(Tree('a'))", "it.sku: is missing", edge_text="it.sku: is missing"),
    "key that may lack": Broken("(it: Wish)", "(it: dict[str, int])", "1", "take({'sku': 'a'})", "it.sku: is a string", edge_text="it.sku: must be an integer"),
    "wrong field deep inside": Broken("(order: dict[str, list[dict[str, str]]])", "(order: dict[str, list[Line]])", "1", "take({'l': [{'sku': 'a', 'amount': 'b'}]})", "amount: is a string", edge_text="amount: must be an integer"),
    "field of a model": Broken("(it: Line)", "(it: Pair)", "1", "take(Line('a'))", "it.left: is missing", edge_text="it.left: is missing"),
    "wrong result": Broken("() -> int", "() -> str", "'a'", "take()", "result: is a string, and an integer is taken", ConversionError, "result: must be an integer"),
    "no result": Broken("() -> int", "() -> None", "None", "take()", "result: is null, and an integer is taken", ConversionError, "result: must be an integer"),
    "unasked result": Broken("() -> None", "() -> int", "1", "take()", "result: is an integer, and null is taken", ConversionError, "result: must be null"),
    "result may be null": Broken("() -> int", "() -> int | None", "None", "take()", "result: may be null", ConversionError, "result: must be an integer"),
    "field of the result": Broken("() -> Line", "() -> dict[str, int]", "{'sku': 1}", "take()", "result.sku: ", ConversionError, "result.sku: must be a string"),
    "item of the result": Broken("() -> list[Line]", "() -> list[Tree]", "[Tree('a')]", "take()", "result[0].sku: is missing", ConversionError, "result[0].sku: is missing"),
    "arguments for a payload": Broken("(sku: str)", "(payload: Line)", "1", "take('t')", "takes a payload (@handles)", edge_text="", mark="handles"),
}  # fmt: skip

AGREEING = {
    "the same": ("(sku: str, *, amount: int = 1) -> int", "(sku: str, *, amount: int = 1) -> int"),
    "unsaid on both sides": ("(sku, amount=1)", "(sku, amount=1)"),
    "anything there": ("(it: Line) -> int", "(it: object)"),
    "anything here": ("(it: Any) -> object", "(it: int) -> int"),
    "an outcome": ("() -> int", "() -> int | Retry"),
    "more is taken": ("(sku: str)", "(sku: str, amount: int = 1, *more: int, flag: bool = False, **others: int)"),
    "all is taken": ("(sku: str, /, *, amount: int)", "(*args: str, **kwargs: int)"),
    "a default that needs none": ("(sku: str)", "(sku: str = '')"),
    "a wider type": ("(it: int) -> float", "(it: float) -> int"),
    "an option more": ("(it: int)", "(it: int | str | None)"),
    "written as text": ("(a: UUID, b: date, c: Decimal, d: Colour)", "(a: str, b: str, c: str, d: str)"),
    "a class and its keys": ("(it: Line)", "(it: Wish)"),
    "a key that may lack": ("(it: Wish)", "(it: Line)"),
    "a model": ("(it: Model) -> Line", "(it: Line) -> Model"),
    "fewer fields": ("(it: Order)", "(it: dict[str, object])"),
    "itself": ("(it: Tree) -> Tree", "(it: Tree) -> Tree"),
    "arrays": ("(a: tuple[int, int], b: set[int], c: Pair)", "(a: list[int], b: Sequence[int], c: tuple[int, str])"),
    "a limit": ("(it: int)", "(it: Annotated[int, pydantic.Field(ge=1)])"),
    "fewer choices": ("(it: Literal['red'])", "(it: Colour)"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("caller", "callee"):
        sys.modules.pop(name, None)


def write(folder: Path, case: Broken) -> None:
    mine, theirs = (text.replace("(", "(self, ", 1).replace("self, )", "self)") for text in (case.mine, case.theirs))
    caller = f'@contract("stock")\nclass Stock(Protocol):\n    async def take{mine}: ...\n'
    buyer = "class Buyer:\n    def __init__(self, stock: Stock): self.stock = stock\n    async def run(self): await trio.sleep_forever()\n"
    body = f'    @{case.mark}("{case.subject}")\n    async def take{theirs}:\n        return {case.returned}\n'
    (folder / "caller.py").write_text(f"{HEAD}\n{caller}\n{buyer}")
    (folder / "callee.py").write_text(f"{HEAD}\nclass Shelf:\n{body}")
    (folder / "caller.toml").write_text(CALLER)
    (folder / "callee.toml").write_text(CALLEE)


def check(*manifests: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["check", *manifests])
    return result.exit_code, result.output


@pytest.mark.parametrize("name", BROKEN)
def test_check_finds_what_two_services_do_not_agree_on(name: str, folder: Path) -> None:
    write(folder, BROKEN[name])

    alone = check("caller.toml")
    status, output = check("caller.toml", "callee.toml")

    assert alone[0] == 0, alone
    assert status == 2
    assert any(line.startswith("caller.toml:7: [drivers.stock].contract: ") for line in output.splitlines()), output
    assert BROKEN[name].text in output


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
async def test_the_edge_finds_what_check_could_not_see(name: str, folder: Path) -> None:
    case = BROKEN[name]
    write(folder, case)
    async with (
        open_kernel("callee.toml", expected=Exception),
        open_kernel("caller.toml") as service,
    ):
        stock: Any = service.resource("worker/buyer").stock
        scope = vars(sys.modules["caller"])
        with pytest.raises(case.edge) as caught:
            await eval(f"stock.{case.call}", {**scope, "stock": stock})

    assert case.edge_text in str(caught.value)


@pytest.mark.parametrize("name", AGREEING)
def test_what_agrees_is_clean(name: str, folder: Path) -> None:
    write(folder, Broken(*AGREEING[name], "1", "", ""))

    status, output = check("caller.toml", "callee.toml")

    assert status == 0, output


def test_one_service_is_held_against_its_own_handlers(folder: Path) -> None:
    write(folder, BROKEN["wrong type"])
    together = CALLEE.partition("[dispatchers.incoming]")[2]
    (folder / "caller.toml").write_text(f"{CALLER}[dispatchers.incoming]{together}")

    status, output = check("caller.toml")

    assert status == 2
    assert (
        '[drivers.stock].contract: Stock.take and worker/shelf.take do not agree on "stock.take": amount: is' in output
    )


def test_what_is_handled_in_a_third_service_is_not_missed(folder: Path) -> None:
    write(folder, BROKEN["renamed handler"])
    (folder / "third.toml").write_text(CALLEE.replace('"callee"', '"third"').replace("callee:", "third:"))
    (folder / "third.py").write_text((folder / "callee.py").read_text().replace("stock.taek", "stock.take"))

    status, output = check("caller.toml", "callee.toml", "third.toml")

    assert status == 0, output
