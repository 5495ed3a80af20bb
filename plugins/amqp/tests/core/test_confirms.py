from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_amqp.core.confirms import Confirms
from kernel_amqp.core.errors import ViolationError

from .strategies import unhurried

STEPS = st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.integers(0, 3)), max_size=30)


@pytest.mark.slow
@unhurried
@given(STEPS)
def test_each_number_is_told_once_and_when_it_is_confirmed(steps: list[tuple[int, bool, int]]) -> None:
    """Against the plain model: a set of numbers."""
    confirms, told = Confirms(published=3), set[int]()
    for number, multiple, more in steps:
        confirms.published += more
        if number > confirms.published or (number == 0 and not multiple):
            with pytest.raises(ViolationError):
                confirms.settle(number, multiple=multiple)
            continue
        wanted = set(range(1, (number or confirms.published) + 1)) if multiple else {number}
        ranges = confirms.settle(number, multiple=multiple)

        now = [each for first, last in ranges for each in range(first, last + 1)]
        assert now == sorted(wanted - told)
        told |= wanted


def test_a_batch_over_what_was_confirmed_before_leaves_that_out() -> None:
    confirms = Confirms(published=6)

    assert confirms.settle(2, multiple=False) == [(2, 2)]
    assert confirms.settle(4, multiple=False) == [(4, 4)]
    assert confirms.settle(5, multiple=True) == [(1, 1), (3, 3), (5, 5)]
    assert confirms.settle(0, multiple=True) == [(6, 6)]


def test_a_number_that_was_confirmed_before_is_not_told_again() -> None:
    confirms = Confirms(published=3)

    assert confirms.settle(2, multiple=True) == [(1, 2)]
    assert confirms.settle(1, multiple=False) == []
    assert confirms.settle(2, multiple=True) == []


@pytest.mark.parametrize(("number", "multiple"), [(0, False), (4, False), (4, True), (1 << 63, True)])
def test_a_number_that_no_message_has_is_a_violation(number: int, multiple: bool) -> None:
    with pytest.raises(ViolationError, match="of 3"):
        Confirms(published=3).settle(number, multiple=multiple)


def test_what_is_kept_is_only_what_is_ahead() -> None:
    confirms = Confirms(published=100_000)
    for number in range(2, 100_001):
        confirms.settle(number, multiple=False)
    assert len(confirms._ahead) == 99_999

    confirms.settle(1, multiple=False)

    assert not confirms._ahead
