from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest

from kernel import Secret
from kernel._convert.imports import NotImportableError, import_object
from kernel._core.policies import Restart
from kernel._core.spec import DispatcherSpec, DriverSpec, Plan, Strategy, WorkerSpec
from kernel._manifest.manifest import Manifest, from_mapping, load
from kernel._manifest.registry import Plugin, Registry
from kernel._manifest.values import toml_text
from kernel._plan.plan import resolve
from kernel.errors import PlanError

MANIFESTS = Path(__file__).parent / "manifests"
LOOP = {"workers": {"w": {"use": "good_small:sweep"}}}


@pytest.fixture
def registry() -> Registry:
    found = import_object("fake_plugins:REGISTRY", directory=MANIFESTS)
    assert isinstance(found, Registry)
    return found


@pytest.fixture
def plan(registry: Registry) -> Plan:
    return resolve(load(MANIFESTS / "good" / "everything.toml", environ={"PASSWORD": "correct horse"}), registry)


def manifest(tables: Mapping[str, object]) -> Manifest:
    return from_mapping(tables, directory=MANIFESTS / "good")


def problems(tables: Mapping[str, object], registry: Registry, directory: Path = MANIFESTS / "good") -> list[str]:
    with pytest.raises(PlanError) as caught:
        resolve(from_mapping(tables, directory=directory), registry)
    return [f"{problem.path}: {problem.text}" for problem in caught.value.problems]


def worker(plan: Plan, name: str) -> WorkerSpec:
    spec = plan.components[f"worker/{name}"]
    assert isinstance(spec, WorkerSpec)
    return spec


def test_whatever_a_component_stands_on_comes_before_it(plan: Plan) -> None:
    order = list(plan.components)

    late = [
        spec.id for spec in plan.components.values() if {*spec.uses, *spec.after} - {*order[: order.index(spec.id)]}
    ]

    assert not late


def test_a_disabled_component_is_left_out_and_its_plugin_not_needed(plan: Plan) -> None:
    assert "driver/spare" not in plan.components


def test_a_driver_knows_what_it_uses(plan: Plan) -> None:
    spec = plan.components["driver/events"]

    assert isinstance(spec, DriverSpec)
    assert (spec.driver, spec.protocol, spec.uses) == ("driver/queue", "plain", ("driver/queue",))


def test_a_dispatcher_comes_after_its_workers_and_uses_its_driver(plan: Plan) -> None:
    spec = plan.components["dispatcher/orders"]

    assert isinstance(spec, DispatcherSpec)
    assert (spec.workers, spec.after, spec.uses) == (("fulfil",), ("worker/fulfil",), ("driver/queue",))
    assert spec.concurrency == 4


def test_options_for_a_broker_are_structured_by_its_driver(plan: Plan) -> None:
    spec = plan.components["dispatcher/orders"]

    assert isinstance(spec, DispatcherSpec)
    assert repr(spec.config) == "SourceConfig(queue='orders', priority=False, options=QueueOptions(lazy=True))"


def test_a_protocol_is_declared_or_only_named(plan: Plan) -> None:
    assert {name: type(spec.config).__name__ for name, spec in plan.protocols.items()} == {
        "wire": "FramedConfig",
        "plain": "NoConfig",
    }


def test_a_worker_is_given_drivers_by_name_and_by_mapping(plan: Plan) -> None:
    spec = worker(plan, "fulfil")

    assert spec.drivers == {"store": "driver/db", "events": "driver/events"}
    assert spec.uses == ("driver/db", "driver/events")


def test_a_workers_config_is_made_by_its_annotation(plan: Plan) -> None:
    spec = worker(plan, "fulfil")

    assert (spec.config_parameter, repr(spec.config)) == ("config", "Config(warehouse='berlin', shelves=3)")


