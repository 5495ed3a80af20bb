"""What is said to fit is read, whatever the types are made of; and what is said not to fit is refused for some value."""

from __future__ import annotations

import enum
import json
import random
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple, NotRequired, Optional, TypedDict, Union
from uuid import UUID

import attrs
import pytest

from kernel import payload_converter, write_json
from kernel._convert.compatible import mismatches


@attrs.frozen
class Line:
    sku: str
    amount: int = 1


@attrs.frozen
class Wide:
    sku: str | None
    amount: float
    note: str = ""


class Wish(TypedDict):
    sku: str
    amount: NotRequired[int]


class Pair(NamedTuple):
    left: int
    right: str


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


ONLY_IN_JSON = (bytes, str)
"""Bytes are text in JSON, and themselves in other protocols."""
Make = Callable[[random.Random], object]
LEAVES: list[tuple[Any, Make]] = [
    (bool, lambda rng: rng.random() < 0.5),
    (int, lambda rng: rng.randint(-5, 50_000)),
    (float, lambda rng: rng.choice([0.5, 1.0, -3.25])),
    (str, lambda rng: rng.choice(["", "red", "ä b", "2020-01-01", "1"])),
    (type(None), lambda _: None),
    (bytes, lambda rng: rng.choice([b"", b"a", b"\0\xff"])),
    (date, lambda _: date(2020, 2, 3)),
    (datetime, lambda rng: datetime(2020, 2, 3, 4, tzinfo=rng.choice([UTC, None]))),
    (Decimal, lambda rng: rng.choice([Decimal("1.5"), Decimal(-7)])),
    (UUID, lambda rng: UUID(int=rng.getrandbits(128))),
    (Colour, lambda rng: rng.choice(list(Colour))),
    (Literal["red", "green"], lambda rng: rng.choice(["red", "green"])),
    (Literal["red"], lambda _: "red"),
    (Line, lambda rng: Line(rng.choice(["", "tea"]), rng.randint(0, 9))),
    (Wide, lambda rng: Wide(rng.choice([None, "tea"]), rng.choice([1.0, 2.5]))),
    (Wish, lambda rng: {"sku": "tea", **({"amount": 2} if rng.random() < 0.5 else {})}),
    (Pair, lambda rng: Pair(rng.randint(0, 9), "x")),
    (object, lambda rng: rng.choice([1, "a", None, [1], {"a": 1}])),
]


def made(rng: random.Random, depth: int) -> tuple[Any, Make]:
    """Return a type, and what makes values of it."""
    kind = rng.randrange(7) if depth else 0
    if kind in {0, 1}:
        return rng.choice(LEAVES)
    inner, make = made(rng, depth - 1)
    if kind == 2:
        return list[inner], lambda rng: [make(rng) for _ in range(rng.randrange(3))]
    if kind == 3:
        return dict[str, inner], lambda rng: {key: make(rng) for key in rng.sample("abc", rng.randrange(3))}
    if kind == 4:
        return Optional[inner], lambda rng: None if rng.random() < 0.3 else make(rng)  # noqa: UP045  as below
    other, make_other = made(rng, depth - 1)
    if kind == 5:
        return tuple[inner, other], lambda rng: (make(rng), make_other(rng))
    return Union[inner, other], lambda rng: rng.choice([make, make_other])(rng)  # noqa: UP007  not every type has `|`


def has_object(annotation: Any) -> bool:
    return annotation is object or any(map(has_object, getattr(annotation, "__args__", ())))


def is_read(annotation: object, values: list[object]) -> list[bool]:
    convert = payload_converter(annotation)

    def reads(value: object) -> bool:
        try:
            convert(json.loads(write_json(value, max_bytes=1_000_000, max_depth=64)))
        except ValueError:
            return False
        return True

    return [reads(value) for value in values]


@pytest.mark.parametrize("seed", range(40))
def test_what_is_said_to_fit_is_read(seed: int) -> None:
    rng = random.Random(seed)
    wrong = []
    for _ in range(60):
        sent, make = made(rng, 3)
        taken, _ = made(rng, 3)
        values = [make(rng) for _ in range(12)]
        if not mismatches(sent, taken) and not all(is_read(taken, values)) and not has_object(sent):
            wrong.append((sent, taken))

    assert wrong == []


@pytest.mark.parametrize("seed", range(40))
def test_a_type_fits_itself_and_what_is_wider(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        sent, _ = made(rng, 3)
        other, _ = made(rng, 2)

        assert mismatches(sent, sent) == []
        assert mismatches(sent, Union[sent, other]) == []  # noqa: UP007  as above
        assert mismatches(sent, object) == []
        assert mismatches(object, sent) == []


@pytest.mark.parametrize("sent", LEAVES, ids=lambda leaf: str(leaf[0]))
@pytest.mark.parametrize("taken", LEAVES, ids=lambda leaf: str(leaf[0]))
def test_of_leaves_that_are_said_not_to_fit_some_value_is_refused(
    sent: tuple[Any, Make], taken: tuple[Any, Make]
) -> None:
    rng = random.Random(0)
    values = [sent[1](rng) for _ in range(40)]
    is_fine = not mismatches(sent[0], taken[0])

    expected = sent[0] is object or (all(is_read(taken[0], values)) and (sent[0], taken[0]) != ONLY_IN_JSON)
    assert is_fine is expected
