from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kernel_amqp.core import EncodingError
from kernel_amqp.core.errors import TooDeepError, ViolationError
from kernel_amqp.core.table import MAX_DEPTH, decode_table, encode_table
from pamqp import decode, encode

from .strategies import INT32, INT64, tables, unhurried


def read(data: bytes) -> dict[str, object]:
    table, at = decode_table(data, 0, len(data))
    assert at == len(data)
    return table


def as_pamqp_reads(value: Any) -> Any:
    """What pamqp makes of the same bytes: byte arrays are `bytearray` there."""
    if isinstance(value, bytes):
        return bytearray(value)
    if isinstance(value, list):
        return [as_pamqp_reads(item) for item in value]
    return {key: as_pamqp_reads(item) for key, item in value.items()} if isinstance(value, dict) else value


def as_pamqp_writes(value: Any) -> Any:
    """What can be compared after pamqp has written it: its floats have 32 bits, its byte arrays are `bytearray`."""
    if isinstance(value, list):
        return [as_pamqp_writes(item) for item in value]
    if isinstance(value, dict):
        return {key: as_pamqp_writes(item) for key, item in value.items()}
    return 0.5 if isinstance(value, float) else as_pamqp_reads(value)


def field(kind: str, data: bytes) -> bytes:
    """Return a table with the one field `k`."""
    content = b"\x01k" + kind.encode("latin-1") + data
    return struct.pack(">I", len(content)) + content


def nested(depth: int) -> dict[str, object]:
    table: dict[str, object] = {}
    for _ in range(depth - 1):
        table = {"t": table}
    return table


def nested_on_wire(depth: int, kind: str = "F") -> bytes:
    key = b"\x01t" if kind == "F" else b""
    data = struct.pack(">I", 0)
    for _ in range(depth - 2):
        data = struct.pack(">I", len(key) + 1 + len(data)) + key + kind.encode() + data
    content = b"\x01t" + kind.encode() + data
    return struct.pack(">I", len(content)) + content


@pytest.mark.slow
@unhurried
@given(tables)
def test_any_table_comes_back_as_it_was(table: dict[str, object]) -> None:
    back = read(encode_table(table))

    assert back == table
    assert repr(back) == repr(table)  # also the types: True is not 1, 1 is not 1.0, and the order


@pytest.mark.slow
@unhurried
@given(tables)
def test_pamqp_reads_what_is_written(table: dict[str, object]) -> None:
    data = encode_table(table)

    assert decode.field_table(data) == (len(data), as_pamqp_reads(table))


@pytest.mark.slow
@unhurried
@given(st.dictionaries(st.text(max_size=9), st.text() | st.integers(-INT64, INT64 - 1) | st.booleans() | st.none()))
def test_what_pamqp_writes_is_read(table: dict[str, Any]) -> None:
    assert read(encode.field_table(table)) == table


@pytest.mark.slow
@unhurried
@given(tables)
def test_what_pamqp_writes_of_anything_is_read_as_pamqp_reads_it(table: dict[str, Any]) -> None:
    data = encode.field_table(as_pamqp_writes(table))

    assert as_pamqp_reads(read(data)) == decode.field_table(data)[1]


@pytest.mark.parametrize("kind", "bBsuIilLfdDSATFVx\x00t")
@unhurried
@given(data=st.binary(min_size=8, max_size=40))
@example(data=b"\0" * 8)
@example(data=b"\xff" * 8)
def test_each_type_is_read_as_pamqp_reads_it(kind: str, data: bytes) -> None:
    size = {"b": 1, "B": 1, "s": 2, "u": 2, "I": 4, "i": 4, "f": 4, "D": 5, "t": 1, "V": 0, "\x00": 0}.get(kind, 8)
    if kind in "SAFx":
        data = struct.pack(">I", 0)
        size = 4
    if kind == "T":
        data = bytes(4) + data[:4]
    wire = field(kind, data[:size])

    assert repr(read(wire)["k"]) == repr(decode.field_table(wire)[1]["k"]).replace("bytearray(b'')", "b''")


