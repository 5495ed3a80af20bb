"""What a handler returns is held against its annotation before it is sent, and nobody else is told anything wrong."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal, NamedTuple, NoReturn, TypedDict
from uuid import UUID

import attrs
import pytest

from kernel import Ack, DeadLetter, Outcome, Retry, Return, answers, handles
from kernel._core.spec import WorkerSpec
from kernel._plan.injection import Offer
from kernel._plan.signature import Role, inspect_worker
from kernel.errors import EncodeError, PermanentError, ResultError

from ._feed import parcel, running


@attrs.frozen
class Price:
    amount: int
    _currency: str = "EUR"


@attrs.frozen
class Quote:
    prices: list[Price]
    until: date | None = None


@dataclass
class Point:
    x: int
    y: Any = 0


class Pair(NamedTuple):
    left: int
    right: str


class Wish(TypedDict):
    sku: str


class Colour(enum.Enum):
    RED = "red"


def checks(annotation: object) -> Any:
    async def handler(payload: object) -> object:
        return payload

    handler.__annotations__["return"] = annotation
    return _spec(handler).check_result


def _spec(handler: Any) -> Any:
    shape = inspect_worker(
        handler, role=Role.HANDLER, offer=Offer(drivers={}), report=lambda _, text: pytest.fail(text)
    )
    assert shape is not None
    return shape.handlers[0]


@pytest.mark.parametrize(
    ("annotation", "result"),
    [
        (int, 1),
        (float, 1),
        (None, None),
        (str | None, None),
        (bytes, b"\0"),
        (Decimal, Decimal("1.5")),
        (date, date(2020, 1, 1)),
        (UUID, UUID(int=1)),
        (Colour, Colour.RED),
        (Literal["a"], "a"),
        (list[int], (1, 2)),
        (set[int], {1, 2}),
        (frozenset[int], frozenset({1})),
        (Sequence[int], deque([1])),
        (tuple[int, str], (1, "a")),
        (dict[int, Price], {1: Price(1)}),
        (Mapping[str, object], {"a": object()}),
        (Price, Price(1)),
        (Price, {"amount": 1}),
        (Quote, Quote([Price(1, currency="USD")], date(2020, 1, 1))),
        (list[Price], [Price(1), {"amount": 2}]),
        (Point, Point(1, object())),
        (Pair, Pair(1, "a")),
        (Wish, {"sku": "tea"}),
    ],
)
def test_a_result_as_promised_passes(annotation: object, result: object) -> None:
    checks(annotation)(result)


@pytest.mark.parametrize(
    ("annotation", "result", "problem"),
    [
        (int, "1", 'result: must be an integer, got "1"'),
        (int, None, "result: must be an integer, got null"),
        (int, True, "result: must be an integer, got true"),
        (None, 1, "result: must be null, got 1"),
        (list[int], {1: 2}, "result: must be an array, got an object"),
        (list[int], [1, "2"], 'result[1]: must be an integer, got "2"'),
        (set[int], {"a"}, 'result[0]: must be an integer, got "a"'),
        (dict[str, int], {"a": None}, "result.a: must be an integer, got null"),
        (tuple[int, str], (1,), "result: must be an array of 2, got 1"),
        (Price, Price("1"), 'result.amount: must be an integer, got "1"'),
        (Price, Price(1, currency=5), "result.currency: must be a string, got 5"),
        (Quote, Quote([Price(1), Price(None)]), "result.prices[1].amount: must be an integer, got null"),  # type: ignore[list-item, arg-type]
        (Quote, Quote([], "soon"), 'result.until: must be a date, got "soon"'),
        (list[Price], [{"amount": 1}, {}], "result[1].amount: is missing"),
        (Point, Point("1"), 'result.x: must be an integer, got "1"'),
        (Pair, Pair(1, 2), "result.right: must be a string, got 2"),
        (Wish, {}, "result.sku: is missing"),
        (Colour, "blue", 'result: must be "red", got "blue"'),
    ],
)
def test_a_result_that_is_not_as_promised_names_the_path(annotation: object, result: object, problem: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the texts are compared below
        checks(annotation)(result)

    assert str(caught.value) == problem


@pytest.mark.parametrize("annotation", [Any, object, Outcome, Ack, NoReturn, Ack | Retry, type[Return], Ack | object])
def test_what_promises_nothing_that_is_sent_is_not_checked(annotation: object) -> None:
    assert checks(annotation) is None


@pytest.mark.parametrize("annotation", [int | Retry, Ack | int, int | type[Return] | DeadLetter])
def test_outcomes_are_no_part_of_what_is_promised(annotation: object) -> None:
    checks(annotation)(1)

    with pytest.raises(ValueError, match="must be an integer"):
        checks(annotation)("1")


# --- in the pipeline ----------------------------------------------------------------------------------------------


class Desk:
    called = 0

    @answers("a.wrong")
    async def wrong(self) -> list[int]:
        Desk.called += 1
        return [1, "2"]  # type: ignore[list-item]

    @answers("a.right")
    async def right(self) -> list[int]:
        return [1, 2]

    @answers("a.retry")
    async def retry(self) -> int | Retry:
        return Retry(after=1.0)

    @handles("a.event")
    async def event(self, payload: object) -> None:
        return 5  # type: ignore[return-value]


async def test_a_wrong_result_is_answered_with_an_error_and_not_tried_again() -> None:
    Desk.called = 0
    async with running({"worker": Desk}) as (feed, _):
        outcome = await feed.settle(parcel([], subject="a.wrong", reply_to="me"))

    assert isinstance(outcome, Ack)
    assert outcome.reply is not None
    assert outcome.reply.body == b'ResultError: a.wrong: result[1]: must be an integer, got "2"'
    assert Desk.called == 1


async def test_a_right_result_and_an_outcome_go_their_ways() -> None:
    async with running({"worker": Desk}) as (feed, _):
        right = await feed.settle(parcel([], subject="a.right", reply_to="me"))
        retry = await feed.settle(parcel([], subject="a.retry", reply_to="me"))

    assert isinstance(right, Ack)
    assert right.reply is not None
    assert right.reply.body == b"[1, 2]"
    assert retry == Retry(after=1.0)


async def test_what_nobody_is_answered_with_is_not_checked() -> None:
    async with running({"worker": Desk}) as (feed, _):
        outcome = await feed.settle(parcel({}, subject="a.event"))

    assert outcome == Ack()


def test_the_error_of_a_wrong_result_is_permanent_and_one_of_writing() -> None:
    error = ResultError("a.b", ["result: must be an integer"])

    assert isinstance(error, PermanentError)
    assert isinstance(error, EncodeError)
    assert error.problems == ("result: must be an integer",)


async def test_a_batch_promises_nothing_to_anybody() -> None:
    class Many:
        @handles("a.b")
        async def take(self, payloads: list[int]) -> int:
            return 1

    table: dict[str, object] = {"batch": {"size": 2, "wait": 0.1}}
    async with running({"worker": Many}, **table) as (_, service):
        spec = service.plan.components["worker/worker"]

    assert isinstance(spec, WorkerSpec)
    assert spec.handlers[0].check_result is None
