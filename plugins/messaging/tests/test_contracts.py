"""A contract is held on the side of who calls or publishes, and its methods are how they do it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any, Protocol

import attrs
import pytest
import trio
from kernel_messaging import Publisher, RpcClient
from trio.testing import MockClock

from kernel import Arguments, Envelope, Plan, answers, contract, handles
from kernel.abc import Delivery
from kernel.errors import ContractError, ConversionError, PlanError
from kernel.testing import RunningService, open_kernel
from kernel.testing._plan_for import plan_for


@attrs.frozen
class Order:
    sku: str
    quantity: int = 1


@attrs.frozen
class Quote:
    total: int


@contract("stock")
class Stock(Protocol):
    async def take(self, sku: str, *, amount: int = 1) -> int:
        """Take from the shelf."""
        ...

    async def quote(self, order: Order) -> Quote: ...

    async def broken(self) -> int: ...

    @handles("order.rated")
    async def rated(self, order: Order) -> str: ...


class Orders(Protocol):
    @handles("order.created")
    async def created(self, order: Order) -> str: ...

    @handles("order.dropped")
    async def dropped(self, order: Order) -> None: ...


class Shelf:
    """The other side, which promises nothing and takes what comes."""

    got: list[object]

    @answers("stock.take", "stock.quote", "stock.broken")
    async def answer(self, *args: object, **kwargs: object) -> object:
        Shelf.got.append((args, kwargs))
        return {"total": 4} if args and isinstance(args[0], dict) else "none" if not args else 3

    @handles("order.rated", "order.created", "order.dropped")
    async def note(self, payload: object) -> str:
        Shelf.got.append(payload)
        return "good"


class Buyer:
    """What a worker is given."""

    def __init__(self, stock: Stock, orders: Orders, raw: RpcClient, publisher: Publisher) -> None:
        Buyer.given = self
        self.stock, self.orders, self.raw, self.publisher = stock, orders, raw, publisher

    given: Any = None

    async def run(self) -> None:
        await trio.sleep_forever()


def manifest(**drivers: dict[str, object]) -> dict[str, object]:
    here = __name__
    return {
        "kernel": {"name": "test"},
        "drivers": {
            "queue": {"plugin": "memory"},
            "stock": {"plugin": "rpc_client", "driver": "queue", "protocol": "json", "contract": f"{here}:Stock"},
            "orders": {"plugin": "publisher", "driver": "queue", "protocol": "json", "contract": f"{here}:Orders"},
            **drivers,
        },
        "dispatchers": {
            "shelf": {
                "plugin": "consumer",
                "driver": "queue",
                "protocol": "json",
                "queue": "shelf",
                "bindings": ["stock.*", "order.*"],
            }
        },
        "workers": {
            "shelf": {"use": f"{here}:Shelf", "dispatcher": "shelf"},
            "buyer": {"use": f"{here}:Buyer", "drivers": {"raw": "stock", "publisher": "orders"}},
        },
    }


@pytest.fixture
async def buyer(autojump_clock: MockClock) -> AsyncGenerator[Buyer]:
    Shelf.got = []
    async with open_kernel(manifest()):
        yield Buyer.given


async def test_a_call_by_contract_is_a_call(buyer: Buyer) -> None:
    assert await buyer.stock.take("tea", amount=2) == 3

    assert Shelf.got == [(("tea",), {"amount": 2})]


async def test_what_comes_back_is_converted(buyer: Buyer) -> None:
    assert await buyer.stock.quote(Order("tea")) == Quote(4)
    assert await buyer.raw.stock.quote(Order("tea")) == Quote(4)
    assert await buyer.raw.call("stock.quote", Arguments(({"sku": "tea"},)), returns=dict) == {"total": 4}


async def test_a_payload_is_called_and_published_by_position_and_by_name(buyer: Buyer) -> None:
    assert await buyer.stock.rated(Order("tea")) == "good"
    assert await buyer.orders.created(order=Order("oil"))
    assert await buyer.orders.dropped(Order("oil")) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("send", "problems"),
    [
        (lambda one: one.stock.take(5), ["sku: must be a string, got 5"]),
        (lambda one: one.stock.take("tea", amuont=2), ["amuont: is unexpected; there are: sku, amount"]),
        (lambda one: one.stock.take("tea", 2), ["at most 1 can be given by position, got 2"]),
        (lambda one: one.stock.take(), ["sku: is missing"]),
        (lambda one: one.raw.stock.take("tea", amount="2"), ['amount: must be an integer, got "2"']),
        (lambda one: one.raw.call("stock.take", {"sku": None}), ["sku: must be a string, got null"]),
        (lambda one: one.stock.quote(Order(1)), ["order.sku: must be a string, got 1"]),
        (lambda one: one.stock.quote({"sku": "tea", "quantity": "2"}), ['order.quantity: must be an integer, got "2"']),
        (lambda one: one.stock.rated(Order("tea", None)), ["quantity: must be an integer, got null"]),
        (lambda one: one.stock.rated(), ["takes one payload: rated(order: plugins.messaging"]),
        (lambda one: one.stock.rated(it=Order("tea")), ["takes one payload: rated(order: plugins.messaging"]),
        (lambda one: one.raw.stock.taek("tea"), [f'is not in {__name__}:Stock; did you mean "stock.take"?']),
        (lambda one: one.orders.created(Order(1)), ["sku: must be a string, got 1"]),
        (lambda one: one.publisher.publish("order.created", {}), ["sku: is missing"]),
        (lambda one: one.publisher.publish("order.creatd", {}), ["is not in", 'did you mean "order.created"?']),
    ],
)
async def test_what_is_wrong_is_not_sent(buyer: Buyer, send: Callable[[Any], Any], problems: list[str]) -> None:
    with pytest.raises(ContractError) as caught:
        await send(buyer)

    assert len(caught.value.problems) == 1
    assert all(problem in caught.value.problems[0] for problem in problems)
    assert Shelf.got == []


async def test_a_wrong_answer_is_an_error_of_its_place(buyer: Buyer) -> None:
    with pytest.raises(ConversionError, match=r'^result: must be an integer, got "none"$'):
        await buyer.stock.broken()


async def test_a_client_is_of_the_class_and_looks_like_it(buyer: Buyer) -> None:
    assert Stock in type(buyer.stock).__mro__
    assert type(buyer.stock).take.__doc__ == "Take from the shelf."
    assert type(buyer.stock).__qualname__ == "Stock"


# --- what check says ----------------------------------------------------------------------------------------------


class Empty(Protocol):
    def _private(self) -> None: ...


class Plain(Protocol):
    def take(self) -> None: ...


class Data(Protocol):
    amount: int

    async def take(self) -> None: ...


class Twice(Protocol):
    @answers("a.b")
    async def one(self) -> None: ...

    @answers("a.b")
    async def two(self) -> None: ...


class Pattern(Protocol):
    @answers("a.*")
    async def one(self) -> None: ...


class Odd(Protocol):
    async def one(self, it: complex) -> None: ...


class Answered(Protocol):
    async def one(self, it: int) -> int: ...


class Wide(Protocol):
    async def one(self, it: int, other: int) -> None: ...


@pytest.mark.parametrize(
    ("driver", "name", "text"),
    [
        ("stock", "Nothing", 'has no "Nothing"'),
        ("stock", "manifest", "is no class"),
        ("stock", "Empty", "promises nothing"),
        ("stock", "Plain", 'so it must be written "async def"'),
        ("stock", "Data", "Data.amount is no method"),
        ("stock", "Twice", '"a.b" is the subject of Twice.one and Twice.two'),
        ("stock", "Pattern", '"a.*" is a pattern'),
        ("stock", "Odd", "payloads cannot be converted to <class 'complex'>"),
        ("orders", "Answered", "nobody answers"),
        ("orders", "Wide", "must take one parameter"),
        ("queue", "Stock", 'plugin "memory" sends nothing'),
    ],
)
async def test_a_contract_that_is_none_is_a_problem_of_its_key(driver: str, name: str, text: str) -> None:
    tables: Any = manifest()
    tables["drivers"][driver]["contract"] = f"{__name__}:{name}"
    tables["workers"].pop("buyer")

    with pytest.raises(PlanError) as caught:
        async with open_kernel(tables):
            pass

    assert any(f"[drivers.{driver}].contract" == one.path and text in one.text for one in caught.value.problems)


async def test_a_worker_that_asks_for_another_class_is_told_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def __init__(self, stock: Quote) -> None: ...

        async def run(self) -> None: ...

    monkeypatch.setitem(globals(), "Other", Other)
    tables: Any = manifest()
    tables["workers"]["buyer"] = {"use": f"{__name__}:Other"}

    with pytest.raises(PlanError, match="wants Quote, but driver/stock provides RpcClient, and Stock by its contract"):
        async with open_kernel(tables):
            pass


async def test_without_a_contract_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    Shelf.got = []
    tables: Any = manifest()
    tables["drivers"]["stock"].pop("contract")
    tables["workers"].pop("buyer")
    service: RunningService
    async with open_kernel(tables) as service:
        assert await service.resource("driver/stock").stock.take(5) == 3


async def test_in_a_test_anything_may_stand_in_for_the_driver(autojump_clock: MockClock) -> None:
    class FakeStock:
        async def take(self, sku: str, *, amount: int = 1) -> int:
            return 5

    tables: Any = manifest()
    tables["workers"]["buyer"]["drivers"].pop("raw")
    tables["workers"]["buyer"]["use"] = f"{__name__}:Modest"
    async with open_kernel(tables, replace={"drivers.stock": FakeStock()}):
        assert await Modest.given.stock.take("tea") == 5


class Modest:
    given: Any = None

    def __init__(self, stock: Stock, publisher: Publisher) -> None:
        Modest.given = self
        self.stock = stock

    async def run(self) -> None:
        await trio.sleep_forever()


async def test_a_reload_restarts_who_has_another_contract_and_nobody_else(autojump_clock: MockClock) -> None:
    tables: Any = manifest()
    async with open_kernel(tables) as service:
        nothing = await service.kernel.reload(planned(tables))
        tables["drivers"]["stock"]["contract"] = f"{__name__}:Another"
        other = await service.kernel.reload(planned(tables))

    assert nothing.restarted == ()
    assert set(other.restarted) == {"driver/stock", "worker/buyer"}


@contract("stock")
class Another(Stock, Protocol): ...


def planned(tables: Any) -> Plan:
    return plan_for(tables, replace={}, set_={}, registry=None, environ={}, faults=None)


@contract("stock")
class Elsewhere(Protocol):
    async def take(self, sku: str) -> int: ...


class Marked(Protocol):
    @answers("stock.take")
    async def pick(self, sku: str) -> int: ...


class Unmarked(Protocol):
    async def created(self, order: Order) -> None: ...


class Namespace(Protocol):
    stock: Any


class Bare(Protocol):
    async def take(self, sku: str) -> int: ...


class Asking:
    """What is derived from it asks for a driver by an annotation that a test gives."""

    given: Any = None

    async def run(self) -> None:
        await trio.sleep_forever()


class AskingStock(Asking):
    def __init__(self, stock: object = None) -> None:
        Asking.given = stock


class AskingOrders(Asking):
    def __init__(self, orders: object = None) -> None:
        Asking.given = orders


def asking(monkeypatch: pytest.MonkeyPatch, driver: str, annotation: object, *, has_contract: bool) -> dict[str, Any]:
    made = {"stock": AskingStock, "orders": AskingOrders}[driver]
    monkeypatch.setitem(made.__init__.__annotations__, driver, annotation)
    tables: Any = manifest()
    tables["workers"]["buyer"] = {"use": f"{__name__}:{made.__name__}"}
    if not has_contract:
        tables["drivers"][driver].pop("contract")
    return tables


@pytest.mark.parametrize(
    "annotation",
    [Stock | None, Annotated[Stock, 1], Annotated[Stock | None, 1], "Stock | None"],
)
async def test_a_contract_is_given_however_it_is_written(
    annotation: object, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_kernel(asking(monkeypatch, "stock", annotation, has_contract=True)):
        assert Asking.given.__class__.__mro__[1] is Stock


OTHERS: list[tuple[str, Any]] = [
    ("stock", Elsewhere),
    ("stock", Elsewhere | None),
    ("stock", Marked),
    ("stock", Publisher | None),
    ("orders", Unmarked),
]
OWN: list[tuple[str, Any]] = [("stock", Stock), ("orders", Orders), ("orders", Annotated[Orders, 1])]


@pytest.mark.parametrize(
    ("driver", "annotation", "has_contract"),
    [*((*one, True) for one in OTHERS), *((*one, False) for one in OTHERS), *((*one, False) for one in OWN)],
)
async def test_a_contract_that_the_driver_does_not_have_is_not_given(
    driver: str, annotation: object, monkeypatch: pytest.MonkeyPatch, *, has_contract: bool
) -> None:
    with pytest.raises(PlanError, match=f"but driver/{driver} provides"):
        async with open_kernel(asking(monkeypatch, driver, annotation, has_contract=has_contract)):
            pass


@pytest.mark.parametrize(
    ("driver", "annotation"),
    [
        ("stock", Namespace),
        ("stock", Bare),
        ("stock", RpcClient | None),
        ("stock", Any),
        ("orders", Annotated[Publisher, 1]),
    ],
)
async def test_who_asks_for_what_the_driver_can_gets_it(
    driver: str, annotation: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_kernel(asking(monkeypatch, driver, annotation, has_contract=False)):
        assert isinstance(Asking.given, RpcClient | Publisher)


class Selfless(Protocol):
    async def one() -> None: ...  # type: ignore[misc]


class Generator(Protocol):
    async def one(self) -> AsyncGenerator[int]:
        yield 1


class Handed(Protocol):
    async def one(self, it: int, envelope: Envelope) -> None: ...


class Lent(Protocol):
    async def one(self, delivery: Delivery) -> None: ...


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Selfless", 'Selfless.one is a method: its first parameter is "self"'),
        ("Generator", "Generator.one has a `yield`"),
        ("Handed", '"envelope" of Handed.one is given by the kernel'),
        ("Lent", '"delivery" of Lent.one is given by the kernel'),
        ("Plain", 'so it must be written "async def"'),
        ("Data", "Data.amount is no method"),
    ],
)
async def test_one_mistake_is_told_once(name: str, text: str) -> None:
    tables: Any = manifest()
    tables["drivers"]["stock"]["contract"] = f"{__name__}:{name}"
    tables["workers"].pop("buyer")

    with pytest.raises(PlanError) as caught:
        async with open_kernel(tables):
            pass

    assert len(caught.value.problems) == 1
    assert text in caught.value.problems[0].text


class Defaults(Protocol):
    @handles("order.created")
    async def created(self, order: Order | None = None) -> str: ...


async def test_a_payload_that_is_left_out_is_its_default(autojump_clock: MockClock) -> None:
    Shelf.got = []
    tables: Any = manifest()
    tables["drivers"]["orders"]["contract"] = f"{__name__}:Defaults"
    tables["workers"]["buyer"] = {"use": f"{__name__}:Careless"}
    async with open_kernel(tables) as service:
        await service.wait_settled(1)

    assert Shelf.got == [None]


class Careless:
    def __init__(self, orders: Defaults) -> None:
        self.orders = orders

    async def run(self) -> None:
        await self.orders.created()
        await trio.sleep_forever()


@attrs.define
class Tree:
    children: list[Tree] = attrs.field(factory=list["Tree"])


class Trees(Protocol):
    @handles("order.created")
    async def created(self, tree: Tree) -> str: ...


def deep(levels: int) -> Tree:
    tree = Tree()
    for _ in range(levels):
        tree = Tree([tree])
    return tree


def endless() -> Tree:
    tree = Tree()
    tree.children.append(Tree([tree]))
    return tree


@pytest.mark.parametrize("tree", [deep(5000), endless()], ids=["deep", "endless"])
async def test_what_has_no_end_is_refused(tree: Tree, autojump_clock: MockClock) -> None:
    tables: Any = manifest()
    tables["drivers"]["orders"]["contract"] = f"{__name__}:Trees"
    tables["workers"].pop("buyer")
    async with open_kernel(tables) as service:
        with pytest.raises(ContractError, match=r"order\.created: is nested too deep, or contains itself"):
            await service.publish("orders", "order.created", tree)
