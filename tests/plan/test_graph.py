from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel._core.spec import ComponentSpec, Wait
from kernel._plan.graph import FLUSH, dependents, edges_of, find_cycles, start_order, stop_budget

NAMES = "abcdefgh"
EDGES = st.fixed_dictionaries({name: st.lists(st.sampled_from(NAMES), max_size=3) for name in NAMES})


def spec(name: str, *, uses: str = "", after: str = "", stop_timeout: float = 2.0) -> tuple[str, ComponentSpec]:
    return name, ComponentSpec(
        id=name, name=name, where="kernel.toml:1", uses=tuple(uses), after=tuple(after), stop_timeout=stop_timeout
    )


def test_without_edges_the_order_is_that_of_the_manifest() -> None:
    assert start_order({"b": (), "a": (), "c": ()}) == ["b", "a", "c"]


def test_what_is_stood_on_comes_first_and_the_rest_stays_in_place() -> None:
    assert start_order({"a": ("c",), "b": (), "c": (), "d": ()}) == ["b", "c", "a", "d"]


def test_an_edge_given_twice_counts_once() -> None:
    assert start_order({"a": ("b", "b"), "b": ()}) == ["b", "a"]


@given(EDGES)
def test_everything_is_either_started_in_order_or_behind_a_cycle(edges: dict[str, list[str]]) -> None:
    order = start_order(edges)

    assert all(set(edges[name]) <= set(order[: order.index(name)]) for name in order)
    assert (len(order) == len(edges)) is not bool(find_cycles(edges))


@given(EDGES)
def test_every_cycle_found_is_one_and_none_share_an_id(edges: dict[str, list[str]]) -> None:
    cycles = find_cycles(edges)

    assert all(
        after in edges[name] for cycle in cycles for name, after in zip(cycle, cycle[1:] + cycle[:1], strict=True)
    )
    assert len({name for cycle in cycles for name in cycle}) == sum(map(len, cycles))


@given(EDGES)
def test_without_the_cycles_found_nothing_is_tangled(edges: dict[str, list[str]]) -> None:
    gone = {name for cycle in find_cycles(edges) for name in cycle}
    rest = {name: [other for other in below if other not in gone] for name, below in edges.items() if name not in gone}

    assert len(start_order(rest)) == len(rest)


def test_a_cycle_begins_with_what_the_manifest_names_first() -> None:
    assert find_cycles({"a": ("b",), "b": ("c",), "c": ("d",), "d": ("b",)}) == [["b", "c", "d"]]


def test_an_id_that_stands_on_itself_is_a_cycle() -> None:
    assert find_cycles({"a": ("a",)}) == [["a"]]


def test_two_cycles_are_both_found() -> None:
    assert find_cycles({"a": ("b",), "b": ("a",), "c": ("d",), "d": ("c",)}) == [["a", "b"], ["c", "d"]]


def test_a_chain_of_many_thousands_is_no_trouble() -> None:
    edges = {str(number): (str(number + 1),) for number in range(20_000)} | {"20000": ()}

    assert start_order(edges)[0] == "20000"


def test_dependents_are_direct_and_indirect_ones_and_the_id_itself() -> None:
    edges = {"a": (), "b": ("a",), "c": ("b",), "d": ()}

    assert dependents(edges, ["a"]) == ["a", "b", "c"]


def test_dependents_of_a_cycle_end() -> None:
    assert dependents({"a": ("b",), "b": ("a",)}, ["a"]) == ["a", "b"]


def test_edges_are_what_is_used_and_what_comes_before_each_once() -> None:
    assert edges_of(dict([spec("a", uses="bc", after="cd")])) == {"a": ("b", "c", "d")}


def test_with_nothing_to_stop_only_drain_and_flush_count() -> None:
    budget = stop_budget({}, drain_timeout=15.0, grace_period=25.0)

    assert budget.waits == (Wait("drain", 15.0), Wait("flush", FLUSH))
    assert budget.seconds == pytest.approx(15.0 + FLUSH)


def test_independent_components_stop_at_the_same_time() -> None:
    specs = dict([spec("a", stop_timeout=2.0), spec("b", stop_timeout=3.0)])

    budget = stop_budget(specs, drain_timeout=1.0, grace_period=25.0)

    assert budget.waits[1:-1] == (Wait("b", 3.0),)


def test_the_budget_follows_the_slowest_chain_in_stop_order() -> None:
    specs = dict([
        spec("db", stop_timeout=1.0),
        spec("slow", stop_timeout=5.0),
        spec("worker", uses="", after="", stop_timeout=2.0),
    ])
    specs["worker"] = ComponentSpec(id="worker", name="w", where="", uses=("db", "slow"), stop_timeout=2.0)
    specs["source"] = ComponentSpec(id="source", name="s", where="", after=("worker",), stop_timeout=4.0)

    budget = stop_budget(specs, drain_timeout=1.0, grace_period=25.0)

    assert [wait.what for wait in budget.waits] == ["drain", "source", "worker", "slow", "flush"]
    assert budget.seconds == pytest.approx(1.0 + 4.0 + 2.0 + 5.0 + FLUSH)


@given(st.fixed_dictionaries({name: st.sets(st.sampled_from(NAMES)) for name in NAMES}), st.data())
def test_no_chain_is_slower_than_the_budget(links: dict[str, set[str]], data: st.DataObject) -> None:
    seconds = {name: data.draw(st.sampled_from([1.0, 2.0, 5.0])) for name in NAMES}
    below = {name: "".join(sorted(other for other in links[name] if other < name)) for name in NAMES}
    specs = dict(spec(name, uses=below[name], stop_timeout=seconds[name]) for name in NAMES)

    def slowest_from(name: str) -> float:
        return seconds[name] + max(map(slowest_from, below[name]), default=0.0)

    budget = stop_budget(specs, drain_timeout=0.0, grace_period=25.0)

    assert budget.seconds - FLUSH == pytest.approx(max(map(slowest_from, NAMES)))
