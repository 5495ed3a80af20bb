"""When a component is started again, and after how long. Source: OTP supervisor(3)."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel._core.policies import Ending, Restart, RestartHistory, RestartPolicy, Verdict, backoff, verdict

STEADY = RestartPolicy(
    jitter=0.0, backoff_initial=1.0, backoff_factor=2.0, backoff_max=10.0, max_restarts=3, window=10.0
)


@pytest.mark.parametrize(
    ("ending", "always", "on_failure", "never"),
    [
        (Ending.RETURNED, Verdict.RESTART, Verdict.STOP, Verdict.STOP),
        (Ending.RAISED, Verdict.RESTART, Verdict.RESTART, Verdict.FAIL),
        (Ending.NOT_READY, Verdict.RESTART, Verdict.RESTART, Verdict.FAIL),
        (Ending.REFUSED, Verdict.FAIL, Verdict.FAIL, Verdict.FAIL),
        (Ending.RECALLED, Verdict.RESUME, Verdict.RESUME, Verdict.RESUME),
        (Ending.RETIRED, Verdict.STOP, Verdict.STOP, Verdict.STOP),
    ],
)
def test_the_restart_table(ending: Ending, always: Verdict, on_failure: Verdict, never: Verdict) -> None:
    """Source: OTP permanent, transient, temporary; as `docs/reference/manifest.md` has it."""
    assert [verdict(restart, ending) for restart in Restart] == [always, on_failure, never]


def test_backoff_grows_by_its_factor_up_to_its_maximum() -> None:
    assert [backoff(STEADY, attempt, 0.0) for attempt in range(1, 7)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_backoff_without_an_initial_wait_is_none() -> None:
    assert backoff(RestartPolicy(backoff_initial=0.0, backoff_factor=1e300), 1000, 0.0) == 0.0


@pytest.mark.parametrize("attempt", [65, 2_000, 10**9])
@pytest.mark.parametrize("factor", [1.0, 2.0, 1e6, 1e300, math.inf])
def test_backoff_does_not_overflow(attempt: int, factor: float) -> None:
    wait = backoff(RestartPolicy(backoff_factor=factor, backoff_initial=0.5), attempt, 0.0)

    assert wait == (0.5 if factor == 1.0 else 30.0)


@given(
    attempt=st.integers(1, 10_000),
    chance=st.floats(0, 1),
    jitter=st.floats(0, 1),
    initial=st.floats(0, 1e6),
    factor=st.floats(1, 1e12),
    longest=st.floats(0, 1e6),
)
def test_jitter_only_takes_off_its_share(
    attempt: int, chance: float, jitter: float, initial: float, factor: float, longest: float
) -> None:
    policy = RestartPolicy(jitter=jitter, backoff_initial=initial, backoff_factor=factor, backoff_max=longest)
    full = backoff(policy, attempt, 0.0)

    assert 0.0 <= full * (1 - jitter) <= backoff(policy, attempt, chance) <= full <= longest


@given(factor=st.floats(1, 1e12), initial=st.floats(0, 1e6))
def test_backoff_never_shrinks(factor: float, initial: float) -> None:
    policy = RestartPolicy(backoff_initial=initial, backoff_factor=factor, backoff_max=1e9)
    waits = [backoff(policy, attempt, 0.0) for attempt in range(1, 100)]

    assert all(one <= other for one, other in pairwise(waits))


def test_a_history_allows_max_restarts_in_a_row_and_no_more() -> None:
    history = RestartHistory(STEADY, lambda: 0.0)

    assert [history.next_wait(healthy_for=9.9) for _ in range(5)] == [1.0, 2.0, 4.0, None, None]


def test_a_history_without_restarts_allows_none() -> None:
    assert RestartHistory(RestartPolicy(max_restarts=0), lambda: 0.0).next_wait(healthy_for=1e9) is None


@pytest.mark.parametrize(("healthy_for", "wait"), [(9.9, 2.0), (10.0, 1.0), (1000.0, 1.0)])
def test_a_healthy_interval_as_long_as_the_window_ends_a_row(healthy_for: float, wait: float) -> None:
    history = RestartHistory(STEADY, lambda: 0.0)
    history.next_wait(healthy_for=0.0)

    assert history.next_wait(healthy_for=healthy_for) == wait


@given(
    healthy=st.lists(st.floats(0, 20), max_size=60),
    limit=st.integers(0, 5),
    window=st.floats(0.1, 20),
    initial=st.floats(0, 100),
)
def test_no_row_is_longer_than_max_restarts_whatever_the_waits(
    healthy: list[float], limit: int, window: float, initial: float
) -> None:
    policy = RestartPolicy(max_restarts=limit, window=window, backoff_initial=initial, backoff_max=1000.0)
    history = RestartHistory(policy, lambda: 1.0)
    allowed = [history.next_wait(healthy_for=seconds) is not None for seconds in healthy]
    rows = [[]]
    for seconds, is_allowed in zip(healthy, allowed, strict=True):
        rows = [*rows, []] if seconds >= window else rows
        rows[-1].append(is_allowed)

    assert all(row == [True] * min(limit, len(row)) + [False] * max(0, len(row) - limit) for row in rows)


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_by_default_an_outage_of_two_minutes_is_survived_and_one_of_three_is_not(chance: float) -> None:
    history = RestartHistory(RestartPolicy(), lambda: chance)
    waits = []
    while (wait := history.next_wait(healthy_for=0.0)) is not None:
        waits.append(wait)

    assert 120.0 < sum(waits) < 180.0
    assert max(waits) == pytest.approx(RestartPolicy().backoff_max * (1 - 0.1 * chance))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_restarts": -1},
        {"window": 0.0},
        {"backoff_initial": -0.1},
        {"backoff_factor": 0.9},
        {"backoff_max": -1.0},
        {"jitter": 1.1},
        {"jitter": -0.1},
        {"window": math.nan},
    ],
    ids=str,
)
def test_a_policy_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RestartPolicy(**wrong)
