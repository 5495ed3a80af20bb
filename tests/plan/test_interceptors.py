"""What `kernel check` says of interceptors: each mistake by its entry's line, and all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel._core.spec import DispatcherSpec, DriverSpec
from kernel._manifest.manifest import load
from kernel._manifest.registry import discover
from kernel._plan.plan import resolve
from kernel.errors import PlanError

MANIFEST = """
[drivers.queue]
plugin = "memory"

[drivers.orders]
plugin = "publisher"
driver = "queue"
protocol = "json"
interceptors = [SENDING]

[drivers.idle]
enabled = false
plugin = "memory"

[dispatchers.incoming]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "orders"
interceptors = [HANDLING]

[workers.packer]
use = "shop:Packer"
dispatcher = "incoming"
"""
SHOP = """
from __future__ import annotations

from contextlib import asynccontextmanager

from kernel import Delivery, Incoming, Outgoing, handles
from kernel_memory import MemoryBroker


class Packer:
    @handles("order.created")
    async def pack(self, order):
        pass


class Good:
    def __init__(self, queue: MemoryBroker, log=None):
        pass

    @asynccontextmanager
    async def sending(self, outgoing: Outgoing):
        yield

    async def handling(self, incoming: Incoming, more=None):
        yield


class OnlySends:
    async def sending(self, outgoing):
        yield


class Misspelt:
    async def handle(self, incoming):
        yield


class Coroutine:
    async def sending(self, outgoing):
        outgoing.headers["a"] = "b"


class ReturnsNothing:
    def sending(self, outgoing) -> None:
        outgoing.headers["a"] = "b"


class NoParameter:
    async def sending(self):
        yield


class TooMany:
    async def sending(self, outgoing, envelope):
        yield


class Attribute:
    sending = 3


class WrongType:
    async def handling(self, incoming: Delivery):
        yield


class WrongSide:
    async def sending(self, incoming: Incoming):
        yield


class Wants:
    def __init__(self, database):
        pass

    async def sending(self, outgoing):
        yield


class WantsIdle(Wants):
    def __init__(self, idle):
        pass


class WantsConfig(Wants):
    def __init__(self, config):
        pass


class WantsItself(Wants):
    def __init__(self, orders):
        pass


class WantsAnother(Wants):
    def __init__(self, queue: Packer):
        pass


async def function(outgoing):
    yield