def test_retry_names_become_exceptions(plan: Plan) -> None:
    spec = worker(plan, "fulfil")

    assert [error.__name__ for error in spec.retry.on] == ["OSError", "BusyError"]
    assert spec.retry.attempts == 5


def test_a_worker_comes_after_its_failure_worker(plan: Plan) -> None:
    assert worker(plan, "fulfil").after == ("worker/rescue",)
    assert [handler.patterns for handler in worker(plan, "rescue").handlers] == [("#",)]


def test_the_restart_table_is_the_components_own(plan: Plan) -> None:
    assert worker(plan, "fulfil").restart.policy is Restart.ON_FAILURE
    assert worker(plan, "loop").restart.policy is Restart.ALWAYS


def test_a_worker_without_dispatcher_runs(plan: Plan) -> None:
    assert (worker(plan, "sweep").runs, worker(plan, "sweep").is_function) == (True, True)
    assert (worker(plan, "loop").runs, worker(plan, "loop").is_context) == (True, True)


def test_a_hosted_function_keeps_the_parameters_that_its_dispatcher_gives(plan: Plan) -> None:
    spec = worker(plan, "page")

    assert (spec.handlers, spec.drivers, repr(spec.options)) == ((), {}, "PageOptions(path='/shop')")


def test_members_of_a_group_start_in_the_order_of_the_list(plan: Plan) -> None:
    [group] = plan.groups

    assert (group.strategy, group.members) == (Strategy.ONE_FOR_ALL, ("worker/sweep", "worker/loop"))
    assert worker(plan, "loop").after == ("worker/sweep",)


def test_depends_counts_as_use(plan: Plan) -> None:
    assert worker(plan, "loop").uses == ("driver/queue",)
    assert "driver/db" in plan.components["dispatcher/clock"].uses


def test_the_budget_names_its_waits(plan: Plan) -> None:
    assert [wait.what for wait in plan.budget.waits] == [
        "drain",
        "dispatcher/orders",
        "worker/fulfil",
        "driver/events",
        "driver/queue",
        "flush",
    ]


def test_every_value_says_where_it_is_from(plan: Plan) -> None:
    shown = {value.path: (value.shown, value.origin.rpartition("/")[2]) for value in plan.values()}

    assert shown["[kernel].name"] == ('"shop"', "everything.toml:2")
    assert shown["[drivers.db].pool"] == ("5", "default")
    assert shown["[drivers.queue].plugin"] == ('"queue"', "default")
    assert shown["[drivers.db].tags"] == ('["a", "b"]', "everything.toml:10")
    assert shown["[drivers.db].password"] == ("***", "everything.toml:9 ($PASSWORD)")
    assert shown["[workers.fulfil.restart].policy"] == ('"on_failure"', "everything.toml:56")
    assert shown["[workers.fulfil.config].shelves"] == ("3", "default")
    assert shown["[workers.rescue].dispatcher"] == ("none", "default")


def test_no_value_shows_a_secret_or_the_password_in_a_url(plan: Plan) -> None:
    text = "\n".join(value.shown for value in plan.values())

    assert "correct horse" not in text
    assert '"store://***@host/shop"' in text


