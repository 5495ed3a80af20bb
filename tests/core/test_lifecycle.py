"""The table of states."""

from __future__ import annotations

import pytest

from kernel._core.lifecycle import ALIVE, FINAL, TRANSITIONS, USABLE, State, moved

EVERY_MOVE = [(old, new) for old in State for new in State]
ALLOWED = [(old, new) for old, new in EVERY_MOVE if new in TRANSITIONS[old]]
FORBIDDEN = [move for move in EVERY_MOVE if move not in ALLOWED]


def named(state: State) -> str:
    return state.value


@pytest.mark.parametrize(("old", "new"), ALLOWED, ids=named)
def test_an_allowed_move_arrives(old: State, new: State) -> None:
    assert moved(old, new) is new


@pytest.mark.parametrize(("old", "new"), FORBIDDEN, ids=named)
def test_any_other_move_is_refused_by_both_names(old: State, new: State) -> None:
    with pytest.raises(ValueError, match=f"from {old.value} to {new.value}"):
        moved(old, new)


def test_every_state_can_be_reached_and_every_life_can_end() -> None:
    assert set(TRANSITIONS) == set(State)
    assert set(State) == reachable(State.CREATED)
    assert all(FINAL & reachable(state) for state in State)


def test_nothing_follows_a_final_state_and_only_those_are_final() -> None:
    assert {state for state, following in TRANSITIONS.items() if not following} == set(FINAL)


def test_only_ready_and_degraded_go_back_and_forth() -> None:
    both_ways = {old for old, new in ALLOWED if old in ALIVE and new in ALIVE and (new, old) in ALLOWED}

    assert both_ways == set(USABLE)


def test_what_is_usable_is_alive_and_what_is_final_is_not() -> None:
    assert USABLE < ALIVE
    assert not FINAL & ALIVE


def reachable(start: State) -> set[State]:
    found, todo = {start}, [start]
    while todo:
        new = TRANSITIONS[todo.pop()] - found
        found |= new
        todo += new
    return found