instance = Good(None)
"""
CURE = "write a `yield` where that happens, and @asynccontextmanager above"
SENDING = 9
HANDLING = 20
MISTAKES = [
    ("sending", "shop:Absent", '"shop" (from shop.py) has no "Absent"'),
    ("sending", "nowhere:Session", 'there is no module "nowhere"'),
    ("sending", "shop.Good", 'must be "module:Name"'),
    ("sending", "shop:function", '"shop:function" must be a class with an async context manager `sending`: it is a function'),
    ("sending", "shop:instance", '"shop:instance" must be a class with an async context manager `sending`: it is an instance of Good'),
    ("handling", "shop:OnlySends", "OnlySends has no `handling`, which stands around each call of a handler; its `sending` stands around each send of a driver"),
    ("handling", "shop:Misspelt", "Misspelt has no `handling`, which stands around each call of a handler; did you mean \"handle\"?"),
    ("sending", "shop:Coroutine", f"Coroutine.sending is a coroutine, which nothing can happen in the midst of; {CURE}"),
    ("sending", "shop:ReturnsNothing", f"ReturnsNothing.sending returns nothing, and must return an async context manager; {CURE}"),
    ("sending", "shop:NoParameter", "NoParameter.sending is called with one argument, the Outgoing: too many positional arguments"),
    ("sending", "shop:TooMany", "TooMany.sending is called with one argument, the Outgoing: missing a required argument: 'envelope'"),
    ("sending", "shop:Attribute", "Attribute.sending is no method"),
    ("handling", "shop:WrongType", '"incoming" of WrongType.handling is given the Incoming, and cannot be Delivery'),
    ("sending", "shop:WrongSide", '"incoming" of WrongSide.sending is given the Outgoing, and cannot be Incoming'),
    ("sending", "shop:Wants", 'parameter "database" of Wants has no default'),
    ("sending", "shop:WantsIdle", 'parameter "idle" of WantsIdle has no default, and driver/idle is disabled'),
    ("sending", "shop:WantsConfig", 'parameter "config" of WantsConfig has no default, and an interceptor is given no config'),
    ("sending", "shop:WantsAnother", 'parameter "queue" of WantsAnother wants Packer, but driver/queue provides MemoryBroker'),
    ("sending", "shop:WantsItself", "can never start, because each of these waits for the next: driver/orders"),
]  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.delitem(__import__("sys").modules, "shop", raising=False)
    return tmp_path


def manifest(shop: Path, *, sending: str = "", handling: str = "", text: str = MANIFEST) -> Path:
    path = shop / "kernel.toml"
    given = {"SENDING": sending, "HANDLING": handling}
    for name, value in given.items():
        text = text.replace(name, f'"{value}"' if value else "")
    path.write_text(text)
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(PlanError) as caught:
        resolve(load(path, environ={}), discover())
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(("side", "entry", "text"), MISTAKES, ids=lambda value: str(value).partition(":")[2] or None)
def test_a_wrong_entry_is_told_with_its_line(side: str, entry: str, text: str, shop: Path) -> None:
    found = problems(manifest(shop, **{side: entry}))

    [problem] = found
    assert text in problem
    assert f"kernel.toml:{5 if 'never start' in text else SENDING if side == 'sending' else HANDLING}: " in problem


def test_all_mistakes_are_told_at_once(shop: Path) -> None:
    path = manifest(shop, sending='shop:Wants", "shop:Coroutine', handling="shop:WrongType")

    assert [problem.partition("]")[2].partition(":")[0] for problem in problems(path)] == [
        ".interceptors[0]",
        ".interceptors[1]",
        ".interceptors[0]",
    ]


def test_one_that_stands_there_twice_is_told(shop: Path) -> None:
    [problem] = problems(manifest(shop, sending='shop:Good", "shop:Good'))

    assert '.interceptors[1]: "shop:Good" stands in the list already' in problem


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("[drivers.other]\nplugin = \"memory\"", 'have no effect: plugin "memory" sends no messages of its own'),
        ('[dispatchers.web]\nplugin = "web"\nworkers = "declared"', 'have no effect: plugin "web" delivers no messages'),
    ],
    ids=["driver", "dispatcher"],
)  # fmt: skip
def test_where_they_would_stand_around_nothing_is_told(table: str, text: str, shop: Path) -> None:
    path = manifest(shop, text=f'{MANIFEST}\n{table}\ninterceptors = ["shop:Good"]\n')

    assert [problem for problem in problems(path) if text in problem]


def test_good_ones_are_in_the_plan_with_what_they_use(shop: Path) -> None:
    plan = resolve(load(manifest(shop, sending="shop:Good", handling="shop:Good"), environ={}), discover())

    driver, dispatcher = plan.components["driver/orders"], plan.components["dispatcher/incoming"]
    assert isinstance(driver, DriverSpec)
    assert isinstance(dispatcher, DispatcherSpec)
    for spec in (*driver.interceptors, *dispatcher.interceptors):
        assert (spec.name, spec.drivers) == ("shop:Good", {"queue": "driver/queue"})
    assert dispatcher.uses == ("driver/queue",)


def test_those_of_a_service_inside_use_its_own_drivers(shop: Path) -> None:
    manifest(shop, sending="shop:Good", handling="shop:Good").rename(shop / "inner.toml")
    outer = shop / "outer.toml"
    outer.write_text('[kernel]\nname = "outer"\n\n[services.shop]\nmanifest = "inner.toml"\n')

    plan = resolve(load(outer, environ={}), discover())

    used = [
        one.drivers
        for spec in plan.components.values()
        if isinstance(spec, DriverSpec | DispatcherSpec)
        for one in spec.interceptors
    ]
    assert used == [{"queue": "driver/shop/queue"}] * 2
