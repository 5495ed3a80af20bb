"""Facts about converting payloads."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NewType, NotRequired, Required, TypedDict, TypeVar
from uuid import UUID

import annotated_types
import attrs
import pydantic
import pytest
from attrs import validators as v
from hypothesis import given
from hypothesis import strategies as st

from kernel._convert.payload import payload_converter
from kernel.errors import ConversionError, DecodeError

T = TypeVar("T")
ID = UUID("12345678-1234-5678-1234-567812345678")
Name = NewType("Name", str)


class Color(enum.Enum):
    RED = "red"
    ONE = 1


@attrs.frozen
class Item:
    sku: str
    quantity: int = attrs.field(default=1, validator=v.ge(1))


@attrs.frozen
class Order:
    id: UUID
    items: tuple[Item, ...] = ()
    note: str | None = None
    _hidden: int = 0


@attrs.frozen
class Gift:
    id: UUID
    giver: str


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: float = 0.0


@attrs.frozen
class Node:
    value: int
    children: list[Node] = attrs.field(factory=list["Node"])


@attrs.frozen
class Box(Generic[T]):
    content: T


class Move(TypedDict):
    to: Point
    speed: NotRequired[int]


class Partial(TypedDict, total=False):
    a: Required[int]
    b: int


class Strict:
    """Validates itself, as pydantic's models do."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Strict) and other.value == self.value

    def __hash__(self) -> int:
        return 0

    @classmethod
    def model_validate(cls, value: object) -> Strict:
        match value:
            case Strict():
                return value
            case "good":
                return cls(value)
            case "plain":
                raise ValueError("no details")
            case _:
                raise StrictError(value)


class StrictError(ValueError):
    def errors(self) -> list[dict[str, object]]:
        return [{"loc": ("a", 0), "msg": "bad"}, {"loc": (), "msg": "worse " + "x" * 1000}]


def nested(depth: int) -> dict[str, object]:
    node: dict[str, object] = {"value": depth}
    for value in range(depth):
        node = {"value": value, "children": [node]}
    return node


def problems_of(annotation: object, payload: object) -> tuple[str, ...]:
    with pytest.raises(ConversionError) as caught:
        payload_converter(annotation)(payload)
    assert str(caught.value) == "; ".join(caught.value.problems)
    return caught.value.problems


# --- what is taken ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "payload", "expected"),
    [
        (bool, True, True),
        (int, 1, 1),
        (float, 1, 1.0),
        (str, "a", "a"),
        (Name, "a", "a"),
        (Annotated[str, "doc"], "a", "a"),
        (None, None, None),
        (bytes, b"a", b"a"),
        (datetime, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (datetime, datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
        (date, "2026-01-02", date(2026, 1, 2)),
        (time, "03:04", time(3, 4)),
        (Decimal, "1.50", Decimal("1.50")),
        (Decimal, 2, Decimal(2)),
        (Decimal, Decimal(3), Decimal(3)),
        (UUID, str(ID), ID),
        (UUID, ID, ID),
        (Color, "red", Color.RED),
        (Color, Color.ONE, Color.ONE),
        (Literal["a", Color.RED], "red", Color.RED),
        (int | None, None, None),
        (int | None, 1, 1),
        (int | float, 1.5, 1.5),
        (float | int, 1, 1),
        (datetime | str, "2026", "2026"),
        (list[int] | int | None, None, None),
        (list[Item] | Item, [{"sku": "a"}], [Item("a")]),
        (list, (1, "a"), [1, "a"]),
        (list[int], (1, 2), [1, 2]),
        (Sequence[int], [1], (1,)),
        (tuple[int, ...], [1], (1,)),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[Color], ["red", "red"], {Color.RED}),
        (frozenset[int], [1], frozenset({1})),
        (dict, {"a": [1]}, {"a": [1]}),
        (dict[str, Item], {"a": {"sku": "b"}}, {"a": Item("b")}),
        (Mapping[Color, int], {"red": 1}, {Color.RED: 1}),
        (dict[UUID, int], types.MappingProxyType({str(ID): 1}), {ID: 1}),
        (Order, {"id": str(ID)}, Order(ID)),
        (Order, {"id": str(ID), "items": [{"sku": "a"}], "hidden": 2}, Order(ID, (Item("a"),), None, 2)),
        (Order, Order(ID), Order(ID)),
        (Item, {"sku": "a", "unknown": 1}, Item("a")),
        (Point, {"x": 1, "y": 2, "unknown": 1}, Point(1, 2.0)),
        (Node, nested(20), None),
        (list[Node], [nested(20)], None),
        (Box[int], {"content": 1}, Box(1)),
        (Move, {"to": {"x": 1}, "unknown": 1}, {"to": Point(1)}),
        (Move, {"to": {"x": 1}, "speed": 2}, {"to": Point(1), "speed": 2}),
        (Partial, {"a": 1}, {"a": 1}),
        (Order | Gift, {"id": str(ID), "giver": "a"}, Gift(ID, "a")),
        (Order | Gift, {"id": str(ID)}, Order(ID)),
        (Strict, "good", Strict("good")),
        (list[Strict], ["good"], [Strict("good")]),
    ],
)
def test_payloads_become_what_is_asked_for(annotation: object, payload: object, expected: object) -> None:
    converted = payload_converter(annotation)(payload)

    if expected is not None:
        assert converted == expected
        assert type(converted) is type(expected)