def test_the_service_is_named_after_the_folder_of_its_manifest(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "7 fine shops!"
    folder.mkdir()
    (folder / "loops_of_a_shop.py").write_text("async def loop() -> None: ...\n")

    plan = resolve(from_mapping({"workers": {"w": {"use": "loops_of_a_shop:loop"}}}, directory=folder), registry)

    assert plan.name == "fine_shops_"


def test_the_folder_of_the_manifest_is_on_the_path_only_while_importing(registry: Registry) -> None:
    before = list(sys.path)

    resolve(manifest(LOOP), registry)

    assert sys.path == before


def test_a_plain_config_may_hold_secrets(registry: Registry) -> None:
    tables = {"workers": {"w": {"use": "bad_workers:Free", "config": {"token": Secret("correct horse")}}}}

    plan = resolve(from_mapping(tables, directory=MANIFESTS / "bad"), registry)

    assert worker(plan, "w").config == {"token": Secret("correct horse")}
    assert [value.shown for value in plan.values() if value.path == "[workers.w.config].token"] == ["***"]


def test_an_entry_point_may_be_a_worker(registry: Registry) -> None:
    tables = {"dispatchers": {"tick": {}}, "workers": {"w": {"use": "echo", "dispatcher": "tick"}}}

    plan = resolve(manifest(tables), registry)

    assert [handler.method for handler in worker(plan, "w").handlers] == ["__call__"]


def test_a_syntax_error_is_one_problem_with_its_place(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "unfinished_code.py").write_text("async def loop():\n    x = = 1\n")

    [problem] = problems({"workers": {"w": {"use": "unfinished_code:loop"}}}, registry, tmp_path)

    assert problem.startswith('[workers.w].use: cannot import "unfinished_code": unfinished_code.py:2: invalid syntax')


def test_an_error_without_a_text_is_still_a_problem(registry: Registry, tmp_path: Path) -> None:
    code = "class Mute(Exception):\n    def __str__(self):\n        raise RuntimeError\n\n\nraise Mute\n"
    (tmp_path / "mute_code.py").write_text(code)

    [problem] = problems({"workers": {"w": {"use": "mute_code:loop"}}}, registry, tmp_path)

    assert problem.endswith("mute_code.py:6: Mute: (its text cannot be made)")


def test_a_cycle_is_found_although_a_plugin_is_missing(registry: Registry) -> None:
    drivers = {"a": {"plugin": "nothing", "depends": ["b"]}, "b": {"plugin": "queue", "depends": ["a"]}}

    found = problems({**LOOP, "drivers": drivers}, registry)

    assert any("driver/a -> driver/b -> driver/a" in text for text in found)
    assert any("no installed distribution" in text for text in found)


def test_a_wrong_stop_timeout_proves_nothing_about_the_budget(registry: Registry) -> None:
    tables = {**LOOP, "kernel": {"drain_timeout": 24.0}, "drivers": {"queue": {"stop_timeout": 0}}}

    assert problems(tables, registry) == [
        "[drivers.queue].stop_timeout: must be a finite number of seconds above 0, got 0.0"
    ]


def test_a_budget_that_just_fits_is_accepted(registry: Registry) -> None:
    plan = resolve(manifest({**LOOP, "kernel": {"grace_period": 18.0, "drain_timeout": 15.0}}), registry)

    assert plan.budget.seconds == pytest.approx(plan.grace_period)


def test_workers_without_backoff_need_no_delay(registry: Registry) -> None:
    tables = {
        "drivers": {"q": {"plugin": "poor_queue"}},
        "dispatchers": {"source": {"driver": "q", "protocol": "plain", "queue": "x"}},
        "workers": {"w": {"use": "echo", "dispatcher": "source", "retry": {"backoff_initial": 0.0}}},
    }

    assert worker(resolve(manifest(tables), registry), "w").retry.attempts == 3


def test_options_may_be_absent_for_any_broker(registry: Registry) -> None:
    tables = {
        "drivers": {"q": {"plugin": "queue"}},
        "dispatchers": {"source": {"driver": "q", "protocol": "plain", "queue": "x"}},
        "workers": {"w": {"use": "echo", "dispatcher": "source"}},
    }

    spec = resolve(manifest(tables), registry).components["dispatcher/source"]

    assert isinstance(spec, DispatcherSpec)
    assert "options=None" in repr(spec.config)


def test_a_worker_whose_entry_point_breaks_is_a_problem() -> None:
    broken = Plugin(kind="worker", name="broken", distribution="shop", version="1", value="no_such_module:Worker")

    [problem] = problems({"workers": {"w": {"use": "broken"}}}, Registry((broken,)))

    assert problem.startswith("[workers.w].use: worker broken of shop==1")


def test_a_value_that_toml_does_not_know_is_shown_as_its_type() -> None:
    assert toml_text(object()) == "object"
    assert toml_text(date(2026, 1, 2)) == "2026-01-02"
    assert toml_text((KeyError, json.dumps)) == '["builtins:KeyError", "json:dumps"]'
    assert toml_text([{"a b": Secret("x")}, float("inf"), {}]) == '[{ "a b" = *** }, inf, {}]'


def test_a_module_can_be_found_without_a_folder() -> None:
    assert import_object("json:JSONDecoder.decode", directory=None) is json.JSONDecoder.decode


def test_an_error_in_a_library_is_placed_where_the_code_beside_the_manifest_called_it(tmp_path: Path) -> None:
    (tmp_path / "far_code.py").write_text("import json\njson.loads('[')\n")

    with pytest.raises(NotImportableError, match=r": far_code.py:2: JSONDecodeError"):
        import_object("far_code:x", directory=tmp_path)


def test_an_empty_service_is_a_plan_with_nothing_in_it(registry: Registry) -> None:
    plan = resolve(manifest({"kernel": {"name": "idle"}}), registry)

    assert not plan.components


TICKS = {"dispatchers": {"tick": {}}, "workers": {"w": {"use": "echo", "dispatcher": "tick"}}}


@pytest.mark.parametrize(
    ("tables", "is_idle"),
    [
        ({}, True),
        ({"drivers": {"a": {"plugin": "queue"}}}, True),
        ({"workers": {"w": {"use": "good_small:sweep", "enabled": False}}}, True),
        (LOOP, False),
        ({"workers": {"w": {"use": "good_small:sweep", "main": True}}}, False),
        (TICKS, False),
    ],
    ids=["empty", "drivers alone", "disabled", "a loop", "main", "a dispatcher"],
)
def test_one_in_which_nothing_runs_is_warned_of(registry: Registry, tables: dict[str, object], is_idle: bool) -> None:
    plan = resolve(manifest({"kernel": {"name": "idle"}, **tables}), registry)

    assert [warning.path for warning in plan.warnings] == ["[kernel]"] * is_idle


@pytest.mark.parametrize(
    ("not_essential", "warned"),
    [
        ("", []),
        ("w", []),
        ("bw", []),
        ("abw", []),
        ("b", ["[drivers.b].essential"]),
        ("a", ["[drivers.a].essential"]),
        ("ab", ["[drivers.a].essential", "[drivers.b].essential"]),
        ("aw", ["[drivers.a].essential"]),
    ],
)
def test_what_keeps_nothing_going_though_it_is_not_essential_is_warned_of(
    registry: Registry, not_essential: str, warned: list[str]
) -> None:
    """`b` uses `a`, and `w` uses `b`."""
    tables = {
        "drivers": {"a": {"plugin": "queue"}, "b": {"plugin": "queue", "depends": ["driver/a"]}},
        "workers": {"w": {"use": "good_small:sweep", "depends": ["driver/b"]}},
    }
    for name in not_essential:
        section = tables["drivers"] if name in tables["drivers"] else tables["workers"]
        section[name]["essential"] = False

    plan = resolve(manifest(tables), registry)

    assert [warning.path for warning in plan.warnings] == warned


@pytest.mark.parametrize("table", ["plains", "plai", "plain_2"])
def test_a_protocol_is_its_plugin_also_where_a_table_is_called_nearly_so(registry: Registry, table: str) -> None:
    tables = {
        "protocols": {table: {"plugin": "framed", "size": 4}},
        "drivers": {"queue": {"plugin": "queue"}},
        "dispatchers": {"orders": {"plugin": "source", "driver": "queue", "protocol": "plain", "queue": "orders"}},
        "workers": {"w": {"use": "good_small:sweep"}},
    }

    [problem] = problems(tables, registry)

    assert "has no worker" in problem