@unhurried
@given(st.binary(max_size=60))
def test_anything_is_a_table_or_a_violation(data: bytes) -> None:
    try:
        table, at = decode_table(data, 0, len(data))
    except ViolationError:
        return
    assert at <= len(data)
    assert isinstance(table, dict)


@pytest.mark.slow
@unhurried
@given(tables, st.data())
def test_a_table_that_is_cut_is_a_violation(table: dict[str, object], data: st.DataObject) -> None:
    wire = encode_table(table)
    cut = data.draw(st.integers(0, len(wire) - 1))

    with pytest.raises(ViolationError):
        decode_table(wire[:cut], 0, cut)


@pytest.mark.slow
@unhurried
@given(tables, st.data())
def test_a_table_never_reads_beyond_its_end(table: dict[str, object], data: st.DataObject) -> None:
    wire = encode_table(table)
    end = data.draw(st.integers(0, len(wire) - 1))

    with pytest.raises(ViolationError):
        decode_table(wire + b"\xff" * 300, 0, end)


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"\xff\xff\xff\xff", id="longer than everything"),
        pytest.param(struct.pack(">I", 1) + b"\x05", id="key beyond the end"),
        pytest.param(struct.pack(">I", 2) + b"\x01k", id="key without a value"),
        pytest.param(field("z", b""), id="unknown type"),
        pytest.param(field("l", b"\0"), id="number that is cut"),
        pytest.param(field("S", b"\xff\xff\xff\xff"), id="string beyond the end"),
        pytest.param(field("F", b"\0\0\0\x01"), id="table beyond the end"),
        pytest.param(field("A", b"\0\0\0\x01"), id="array beyond the end"),
        pytest.param(field("A", b"\0\0\0\x01S"), id="array whose last value is cut"),
        pytest.param(field("x", b"\0"), id="length that is cut"),
        pytest.param(field("t", b""), id="bool that is cut"),
    ],
)
def test_a_malformed_table_is_a_violation(wire: bytes) -> None:
    with pytest.raises(ViolationError):
        decode_table(wire + b"\0" * 20, 0, len(wire))


def test_a_table_that_ends_with_everything_else_is_a_violation_too() -> None:
    for wire in (field("l", b"\0"), field("D", b"\0"), field("T", b"\0"), field("d", b""), field("t", b"")):
        with pytest.raises(ViolationError):
            read(wire)


def test_a_table_may_nest_up_to_the_bound_in_both_directions() -> None:
    table = nested(MAX_DEPTH)

    assert read(encode_table(table)) == table
    with pytest.raises(EncodingError, match="nests deeper than 32"):
        encode_table(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize("kind", ["F", "A"])
def test_what_nests_deeper_than_the_bound_is_too_deep(kind: str) -> None:
    read(nested_on_wire(MAX_DEPTH, kind))
    with pytest.raises(TooDeepError):
        read(nested_on_wire(MAX_DEPTH + 1, kind))
    with pytest.raises(TooDeepError):
        read(nested_on_wire(10_000, kind))


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"a": 1, "count": 2**63}, '^"count": 9223372036854775808 does not fit into 64 bits$'),
        ({"deep": {"a": [1, -(2**64)]}}, '^"deep": -18446744073709551616 does not fit'),
        ({"huge": 10**5000}, '^"huge": an integer does not fit'),
        ({"rate": float("nan")}, '^"rate": nan is no number'),
    ],
)
def test_what_cannot_be_written_is_named(table: dict[str, object], match: str) -> None:
    with pytest.raises(EncodingError, match=match):
        encode_table(table)


def test_arrays_count_as_depth_when_they_are_written() -> None:
    value: object = []
    for _ in range(MAX_DEPTH):
        value = [value]

    with pytest.raises(EncodingError, match="nests deeper than 32"):
        encode_table({"a": value})


