"""Facts about workers that dispatchers find: which they are, where they are from, and what a table says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import kernel
from kernel._manifest.registry import Registry
from kernel._plan.plan import resolve
from kernel.errors import PlanError

MANIFEST = """
[drivers.queue]
plugin = "memory"
[dispatchers.orders]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "orders"
{workers}
"""
CLASS = """
from kernel import handles
class {name}:
    dispatcher = "{dispatcher}"
    @handles("{subject}")
    async def handle(self, message): ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "shop"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text(CLASS.format(name="PackOrder", dispatcher="orders", subject="a"))
    (package / "other.py").write_text(
        CLASS.format(name="Other", dispatcher="elsewhere", subject="b")
        + "\nfrom shop import PackOrder\nclass Sub(PackOrder): ...\n"
    )
    (package / "deep" / "__init__.py").write_text("")
    (package / "deep" / "in_it.py").write_text(
        CLASS.format(name="Deep", dispatcher="orders", subject="c") + '\n    name = "deep_one"\n'
    )
    (tmp_path / "broken.py").write_text("raise OSError('no tea')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(folder: Path, workers: str, registry: Registry | None = None) -> kernel.Plan:
    (folder / "kernel.toml").write_text(MANIFEST.format(workers=workers))
    return resolve(kernel.load("kernel.toml", environ={}), registry or kernel.discover())


def workers_of(plan: kernel.Plan) -> list[str]:
    return [id_ for id_ in plan.components if id_.startswith("worker/")]


def test_workers_that_name_the_dispatcher_are_found_with_their_places(folder: Path) -> None:
    plan = planned(folder, 'workers = "shop"')

    assert sorted(workers_of(plan)) == ["worker/deep_one", "worker/pack_order"]
    origins = {value.path: (value.shown, value.origin) for value in plan.values()}
    assert origins["[workers.pack_order].use"] == ('"shop:PackOrder"', "found in shop")
    assert origins["[workers.deep_one].use"] == ('"shop.deep.in_it:Deep"', "found in shop.deep.in_it")


def test_none_are_found_where_they_are_declared(folder: Path) -> None:
    declared = '[workers.one]\nuse = "shop:PackOrder"\ndispatcher = "orders"'

    assert workers_of(planned(folder, declared)) == ["worker/one"]


def test_a_table_multiplies_or_leaves_out(folder: Path) -> None:
    tables = 'workers = "shop"\n[workers.pack_order]\ninstances = 3\n[workers.deep_one]\nenabled = false'
    plan = planned(folder, tables)

    [spec] = [plan.components[id_] for id_ in workers_of(plan)]
    assert (spec.id, getattr(spec, "instances", 0)) == ("worker/pack_order", 3)
    assert {value.path: value.origin for value in plan.values()}["[workers.pack_order].instances"] == "kernel.toml:11"


def test_installed_workers_are_found(folder: Path) -> None:
    class Installed:
        dispatcher = "orders"

        @kernel.handles("x")
        async def handle(self, message: object) -> None: ...

    class Elsewhere(Installed):
        pass

    found = Registry.of({"workers": {"mine": Installed, "other": Elsewhere}})
    registry = Registry((*kernel.discover().plugins, *found.plugins))

    assert workers_of(planned(folder, 'workers = "installed"', registry)) == ["worker/mine"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("shopp", 'cannot look for workers in "shopp": ModuleNotFoundError'),
        ("broken", 'cannot look for workers in "broken": OSError: no tea'),
        ("shop:Pack", 'must be "declared", "installed" or the name of a module'),
        ("shop.other", "has no worker"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(folder: Path, where: str, expected: str) -> None:
    with pytest.raises(PlanError, match=rf"kernel.toml:\d+: .*{expected}"):
        planned(folder, f'workers = "{where}"')


@pytest.mark.parametrize(
    ("named", "told"), [("order", True), ("ordres", True), ("orders", False), ("elsewhere", False), ("bills", False)]
)
def test_a_class_that_almost_names_a_dispatcher_is_warned_of(folder: Path, named: str, told: bool) -> None:
    (folder / "shop" / "late.py").write_text(CLASS.format(name="Late", dispatcher=named, subject="z"))

    plan = planned(folder, 'workers = "shop"\n[dispatchers.bills]\nplugin = "consumer"\nenabled = false')

    text = f'[dispatchers.orders].workers: "shop.late:Late" is no worker: there is no dispatcher "{named}"; did you mean "orders"?'
    assert [str(warning).partition(": ")[2] for warning in plan.warnings] == [text] * told


def test_it_is_told_with_the_error_if_it_is_the_only_one(folder: Path) -> None:
    (folder / "alone.py").write_text(CLASS.format(name="Late", dispatcher="ordres", subject="z"))

    with pytest.raises(PlanError, match=r'"alone:Late" is no worker: .*did you mean "orders"'):
        planned(folder, 'workers = "alone"')
