from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_amqp.core import EncodingError
from kernel_amqp.core.errors import ViolationError
from kernel_amqp.core.methods import decode_method, encode_method, method_name
from pamqp import commands, frame
from pamqp.base import Frame

from .strategies import short_strings, unhurried

METHODS = list(commands.INDEX_MAPPING.values())
BY_TYPE = {
    "bit": st.booleans(),
    "octet": st.integers(0, 255),
    "short": st.integers(0, 65535),
    "long": st.integers(0, (1 << 32) - 1),
    "longlong": st.integers(0, (1 << 63) - 1),
    "shortstr": short_strings,
    "longstr": st.text(),
    "table": st.dictionaries(st.text(max_size=9), st.text() | st.booleans() | st.none(), max_size=3),
}


def made(kind: type[Frame], values: dict[str, Any]) -> Any:
    """Return a method with these fields, which pamqp is not asked to check."""
    method = kind.__new__(kind)
    for name, value in values.items():
        setattr(method, name, value)
    return method


@st.composite
def methods(draw: st.DrawFn, kind: type[Frame]) -> Any:
    return made(kind, {name: draw(BY_TYPE[kind.amqp_type(name)]) for name in kind.attributes()})


def in_pamqp(method: Any) -> bytes:
    """Return the payload that pamqp writes, which sorts tables and checks names."""
    kind = type(method)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "validate", lambda _: None)
        return frame.marshal(method, 0)[7:-1]


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.name)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_every_method_is_written_and_read_as_pamqp_does(kind: type[Frame], data: st.DataObject) -> None:
    method = data.draw(methods(kind))
    ours = encode_method(method)
    back = decode_method(ours, 0, len(ours))

    assert type(back) is kind
    assert dict(back) == dict(method)
    assert len(ours) == len(in_pamqp(method))
    assert dict(decode_method(in_pamqp(method), 0, len(ours))) == dict(method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert dict(frame.unmarshal(b"\x01\0\0" + len(ours).to_bytes(4, "big") + ours + b"\xce")[2]) == dict(method)


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.name)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_every_method_that_is_cut_or_too_long_is_a_violation(kind: type[Frame], data: st.DataObject) -> None:
    wire = encode_method(data.draw(methods(kind)))
    end = data.draw(st.integers(0, len(wire) - 1))

    for payload in (wire[:end], wire + b"\0"):
        with pytest.raises(ViolationError):
            decode_method(payload, 0, len(payload))
    with pytest.raises(ViolationError):
        decode_method(wire + bytes(300), 0, end)


@unhurried
@given(st.sampled_from(METHODS), st.binary(max_size=60))
def test_anything_is_a_method_or_a_violation(kind: type[Frame], data: bytes) -> None:
    payload = kind.index.to_bytes(4, "big") + data
    try:
        method = decode_method(payload, 0, len(payload))
    except ViolationError:
        return
    assert len(encode_method(method)) >= 4


def test_a_method_that_does_not_exist_is_a_violation() -> None:
    with pytest.raises(ViolationError, match="does not have"):
        decode_method(b"\0\x3c\0\x99", 0, 4)


def test_fields_that_were_not_given_are_written_as_nothing() -> None:
    assert encode_method(commands.Connection.Close()) == b"\0\x0a\0\x32" + bytes(7)
    assert encode_method(commands.Queue.Declare()) == b"\0\x32\0\x0a" + bytes(8)


@pytest.mark.parametrize(
    "method",
    [
        made(commands.Basic.QosOk, {}),
        made(commands.Connection.CloseOk, {}),
    ],
    ids=lambda method: method.name,
)
def test_a_method_without_fields_is_its_number(method: Frame) -> None:
    assert encode_method(method) == method.index.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (commands.Basic.Qos, {"prefetch_size": 0, "prefetch_count": 65536, "global_": False}),
        (commands.Basic.Qos, {"prefetch_size": 0, "prefetch_count": "many", "global_": False}),
        (commands.Queue.Purge, {"ticket": 0, "queue": "q" * 256, "nowait": False}),
        (commands.Queue.Purge, {"ticket": 0, "queue": 5, "nowait": False}),
        (commands.Connection.Blocked, {"reason": "\ud800"}),
        (commands.Connection.SecureOk, {"response": 5}),
        (
            commands.Queue.Unbind,
            dict.fromkeys(("queue", "exchange", "routing_key"), "") | {"ticket": 0, "arguments": 5},
        ),
    ],
    ids=str,
)
def test_a_field_that_the_wire_cannot_carry_is_refused(kind: type[Frame], fields: dict[str, Any]) -> None:
    with pytest.raises(EncodingError):
        encode_method(made(kind, fields))


def test_names_that_pamqp_does_not_know_are_written() -> None:
    method = commands.Queue.Purge()
    method.queue = "straße {1} <2>"

    payload = encode_method(method)

    assert dict(decode_method(payload, 0, len(payload)))["queue"] == "straße {1} <2>"


def test_a_method_is_named_by_its_numbers() -> None:
    assert method_name(50, 10) == "queue.declare"
    assert not method_name(0, 0)


def test_all_bits_of_a_method_fit_one_octet() -> None:
    most = max(sum(kind.amqp_type(name) == "bit" for name in kind.attributes()) for kind in METHODS)

    assert most <= 8
    assert inspect.isclass(METHODS[0])
