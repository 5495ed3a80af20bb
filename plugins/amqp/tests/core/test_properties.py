from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_amqp.core import EncodingError, Properties
from kernel_amqp.core.errors import TooDeepError, ViolationError
from kernel_amqp.core.properties import decode_properties, encode_properties
from pamqp import commands, header

from .strategies import properties, unhurried
from .test_table import as_pamqp_reads, nested_on_wire

FIELDS = [field.name for field in attrs.fields(Properties)]


def read(data: bytes) -> Properties:
    return decode_properties(data, 0, len(data))


def in_pamqp(fields: dict[str, Any]) -> dict[str, Any]:
    """The same properties by the names and types of pamqp."""
    fields = dict(fields)
    if "type" in fields:
        fields["message_type"] = fields.pop("type")
    if "timestamp" in fields:
        fields["timestamp"] = datetime.fromtimestamp(fields["timestamp"], UTC)
    return fields


@pytest.mark.slow
@unhurried
@given(properties)
def test_any_properties_come_back_as_they_were(fields: dict[str, Any]) -> None:
    given_ones = Properties(**fields)

    assert attrs.astuple(read(encode_properties(given_ones))) == attrs.astuple(given_ones)


@pytest.mark.slow
@unhurried
@given(properties)
def test_pamqp_reads_what_is_written(fields: dict[str, Any]) -> None:
    theirs = header.ContentHeader()

    theirs.unmarshal(b"\0\x3c\0\0" + bytes(8) + encode_properties(Properties(**fields)))

    expected = commands.Basic.Properties(**in_pamqp(fields))
    if expected.headers is not None:
        expected.headers = as_pamqp_reads(expected.headers)
    assert dict(theirs.properties) == dict(expected)


@pytest.mark.slow
@unhurried
@given(properties)
def test_what_pamqp_writes_is_read(fields: dict[str, Any]) -> None:
    fields.pop("headers", None)  # whose floats and integers pamqp writes otherwise: test_table
    fields = {name: value for name, value in fields.items() if value != ""}  # which pamqp takes as absent

    ours = read(commands.Basic.Properties(**in_pamqp(fields)).marshal())

    assert attrs.astuple(ours) == attrs.astuple(Properties(**fields))


@unhurried
@given(st.binary(max_size=60))
def test_anything_is_properties_or_a_violation(data: bytes) -> None:
    try:
        read(data)
    except ViolationError:
        return
    assert len(data) >= 2


@pytest.mark.slow
@unhurried
@given(properties, st.data())
def test_properties_that_are_cut_are_a_violation(fields: dict[str, Any], data: st.DataObject) -> None:
    wire = encode_properties(Properties(**fields))
    end = data.draw(st.integers(0, len(wire) - 1))

    with pytest.raises(ViolationError):
        decode_properties(wire[:end], 0, end)
    with pytest.raises(ViolationError):
        decode_properties(wire + b"\0" * 300, 0, end)


@pytest.mark.slow
@unhurried
@given(properties)
def test_properties_with_something_behind_them_are_a_violation(fields: dict[str, Any]) -> None:
    wire = encode_properties(Properties(**fields)) + b"\0"

    with pytest.raises(ViolationError, match="do not fill their frame"):
        read(wire)


@pytest.mark.parametrize("name", FIELDS)
def test_each_property_has_a_flag_of_its_own(name: str) -> None:
    value: Any = {"headers": {}, "delivery_mode": 2, "priority": 0, "timestamp": 0}.get(name, "text")

    back = read(encode_properties(Properties(**{name: value})))

    assert {field: getattr(back, field) for field in FIELDS if getattr(back, field) is not None} == {name: value}


def test_the_reserved_property_is_passed_over() -> None:
    assert read(b"\x00\x0c\x03app\x07cluster").app_id == "app"


@pytest.mark.parametrize("flags", [b"\x00\x01", b"\x00\x02", b"\x80\x03"])
def test_properties_that_do_not_exist_are_a_violation(flags: bytes) -> None:
    with pytest.raises(ViolationError, match="does not have"):
        read(flags + b"\0\0\0")


def test_a_string_that_is_no_utf8_comes_back_as_it_was() -> None:
    wire = b"\x00\x80\x02\xff\xfe"

    assert encode_properties(read(wire)) == wire


def test_headers_that_nest_too_deep_are_told_apart() -> None:
    with pytest.raises(TooDeepError):
        read(b"\x20\x00" + nested_on_wire(33))


@pytest.mark.parametrize(
    "fields",
    [
        {"content_type": "x" * 256},
        {"message_id": "\ud800"},
        {"priority": 256},
        {"priority": -1},
        {"delivery_mode": 1.5},
        {"timestamp": -1},
        {"timestamp": 1 << 64},
        {"timestamp": 1.5},
        {"headers": {"k": object}},
    ],
    ids=str,
)
def test_properties_that_the_wire_cannot_carry_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(EncodingError):
        encode_properties(Properties(**fields))