@pytest.mark.parametrize("annotation", [Any, object, inspect.Parameter.empty])
def test_no_particular_type_takes_the_payload_itself(annotation: object) -> None:
    payload = {"a": object()}

    assert payload_converter(annotation)(payload) is payload


def test_a_type_inside_itself_is_filled_at_every_depth() -> None:
    converted = payload_converter(Node)(nested(3))

    assert converted == Node(2, [Node(1, [Node(0, [Node(3)])])])


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "payload", "problems"),
    [
        (bool, 1, ["must be true or false, got 1"]),
        (int, True, ["must be an integer, got true"]),
        (int, "2", ['must be an integer, got "2"']),
        (float, "2", ['must be a number, got "2"']),
        (float, 10**400, ["must be a number, got a huge integer"]),
        (str, None, ["must be a string, got null"]),
        (str, b"abc", ["must be a string, got 3 bytes"]),
        (None, 1, ["must be null, got 1"]),
        (bytes, "a", ['must be bytes as base64 in a string, got "a"']),
        (datetime, "yesterday", ['must be a date and time, got "yesterday"']),
        (datetime, 1, ["must be a date and time, got 1"]),
        (date, "2026-02-30", ['must be a date, got "2026-02-30"']),
        (date, datetime(2026, 1, 2, tzinfo=UTC), ["must be a date, got 2026-01-02T00:00:00+00:00"]),
        (Decimal, 1.5, ["must be a decimal number in a string, got 1.5"]),
        (Decimal, True, ["must be a decimal number in a string, got true"]),
        (Decimal, "x", ['must be a decimal number in a string, got "x"']),
        (UUID, "x", ['must be a UUID in a string, got "x"']),
        (Color, "blue", ['must be "red" or 1, got "blue"']),
        (Color, True, ['must be "red" or 1, got true']),
        (Literal[1, "a"], True, ['must be 1 or "a", got true']),
        (int | str, None, ["must be an integer or a string, got null"]),
        (Order | Gift | None, {}, ["id: is missing"]),
        (Item | str, {"sku": 1}, ["sku: must be a string, got 1"]),
        (list[int], "abc", ['must be an array, got "abc"']),
        (list[int], {"a": 1}, ["must be an array, got an object"]),
        (list[int], [1, "a", None], ['[1]: must be an integer, got "a"', "[2]: must be an integer, got null"]),
        (tuple[int, str], [1], ["must be an array of 2, got 1"]),
        (tuple[int, str], 1, ["must be an array, got 1"]),
        (tuple[int, str], ["a", 1], ['[0]: must be an integer, got "a"', "[1]: must be a string, got 1"]),
        (dict[str, int], [], ["must be an object, got an array"]),
        (
            dict[str, int],
            {"a": "b", "c d": 1.5},
            ['a: must be an integer, got "b"', '"c d": must be an integer, got 1.5'],
        ),
        (dict[Color, int], {"red": 1, "blue": 2}, ['blue: must be "red" or 1, got "blue"']),
        (dict[str, int], {1: 1}, ["1: must be a string, got 1"]),
        (Order, [], ["must be an object, got an array"]),
        (Order, {}, ["id: is missing"]),
        (Point, {"y": "a"}, ["x: is missing", 'y: must be a number, got "a"']),
        (Move, {"speed": "a"}, ["to: is missing", 'speed: must be an integer, got "a"']),
        (Partial, {}, ["a: is missing"]),
        (Move, 1, ["must be an object, got 1"]),
        (Item, {"sku": "a", "quantity": 0}, ["quantity: must be at least 1, got 0"]),
        (Strict, "plain", ["no details"]),
        (Node, {"value": 1, "children": [{"value": "a"}]}, ['children[0].value: must be an integer, got "a"']),
    ],
)
def test_other_payloads_are_refused(annotation: object, payload: object, problems: list[str]) -> None:
    assert list(problems_of(annotation, payload)) == problems