def test_a_table_that_contains_itself_is_refused() -> None:
    table: dict[str, object] = {}
    table["self"] = table

    with pytest.raises(EncodingError, match="nests deeper"):
        encode_table(table)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(INT64, id="65 bits"),
        pytest.param(-INT64 - 1, id="65 bits, negative"),
        pytest.param(10**5000, id="5000 digits"),
        pytest.param(object(), id="any object"),
        pytest.param({1, 2}, id="set"),
        pytest.param(float("nan"), id="no number"),
        pytest.param(float("inf"), id="infinity"),
        pytest.param([{"k": -float("inf")}], id="infinity deep inside"),
        pytest.param(Decimal("NaN"), id="decimal that is no number"),
        pytest.param(Decimal("Infinity"), id="infinite decimal"),
        pytest.param(Decimal(INT32), id="decimal of 33 bits"),
        pytest.param(Decimal("1e99"), id="large decimal"),
        pytest.param(Decimal("1e999999"), id="huge decimal"),
        pytest.param(Decimal("1e-256"), id="decimal with 256 places"),
        pytest.param(datetime(2026, 1, 1), id="time without a zone"),
        pytest.param("\ud800", id="lone surrogate"),
        pytest.param({1: 2}, id="key that is no text"),
        pytest.param({"k" * 256: 2}, id="key that is too long"),
    ],
)
def test_a_value_that_the_wire_cannot_carry_is_refused(value: object) -> None:
    with pytest.raises(EncodingError):
        encode_table({"k": value})


class Number(IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "back"),
    [
        pytest.param((1, 2), [1, 2], id="tuple"),
        pytest.param(OrderedDict(a=1), {"a": 1}, id="derived dict"),
        pytest.param(Number.ONE, 1, id="enum"),
        pytest.param(Text("t"), "t", id="derived str"),
        pytest.param(bytearray(b"b"), b"b", id="bytearray"),
        pytest.param(datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1))), None, id="time of another zone"),
        pytest.param(Decimal("1e3"), Decimal(1000), id="decimal with an exponent"),
        pytest.param(Decimal("-0.00"), Decimal("0.00"), id="negative zero"),
        pytest.param("\udcff", b"\xff", id="what was read as no UTF-8"),
    ],
)
def test_what_is_alike_is_written_as_its_plain_type(value: object, back: object) -> None:
    assert read(encode_table({"k": value})) == {"k": value if back is None else back}


def test_a_mapping_that_is_no_dict_is_a_table() -> None:
    class Own(Mapping[str, object]):
        def __getitem__(self, key: str) -> object:
            return 5

        def __iter__(self) -> Any:
            return iter(["five"])

        def __len__(self) -> int:
            return 1

    assert read(encode_table({"k": Own()})) == {"k": {"five": 5}}


def test_a_string_that_is_no_utf8_is_read_as_bytes() -> None:
    assert read(field("S", b"\0\0\0\x02\xff\xfe")) == {"k": b"\xff\xfe"}


def test_a_key_that_is_no_utf8_comes_back_as_it_was() -> None:
    wire = struct.pack(">I", 3) + b"\x01\xffV"

    assert encode_table(read(wire)) == wire


@pytest.mark.parametrize("seconds", [10**12, (1 << 63) - 1, -(10**12), -(1 << 63)])
def test_a_time_beyond_the_calendar_is_read_as_its_seconds(seconds: int) -> None:
    assert read(field("T", struct.pack(">q", seconds))) == {"k": seconds}


def test_a_decimal_is_exact_whatever_the_context() -> None:
    with localcontext() as context:
        context.prec = 2
        assert read(encode_table({"k": Decimal("12345.678")})) == {"k": Decimal("12345.678")}


@pytest.mark.parametrize("seconds", [-1, -86_400, -62_135_596_800, (1 << 63) - 1, -(1 << 63)])
def test_a_time_that_was_read_can_be_written(seconds: int) -> None:
    value = read(field("T", struct.pack(">q", seconds)))

    assert read(encode_table(value)) == value


def test_a_time_before_1970_is_one() -> None:
    assert read(field("T", struct.pack(">q", -1))) == {"k": datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)}
