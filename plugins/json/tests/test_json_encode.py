"""Values of the service: how they are written, and how a mistake is named."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections import deque
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import NamedTuple, TypedDict
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_json import JsonConfig, JsonProtocol

from kernel import Message, Secret
from kernel.errors import EncodeError


@attrs.frozen
class Item:
    name: str
    price: object


@dataclasses.dataclass
class Order:
    items: list[Item]


class Row(TypedDict):
    a: int


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"
    BLUE = 3


@attrs.frozen
class Hidden:
    _size: int
    other: int = attrs.field(alias="called")


class Level(enum.IntEnum):
    HIGH = 3


class Model:
    def model_dump(self, *, mode: str) -> dict[str, str]:
        return {"mode": mode}


class Broken:
    def model_dump(self, *, mode: str) -> object:
        raise KeyError(mode)


def encode(payload: object, *, protocol: JsonProtocol | None = None) -> bytes:
    return (protocol or JsonProtocol()).encode(Message(subject="s", payload=payload)).body


def circle() -> list[object]:
    value: list[object] = []
    value.append({"again": value})
    return value


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("payload", "body"),
    [
        ({"b": 1, "a": [1.5, None, True, "é"]}, '{"a":[1.5,null,true,"é"],"b":1}'),
        (Order([Item("x", Decimal("1.50"))]), '{"items":[{"name":"x","price":"1.50"}]}'),
        (Row(a=1), '{"a":1}'),
        (Point(1, 2), "[1,2]"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), '"2026-01-02T03:04:05+00:00"'),
        (date(2026, 1, 2), '"2026-01-02"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        ([Colour.RED, Level.HIGH], '["red",3]'),
        ({"b", "a", "c"}, '["a","b","c"]'),
        (frozenset({3, 20}), "[20,3]"),
        (MappingProxyType({"a": deque([1])}), '{"a":[1]}'),
        (Model(), '{"mode":"json"}'),
        ({1: "one"}, '{"1":"one"}'),
        ({Colour.RED: b"one", Colour.BLUE: bytearray(b"\xff")}, '{"3":"/w==","red":"b25l"}'),
        ({UUID(int=1): {date(2026, 1, 2): timedelta(seconds=-1.5)}}, f'{{"{UUID(int=1)}":{{"2026-01-02":"-PT1.5S"}}}}'),
        (Hidden(1, 2), '{"called":2,"size":1}'),
        (PurePosixPath("/a"), '"/a"'),
        (IPv4Address(1), '"0.0.0.1"'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_written(payload: object, body: str) -> None:
    assert encode(payload) == body.encode()


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"a": [1, float("nan")]}, r"^payload\.a\[1\]: is nan"),
        (Order([Item("x", object())]), r"^payload\.items\[0\]\.price: object cannot be written"),
        (Order([Item("x", Secret("hunter2"))]), r"^payload\.items\[0\]\.price: a Secret is never written"),
        ({"price": Decimal("NaN")}, r"^payload\.price: ValueError: is NaN, which is not a number of JSON"),
        ({Colour.RED: 1, "red": 2}, r"^payload: has two keys that are written alike"),
        (["\ud800"], r"^payload\[0\]: holds a lone surrogate"),
        ({"\ud800": 1}, r"^payload: a key holds a lone surrogate"),
        ({"n": 10**4300}, r"^payload\.n: is an integer of more than 4300 digits"),
        ({1: "a", "1": "b"}, r"^payload: has keys that are strings and keys that are not"),
        ({"a": {(1, 2): 3}}, r"^payload\.a: a key is a tuple"),
        (circle(), r"^payload\[0\]\.again: contains itself"),
        (nested(65), "more than max_depth = 64"),
        (nested(100_000), "nested too deep|RecursionError"),
        ({"a": Broken()}, r"^payload\.a: KeyError"),
        ({"a": Item}, r"^payload\.a: type cannot be written"),
    ],
)
def test_what_cannot_be_written_is_named_with_its_place(payload: object, text: str) -> None:
    with pytest.raises(EncodeError, match=text) as raised:
        encode(payload)

    assert "hunter2" not in str(raised.value)


def test_a_payload_over_the_limit_is_refused() -> None:
    with pytest.raises(EncodeError, match="more than max_bytes = 10"):
        encode("x" * 20, protocol=JsonProtocol(config=JsonConfig(max_bytes=10)))


def test_the_envelope_says_what_it_carries() -> None:
    envelope = JsonProtocol().encode(Message(subject="a.b", payload=1, headers={"k": "v"}))

    assert (envelope.subject, envelope.content_type, envelope.headers) == ("a.b", "application/json", {"k": "v"})


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    SCALARS | NUMBERS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=8
)
ANYTHING = st.recursive(
    SCALARS | st.binary(max_size=3) | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.integers() | st.text(max_size=3), inner),
    max_leaves=8,
)


@pytest.mark.slow
@given(PLAIN)
def test_what_is_written_is_read_back(payload: object) -> None:
    protocol = JsonProtocol()

    envelope = protocol.encode(Message(subject="s", payload=payload))

    assert protocol.decode(envelope).payload == payload


@pytest.mark.slow
@given(ANYTHING)
def test_any_value_is_written_readably_or_refused(payload: object) -> None:
    protocol = JsonProtocol()
    try:
        envelope = protocol.encode(Message(subject="s", payload=payload))
    except EncodeError:
        return
    assert protocol.decode(envelope).payload == json.loads(envelope.body)
