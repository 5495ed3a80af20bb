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


def test_a_history_allows_max_restarts_within_its_window_and_no_more() -> None:
    history = RestartHistory(STEADY, lambda: 0.0)

    assert [history.next_wait(time, healthy_for=0.0) for time in (0.0, 1.0, 2.0, 10.0)] == [1.0, 2.0, 4.0, None]


def test_a_refused_restart_is_not_counted() -> None:
    history = RestartHistory(STEADY, lambda: 0.0)
    waits = [history.next_wait(time, healthy_for=0.0) for time in (0.0, 1.0, 2.0, 3.0, 10.5)]

    assert waits == [1.0, 2.0, 4.0, None, 8.0]


def test_a_history_without_restarts_allows_none() -> None:
    assert RestartHistory(RestartPolicy(max_restarts=0), lambda: 0.0).next_wait(0.0, healthy_for=1e9) is None


@pytest.mark.parametrize(("healthy_for", "wait"), [(9.9, 2.0), (10.0, 1.0), (1000.0, 1.0)])
def test_a_healthy_interval_as_long_as_the_window_resets_the_backoff(healthy_for: float, wait: float) -> None:
    history = RestartHistory(STEADY, lambda: 0.0)
    history.next_wait(0.0, healthy_for=0.0)

    assert history.next_wait(100.0, healthy_for=healthy_for) == wait


@given(times=st.lists(st.floats(0, 100), max_size=60).map(sorted), limit=st.integers(0, 5))
def test_no_window_ever_holds_more_than_max_restarts(times: list[float], limit: int) -> None:
    history = RestartHistory(RestartPolicy(max_restarts=limit, window=10.0), lambda: 1.0)
    allowed = [time for time in times if history.next_wait(time, healthy_for=0.0) is not None]

    assert all(sum(time - 10.0 <= one <= time for one in allowed[: n + 1]) <= limit for n, time in enumerate(allowed))


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