def test_every_problem_is_listed_with_its_path() -> None:
    payload = {
        "id": "x",
        "items": [{"sku": 1, "quantity": "2"}, {"sku": "a", "quantity": 0}, 3, {}],
        "note": 5,
    }

    assert problems_of(Order, payload) == (
        'id: must be a UUID in a string, got "x"',
        "items[0].sku: must be a string, got 1",
        'items[0].quantity: must be an integer, got "2"',
        "items[1].quantity: must be at least 1, got 0",
        "items[2]: must be an object, got 3",
        "items[3].sku: is missing",
        "note: must be a string, got 5",
    )


def test_a_self_validating_model_names_its_places() -> None:
    assert problems_of(list[Strict], ["good", "canary"]) == ("[1].a[0]: bad", f"[1]: worse {'x' * 294}...")


def test_at_most_twenty_problems_are_listed() -> None:
    problems = problems_of(list[int], ["x"] * 1000)

    assert len(problems) == 21
    assert problems[-1] == "and more"


def test_the_exact_number_of_problems_allowed_is_listed_in_full() -> None:
    assert len(problems_of(list[int], ["x"] * 20)) == 20


def test_a_payload_is_never_shown_whole() -> None:
    canary = "canary" * 100_000

    @attrs.frozen
    class Picky:
        a: str = attrs.field(validator=v.in_(["x"]))
        b: str = ""

        def __attrs_post_init__(self) -> None:
            raise ValueError(self.b)

    assert len(str(problems_of(dict[str, int], {canary: canary}))) < 300
    assert len(str(problems_of(Picky, {"a": canary}))) < 300
    assert len(str(problems_of(Picky, {"a": "x", "b": canary}))) < 400


def no_canary(_owner: object, _field: object, value: object) -> None:
    raise ValueError(f"'password' must not be {value!r}, nor \"{value}\"")


@attrs.frozen
class Login:
    password: int = 0
    api_key: Literal["a", "b"] = "a"
    token: Annotated[str, annotated_types.MaxLen(3)] = ""
    client_secret: UUID | None = None
    db_passwd: tuple[int, ...] = ()
    passphrase: str = attrs.field(default="", validator=v.optional(v.matches_re("x+")))
    pwd: object = attrs.field(default=None, validator=v.optional(no_canary))


