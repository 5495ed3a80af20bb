from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from kernel_amqp.broker.delivery import AmqpDelivery
from kernel_amqp.broker.shelf import OrderedShelf, PlainShelf
from kernel_amqp.core import Delivered, Properties


def delivery(text: str, *, priority: int = 0) -> AmqpDelivery:
    """A delivery whose first letter is its key; one that begins with a dash has none."""
    nobody: Any = None
    headers: dict[str, object] | None = None if text.startswith("-") else {"key": text[0]}
    properties = Properties(headers=headers, priority=priority)
    return AmqpDelivery(Delivered(1, "kernel", 1, False, "", "q", properties, text.encode()), nobody)


def text_of(taken: AmqpDelivery | None) -> str:
    return "" if taken is None else taken.event.body.decode()


def shelf(*texts: str, prefetch: int = 100) -> OrderedShelf:
    ordered = OrderedShelf("header:key", prefetch)
    for text in texts:
        ordered.put(delivery(text))
    return ordered


def take(ordered: OrderedShelf) -> AmqpDelivery:
    taken = ordered.take()
    assert taken is not None
    return taken


async def test_a_plain_shelf_is_first_come_first_served() -> None:
    plain = PlainShelf()
    for text in ("a1", "a2", "b1"):
        plain.put(delivery(text))

    assert [text_of(plain.take()) for _ in range(4)] == ["a1", "a2", "b1", ""]


async def test_the_second_of_a_key_waits_for_the_first() -> None:
    ordered = shelf("a1", "a2", "b1", "-1", "-2")
    first = take(ordered)

    assert [text_of(ordered.take()) for _ in range(4)] == ["b1", "-1", "-2", ""]
    ordered.release(first)
    assert text_of(ordered.take()) == "a2"


async def test_no_more_are_taken_than_may_be() -> None:
    ordered = shelf("a1", "b1", "c1", prefetch=2)
    first, _ = take(ordered), take(ordered)

    assert ordered.take() is None
    ordered.release(first)
    assert text_of(ordered.take()) == "c1"


async def test_what_waits_for_a_retry_keeps_its_key_and_gives_up_its_place(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ordered = shelf("a1", "a2", "b1", prefetch=1)
    ordered.put_back(take(ordered).next(attempts=1), after=5.0)
    assert text_of(ordered.take()) == "b1"
    assert ordered.due == float("inf"), "nothing may be taken while one is under way"
    await trio.sleep(5.0)
    assert ordered.take() is None
    ordered.release(delivery("-"))

    again = take(ordered)
    assert (text_of(again), again.attempt, again.redelivered) == ("a1", 2, True)


async def test_what_is_returned_comes_first_of_its_key_and_counts_no_attempt() -> None:
    ordered = shelf("a1", "a2")
    ordered.put_back(take(ordered).next(attempts=0), after=0.0)
    again = take(ordered)

    assert (text_of(again), again.attempt, again.redelivered) == ("a1", 1, True)


async def test_priority_counts_between_keys_only() -> None:
    ordered = OrderedShelf("header:key", 10)
    for text, priority in (("a1", 0), ("a2", 9), ("b1", 9)):
        ordered.put(delivery(text, priority=priority))
    first, second = take(ordered), take(ordered)
    ordered.release(second)

    assert (text_of(first), text_of(second), text_of(ordered.take())) == ("b1", "a1", "a2")


@given(st.lists(st.sampled_from(["a", "b", "c", "-"]), max_size=30), st.data())
async def test_a_cleared_shelf_gives_back_everything_in_order(keys: list[str], data: st.DataObject) -> None:
    texts = [f"{key}{number:02}" for number, key in enumerate(keys)]
    ordered = shelf(*texts)
    taken = [text_of(ordered.take()) for _ in range(data.draw(st.integers(0, 5)))]

    assert [text_of(left) for left in ordered.clear()] == [text for text in texts if text not in taken]


@given(st.lists(st.sampled_from(["a", "b", "-"]), max_size=20), st.randoms())
async def test_keys_keep_their_order_whatever_becomes_of_deliveries(keys: list[str], chance: Any) -> None:
    texts = [f"{key}{number:02}" for number, key in enumerate(keys)]
    ordered, running, done = shelf(*texts), list[AmqpDelivery](), list[str]()
    while len(done) < len(texts):
        while (taken := ordered.take()) is not None:
            assert taken.key is None or taken.key not in {other.key for other in running}
            running.append(taken)
        ended = running.pop(chance.randrange(len(running)))
        if chance.random() < 0.3:
            ordered.put_back(ended.next(attempts=1), after=0.0)
        else:
            done.append(text_of(ended))
            ordered.release(ended)

    for key in "ab":
        assert [text for text in done if text[0] == key] == [text for text in texts if text[0] == key]


@pytest.mark.parametrize("order", ["a1 a2", "a2 a1"])
async def test_equal_keys_are_told_by_arrival_alone(order: str) -> None:
    first, second = order.split()
    ordered = shelf(first, second)

    assert text_of(ordered.take()) == first
    assert ordered.take() is None
