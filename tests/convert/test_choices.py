"""Facts about unions and constraints: which option a value becomes, and what is said if it becomes none."""

from __future__ import annotations

import enum
from decimal import Decimal
from typing import Annotated, Literal, Union
from uuid import UUID

import annotated_types as at
import attrs
import msgspec
import pydantic
import pytest
import typing_extensions as te

from kernel import payload_converter
from kernel.errors import ConversionError

ID = UUID("12345678-1234-5678-1234-567812345678")


class Colour(enum.Enum):
    RED = "red"


@attrs.frozen
class Small:
    a: int


@attrs.frozen
class Large:
    a: int
    b: int = 0


@attrs.frozen
class Cat:
    lives: int
    kind: Literal["cat"] = "cat"


@attrs.frozen
class Dog:
    tricks: list[str]
    kind: Literal["dog"] = "dog"


class SmallModel(pydantic.BaseModel):
    a: int = 0


class LargeModel(pydantic.BaseModel):
    a: int = 0
    b: int = 0


class Hen(msgspec.Struct, tag=True):
    eggs: int


class Cow(msgspec.Struct, tag=True):
    milk: int


@attrs.frozen
class Sum:
    left: Expression
    right: Expression


@attrs.frozen
class Product:
    left: Expression
    right: Expression


Expression = Union[Sum, Product, int]  # noqa: UP007 -- looked up by name
Json = te.TypeAliasType("Json", "dict[str, Json] | list[Json] | str | int | float | bool | None")  # type: ignore[misc]
Pets = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


