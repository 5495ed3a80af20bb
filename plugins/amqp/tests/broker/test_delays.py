from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_amqp.broker.delays import MAX_DELAY, DelayExchange, DelayQueue, bounded, round_up
from pamqp import commands


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [
        (0.0001, 1),
        (0.001, 1),
        (0.0101, 11),
        (0.099, 99),
        (0.1, 100),
        (0.101, 110),
        (1.0, 1000),
        (1.01, 1100),
        (86_400, 87_000_000),
    ],
)
def test_delays_are_rounded_up_to_two_digits(seconds: float, milliseconds: int) -> None:
    assert round_up(seconds) == milliseconds


@given(st.floats(min_value=1e-6, max_value=MAX_DELAY))
def test_a_rounded_delay_is_never_shorter_and_at_most_a_tenth_longer(seconds: float) -> None:
    milliseconds = round_up(seconds)

    assert seconds * 1000 <= milliseconds
    assert milliseconds <= max(1.0, seconds * 1000 + 1) * 1.1
    assert len(str(milliseconds).rstrip("0")) <= 2


@pytest.mark.parametrize("seconds", [MAX_DELAY * 1.01, float("inf"), float("nan")])
def test_a_delay_that_no_queue_can_hold_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="at most"):
        round_up(seconds)


@given(st.integers(min_value=1, max_value=int(MAX_DELAY * 1000)))
def test_a_classic_queue_outlives_what_is_put_in_last(milliseconds: int) -> None:
    queue = DelayQueue("events", milliseconds, "classic")

    assert queue.expires is not None
    assert queue.lease * 1000 + milliseconds < queue.expires < 2**32


@given(st.integers(min_value=1, max_value=int(MAX_DELAY * 1000)), st.sampled_from(["", "events"]))
def test_a_queue_that_keeps_what_is_refused_never_goes_away(milliseconds: int, target: str) -> None:
    queue = DelayQueue(target, milliseconds, "quorum")
    _, declare, _ = queue.methods()

    assert isinstance(declare, commands.Queue.Declare)
    assert "x-expires" not in (declare.arguments or {})
    assert queue.lease == math.inf


def test_each_delay_exchange_and_kind_has_a_queue_of_its_own() -> None:
    names = {
        DelayQueue(target, milliseconds, kind).name  # type: ignore[arg-type]
        for target in ("", "events", "x" * 250, "y" * 250)
        for milliseconds in (1, 10)
        for kind in ("classic", "quorum")
    }

    assert len(names) == 16
    assert max(map(len, names)) <= 255


def test_the_plugin_leads_to_an_exchange_or_to_a_queue() -> None:
    declare, bind = DelayExchange("events").methods()
    assert isinstance(declare, commands.Exchange.Declare)
    assert (declare.exchange_type, declare.arguments) == ("x-delayed-message", {"x-delayed-type": "fanout"})
    assert isinstance(bind, commands.Exchange.Bind)
    assert (bind.destination, bind.source) == ("events", declare.exchange)
    declare, bind = DelayExchange("", "orders").methods()
    assert isinstance(declare, commands.Exchange.Declare)
    assert declare.arguments == {"x-delayed-type": "direct"}
    assert isinstance(bind, commands.Queue.Bind)
    assert (bind.queue, bind.exchange, bind.routing_key) == ("orders", declare.exchange, "orders")


@pytest.mark.parametrize(
    ("seconds", "wait"),
    [(0.5, 0.5), (MAX_DELAY + 1, MAX_DELAY), (1e300, MAX_DELAY), (math.inf, MAX_DELAY), (math.nan, 0.0), (-1.0, 0.0)],
)
def test_every_wait_is_one_that_the_broker_can_hold(seconds: float, wait: float) -> None:
    assert bounded(seconds) == wait
    assert round_up(bounded(seconds)) >= 1