class Model(pydantic.BaseModel):
    password: int = 0
    secret: str = ""

    @pydantic.field_validator("secret")
    @classmethod
    def refuse(cls, value: str) -> str:
        if value:
            raise ValueError(f"no {value!r}")
        return value


@pytest.mark.parametrize("of", [Login, Model, dict[str, Login], list[Login | None]], ids=str)
@pytest.mark.parametrize("value", ["canary", ["canary"], {"canary": "canary"}], ids=repr)
def test_what_stands_under_a_key_that_is_called_like_a_secret_is_not_told(of: Any, value: object) -> None:
    """Its sender made a mistake, which is logged, kept with the dead letter and answered: none of these may hold it."""
    convert = payload_converter(of)
    for key in ("password", "secret") if of is Model else attrs.fields_dict(Login):
        payload: Any = {key: value}
        if of not in {Login, Model}:
            payload = {"a": payload} if of == dict[str, Login] else [payload]
        with pytest.raises(ConversionError, match=key) as caught:
            convert(payload)

        assert "canary" not in str(caught.value)


def test_what_was_raised_inside_is_not_chained() -> None:
    with pytest.raises(ConversionError) as caught:
        payload_converter(int)("canary")

    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_whatever_a_constructor_raises_is_a_conversion_error() -> None:
    @attrs.frozen
    class Fragile:
        a: int

        def __attrs_post_init__(self) -> None:
            raise LookupError("gone")

    assert problems_of(Fragile, {"a": 1}) == ("LookupError: gone",)
    assert problems_of(list[Fragile], [{"a": 1}]) == ("[0]: LookupError: gone",)


def test_what_cannot_be_hashed_is_a_conversion_error() -> None:
    assert problems_of(set, [[]]) == ("TypeError: unhashable type: 'list'",)


def test_fields_without_a_type_take_anything() -> None:
    cls = attrs.make_class("Loose", ["a"])

    assert payload_converter(cls)({"a": [1]}) == cls([1])


@pytest.mark.parametrize("annotation", [Node, list[Node], dict[str, Node]])
def test_what_contains_itself_is_read_to_a_depth_of_64(annotation: object) -> None:
    wrap: Callable[[object], object] = {Node: lambda node: node, list[Node]: lambda node: [node]}.get(
        annotation, lambda node: {"a": node}
    )

    assert payload_converter(annotation)(wrap(nested(30)))
    assert problems_of(annotation, wrap(nested(500))) == ("must not be nested more than 64 deep",)


def test_conversion_errors_are_decode_errors_and_value_errors() -> None:
    error = ConversionError(["a: x", "b: y"])

    assert isinstance(error, DecodeError)
    assert isinstance(error, ValueError)
    assert (str(error), error.problems) == ("a: x; b: y", ("a: x", "b: y"))


# --- annotations that cannot be served ----------------------------------------------------------------------------


class Unresolved:
    pass


@attrs.frozen
class Dangling:
    x: Nowhere  # type: ignore[name-defined]  # noqa: F821 -- the fault


@pytest.mark.parametrize("annotation", ["Order", T, Box, Dangling, list["Order"], 3, dict[list[int], int]])
def test_an_annotation_that_no_payload_can_become_is_a_type_error(annotation: object) -> None:
    with pytest.raises(TypeError, match="payloads cannot be converted to"):
        payload_converter(annotation)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(["id", "items"]), inner),
    max_leaves=15,
)
CONVERTERS = [payload_converter(annotation) for annotation in (Order, Point, Node, Order | Gift, Move, dict[str, Item])]


@pytest.mark.slow
@given(st.sampled_from(CONVERTERS), JSON)
def test_any_json_converts_or_is_a_short_conversion_error(convert: Callable[[object], object], payload: object) -> None:
    try:
        convert(payload)
    except ConversionError as exc:
        text = str(exc)
    else:
        text = ""

    assert len(text) < 21 * 400
    assert text.isprintable()