def problems_of(annotation: object, payload: object) -> list[str]:
    with pytest.raises(ConversionError) as caught:
        payload_converter(annotation)(payload)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("annotation", "payload", "made"),
    [
        (Small | Large, {"a": 1}, Small(1)),
        (Small | Large, {"a": 1, "b": 2}, Large(1, 2)),
        (Large | Small, {"a": 1, "b": 2, "c": 3}, Large(1, 2)),
        (SmallModel | LargeModel, {"a": 1, "b": 2}, LargeModel(a=1, b=2)),
        (dict | Small, {"a": 1}, Small(1)),
        (dict | Small, {"a": 1, "b": 2}, {"a": 1, "b": 2}),
        (dict | Small, {"a": "1"}, {"a": "1"}),
        (Cat | Dog, {"tricks": [], "kind": "dog"}, Dog([])),
        (Cat | Dog, {"lives": 9}, Cat(9)),
        (Pets, {"lives": 9, "kind": "cat"}, Cat(9)),
        (Hen | Cow, {"type": "Cow", "milk": 1}, Cow(1)),
        (str | Colour, "red", Colour.RED),
        (str | Colour, "blue", "blue"),
        (str | UUID, str(ID), str(ID)),
        (bytes | UUID, str(ID), ID),
        (float | int, 1, 1),
        (float | int, 1.0, 1.0),
        (float | str, 1, 1.0),
        (Decimal | int, 1, 1),
        (Decimal | str, "1", "1"),
        (list[int] | list[str], ["a"], ["a"]),
        (object | Small, {"a": 1}, Small(1)),
        (Small | None, None, None),
        (Json, {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
    ],
)
def test_a_union_takes_the_option_that_fits_best(annotation: object, payload: object, made: object) -> None:
    converted = payload_converter(annotation)(payload)

    assert converted == made
    assert type(converted) is type(made)


@pytest.mark.parametrize(
    ("annotation", "payload", "problems"),
    [
        (Cat | Dog, {"kind": "cat", "lives": "9"}, ['lives: must be an integer, got "9"']),
        (Cat | Dog, {"kind": "cow"}, ['kind: must be "cat" or "dog", got "cow"']),
        (Pets, {"lives": 9}, ['kind: is missing; it must be "cat" or "dog"']),
        (list[Cat | Dog], [{"kind": "dog", "tricks": [1]}], ["[0].tricks[0]: must be a string, got 1"]),
        (Small | Cat | None, {"lives": "9"}, ['lives: must be an integer, got "9"']),
        (Small | Cat, [], ["must be an object, got an array"]),
        (SmallModel | int, {"a": "x"}, ["a: Input should be a valid integer, unable to parse string as an integer"]),
        (list[int] | int, ["x"], ['[0]: must be an integer, got "x"']),
        (list[int] | list[bool], [1, "x"], ['[1]: must be an integer, got "x"']),
        (
            Json,
            {"a": [ID]},
            ["a[0]: must be an object, an array, a string, an integer, a number or true or false, got UUID"],
        ),
    ],
)
def test_a_union_says_what_is_wrong_in_the_option_that_was_meant(
    annotation: object, payload: object, problems: list[str]
) -> None:
    assert problems_of(annotation, payload) == problems


def test_a_tag_that_tells_nothing_apart_is_an_error_of_the_plan() -> None:
    with pytest.raises(TypeError, match='"kind" tells the options of a union not apart'):
        payload_converter(Annotated[Small | Large, pydantic.Field(discriminator="kind")])


def test_options_that_contain_their_union_are_not_all_tried_at_each_depth() -> None:
    value: object = "wrong"
    for _ in range(60):
        value = {"left": value, "right": 1}

    [problem] = problems_of(Expression, value)

    assert problem.startswith("left.left.left.")
    assert problem.endswith('got "wrong"')


@pytest.mark.parametrize(
    ("annotation", "good", "bad", "problem"),
    [
        (Annotated[int, at.Gt(0)], 1, 0, "must be more than 0, got 0"),
        (Annotated[int, at.Ge(1)], 1, 0, "must be at least 1, got 0"),
        (Annotated[int, at.Lt(1)], 0, 1, "must be less than 1, got 1"),
        (Annotated[int, at.Le(1)], 1, 2, "must be at most 1, got 2"),
        (Annotated[int, at.Interval(ge=1, lt=3)], 2, 3, "must be less than 3, got 3"),
        (Annotated[int, at.MultipleOf(5)], 10, 11, "must be a multiple of 5, got 11"),
        (Annotated[str, at.Len(1, 3)], "abc", "abcd", "must have a length of at most 3, got 4"),
        (Annotated[list[int], at.MinLen(1)], [1], [], "must have a length of at least 1, got 0"),
        (Annotated[str, at.Predicate(str.isupper)], "A", "a", 'must satisfy isupper, got "a"'),
        (Annotated[int, pydantic.Field(gt=0)], 1, -1, "must be more than 0, got -1"),
        (Annotated[str, pydantic.Field(pattern="^a")], "ab", "b", 'must match ^a, got "b"'),
        (Annotated[int, msgspec.Meta(ge=1)], 1, 0, "must be at least 1, got 0"),
        (Annotated[int | None, at.Gt(0)], None, 0, "must be more than 0, got 0"),
        (list[Annotated[int, at.Gt(0)]], [1], [1, 0], "[1]: must be more than 0, got 0"),
        (pydantic.PositiveInt, 1, 0, "must be more than 0, got 0"),
    ],
)
def test_constraints_are_checked(annotation: object, good: object, bad: object, problem: str) -> None:
    assert payload_converter(annotation)(good) == good
    assert problems_of(annotation, bad) == [problem]


def test_what_only_pydantic_understands_is_read_by_it() -> None:
    shouted = Annotated[str, pydantic.AfterValidator(str.upper)]

    assert payload_converter(dict[str, shouted])({"a": "b"}) == {"a": "B"}
    assert problems_of(list[shouted], [1]) == ["[0]: Input should be a valid string"]


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ("NaN", 'must be a decimal number in a string, got "NaN"'),
        ("Infinity", 'must be a decimal number in a string, got "Infinity"'),
        ("1_0", 'must be a decimal number in a string, got "1_0"'),
        ("1e1000000", 'must be a decimal number in a string, got "1e1000000"'),
        ("9" * 5000, f'must be a decimal number in a string, got "{"9" * 60}..."'),
    ],
)
def test_a_decimal_is_a_finite_number_as_people_write_it(payload: str, problem: str) -> None:
    assert problems_of(Decimal, payload) == [problem]


@pytest.mark.parametrize(
    ("annotation", "key"),
    [(int, "01"), (int, "true"), (int, "1.0"), (bool, "True"), (float, "1_0"), (int, "9" * 5000), (int, "[" * 100_000)],
)
def test_a_key_is_read_as_json_writes_it(annotation: type, key: str) -> None:
    [problem] = problems_of(dict[annotation, int], {key: 1})

    assert "must be" in problem


def test_keys_that_mean_the_same_are_refused() -> None:
    assert problems_of(dict[Decimal, int], {"1.0": 1, "1.00": 2}) == ["has two keys that mean the same"]
