"""Every type that stock cattrs or pydantic read from JSON, with the JSON that each writes, is read here or refused in the plan."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import json
import re
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Optional, Required, TypeVar
from uuid import UUID

import annotated_types as at
import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import pytest
import typing_extensions as te
from cattrs.preconf.orjson import make_converter

from kernel import payload_converter, write_json

T = TypeVar("T")
Name = NewType("Name", str)
Alias = te.TypeAliasType("Alias", list[int])
ID = UUID("12345678-1234-5678-1234-567812345678")


class Colour(enum.Enum):
    RED = "red"
    ONE = 1


class Size(enum.Enum):
    SMALL = (1, 2)
    LARGE = (3, 4)


class Loose(enum.Enum):
    A = "a"

    @classmethod
    def _missing_(cls, value: object) -> Loose | None:
        return cls.A if isinstance(value, str) and value.lower() == "a" else None


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.StrEnum):
    ON = "on"


class Right(enum.IntFlag):
    READ = 1
    WRITE = 2


@attrs.frozen
class Item:
    sku: str
    quantity: int = 1


@attrs.frozen
class Private:
    _size: int
    other: int = attrs.field(alias="else_")


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


@dataclasses.dataclass
class WithInit:
    x: dataclasses.InitVar[int]


@attrs.define
class Node:
    value: int
    next: Optional["Node"] = None  # noqa: UP045, UP037 -- as it is written without the future of annotations
    children: list["Node"] = attrs.field(factory=list)  # noqa: UP037


@attrs.frozen
class Box(Generic[T]):
    content: T


class Move(typing.TypedDict):
    to: Item
    speed: NotRequired[int]


class Turn(te.TypedDict, total=False):
    degrees: Required[int]
    fast: te.ReadOnly[bool]


class Pair(NamedTuple):
    a: int
    b: str = "x"


class Model(pydantic.BaseModel):
    name: str = pydantic.Field(alias="theName")
    at: datetime | None = None


@pydantic.dataclasses.dataclass
class Checked:
    size: int


class Struct(msgspec.Struct):
    name: str
    when: date | None = None


class Sku(str):
    __slots__ = ()


class Plain:
    def __init__(self, a: int) -> None:
        self.a = a


class Proto(typing.Protocol):
    a: int


@attrs.frozen
class Cat:
    lives: int
    kind: Literal["cat"] = "cat"


@attrs.frozen
class Dog:
    tricks: list[str]
    kind: Literal["dog"] = "dog"


TYPES: dict[object, object] = {
    bool: True,
    int: 3,
    float: 1.5,
    str: "a",
    None: None,
    Any: {"a": 1},
    object: {"a": 1},
    bytes: b"\x00\xff",
    bytearray: bytearray(b"\x00\xff"),
    Decimal: Decimal("1.50"),
    date: date(2026, 1, 2),
    time: time(3, 4, 5),
    datetime: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    timedelta: timedelta(days=1, seconds=90, microseconds=5),
    UUID: ID,
    Path: Path("/a/b"),
    ipaddress.IPv4Address: ipaddress.IPv4Address("127.0.0.1"),
    ipaddress.IPv6Address: ipaddress.IPv6Address("::1"),
    ipaddress.IPv4Network: ipaddress.IPv4Network("10.0.0.0/8"),
    ipaddress.IPv6Network: ipaddress.IPv6Network("fe80::/64"),
    ipaddress.IPv4Interface: ipaddress.IPv4Interface("10.0.0.1/8"),
    Colour: Colour.RED,
    Size: Size.LARGE,
    Loose: Loose.A,
    Level: Level.LOW,
    Mode: Mode.ON,
    Right: Right.READ | Right.WRITE,
    Literal["a", 1]: 1,
    Literal[Colour.RED]: Colour.RED,
    Name: "a",
    Alias: [1, 2],
    int | None: None,
    int | str: "a",
    int | float: 1.5,
    Cat | Dog: Dog(["sit"]),
    Item | Private: Item("a", 2),
    list: [1, "a"],
    list[int]: [1],
    list[Item]: [Item("a")],
    tuple: (1, 2),
    tuple[int, ...]: (1, 2),
    tuple[int, str]: (1, "a"),
    tuple[()]: (),
    set[int]: {1},
    frozenset[str]: frozenset({"a"}),
    deque[int]: deque([1, 2]),
    Sequence[int]: (1, 2),
    MutableSequence[int]: [1, 2],
    Collection[int]: (1, 2),
    Iterable[int]: (1, 2),
    AbstractSet[int]: frozenset({1}),
    MutableSet[int]: {1},
    dict: {"a": 1},
    dict[str, int]: {"a": 1},
    dict[int, str]: {1: "a"},
    dict[UUID, int]: {ID: 1},
    dict[date, int]: {date(2026, 1, 2): 1},
    dict[Colour, int]: {Colour.RED: 1, Colour.ONE: 2},
    dict[float, int]: {1.5: 1},
    dict[bool, int]: {True: 1},
    dict[Decimal, int]: {Decimal("1.5"): 1},
    dict[str, list[Item]]: {"a": [Item("b")]},
    Mapping[str, int]: {"a": 1},
    MutableMapping[str, int]: {"a": 1},
    OrderedDict[str, int]: OrderedDict(a=1),
    defaultdict[str, int]: defaultdict(int, a=1),
    Counter[str]: Counter("aab"),
    Item: Item("a", 2),
    Private: Private(1, 2),
    Point: Point(1, 2.5),
    WithInit: None,
    Node: Node(1, Node(2), [Node(3)]),
    Box[int]: Box(1),
    Box[list[Item]]: Box([Item("a")]),
    Move: {"to": Item("a"), "speed": 1},
    Turn: {"degrees": 1},
    Pair: Pair(1, "b"),
    Model: Model(theName="a", at=datetime(2026, 1, 2, tzinfo=UTC)),
    Checked: Checked(1),
    Struct: Struct("a", date(2026, 1, 2)),
    Sku: Sku("a"),
    Plain: None,
    Proto: None,
    complex: None,
    Fraction: None,
    re.Pattern: None,
    type: None,
    Annotated[int, at.Gt(0)]: 1,
    Annotated[str, at.Len(1, 3)]: "ab",
    Annotated[int, pydantic.Field(ge=1, le=3)]: 2,
    Annotated[int, msgspec.Meta(ge=1)]: 1,
    Annotated[str, pydantic.AfterValidator(str.upper)]: "A",
    Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]: Cat(9),
    pydantic.PositiveInt: 1,
    pydantic.AnyUrl: pydantic.AnyUrl("http://a.b/"),
    te.LiteralString: "a",
    typing.Hashable: None,
}
REFUSED = [WithInit, Sku, Plain, Proto, complex, Fraction, re.Pattern, type, te.LiteralString, typing.Hashable]
"""What is an error of the plan."""
READ = [annotation for annotation in TYPES if annotation not in REFUSED]


def shown(annotation: object) -> str:
    return str(annotation)[:60]


def by_cattrs(annotation: object, value: object) -> str | None:
    """Return the JSON that cattrs writes and reads again as the same; None if it cannot."""
    converter = make_converter()
    try:
        text = converter.dumps(value, unstructure_as=annotation).decode()
        return text if converter.loads(text, annotation) == value else None
    except Exception:  # noqa: BLE001 -- whatever it is, it does not read it
        return None


def by_pydantic(annotation: object, value: object) -> str | None:
    """Return the JSON that pydantic writes and reads again as the same; None if it cannot."""
    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(annotation)
        text = adapter.dump_json(value, by_alias=True).decode()
        return text if adapter.validate_json(text) == value else None
    except Exception:  # noqa: BLE001 -- whatever it is, it does not read it
        return None


OTHERWISE = {
    (bytes, "cattrs"): "base85, which no other language reads",
    (bytearray, "cattrs"): "base85, which no other language reads",
    (bytes, "pydantic"): "text that is UTF-8",
    (bytearray, "pydantic"): "text that is UTF-8",
    (dict[bool, int], "cattrs"): "True as Python writes it",
    (Private, "cattrs"): "names of fields, not what they are called outside",
}
"""What is written by others in a form that is not read here."""


@pytest.mark.parametrize("library", ["cattrs", "pydantic"])
@pytest.mark.parametrize("annotation", READ, ids=shown)
def test_what_others_write_is_read(annotation: object, library: str) -> None:
    value = TYPES[annotation]
    text = by_cattrs(annotation, value) if library == "cattrs" else by_pydantic(annotation, value)
    if text is None or (annotation, library) in OTHERWISE:
        return

    assert payload_converter(annotation)(json.loads(text)) == value


@pytest.mark.parametrize("annotation", READ, ids=shown)
def test_what_is_written_is_read(annotation: object) -> None:
    value = TYPES[annotation]
    body = write_json(value, max_bytes=1000, max_depth=10)

    made = payload_converter(annotation)(json.loads(body))

    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize("annotation", REFUSED, ids=shown)
def test_what_is_not_on_the_list_is_refused_before_the_start(annotation: object) -> None:
    with pytest.raises(TypeError, match="payloads cannot be converted to"):
        payload_converter(annotation)


def test_the_comparison_has_many_types_and_the_others_read_most_of_them() -> None:
    read = [annotation for annotation in READ if by_cattrs(annotation, TYPES[annotation])]
    validated = [annotation for annotation in READ if by_pydantic(annotation, TYPES[annotation])]

    assert len(TYPES) >= 60
    assert len(read) > 40
    assert len(validated) > 60
