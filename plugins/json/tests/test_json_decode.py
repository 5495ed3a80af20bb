"""Untrusted bytes: what is read, what is refused, and that nothing else can happen."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_json import JsonConfig, JsonProtocol

from kernel import Envelope
from kernel.errors import DecodeError


def decode(body: bytes, *, content_type: str = "", protocol: JsonProtocol | None = None) -> object:
    envelope = Envelope(subject="s", body=body, content_type=content_type)
    return (protocol or JsonProtocol()).decode(envelope).payload


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, 2.5, true, null, "\xc3\xa9"]}', {"a": [1, 2.5, True, None, "é"]}),
        (b' "\\ud83d\\ude00" ', "😀"),
        (b'"[[[\\"[[[\\\\"', '[[["[[[\\'),
        (b"-0", 0),
    ],
    ids=["object", "surrogate pair", "brackets in a string", "minus zero"],
)
def test_json_is_read(body: bytes, value: object) -> None:
    assert decode(body) == value


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{}{}", "not JSON"),
        (b"[1,]", "not JSON"),
        (b'{"a":NaN}', "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b"1e999", "too large"),
        (b'{"key":1,"b":{},"key":2}', '"key" occurs twice'),
        (b"1" * 4301, "4301 digits"),
        (b'"\\ud800"', "surrogates not allowed"),
        (b'{"\\udfff":1}', "surrogates not allowed"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b"\xff", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"[" * 65 + b"]" * 65, "max_depth"),
        (b'{"a":' * 100_000, "max_depth"),
        (b'"a\nb"', "not JSON"),
    ],
)
def test_what_two_readers_would_understand_differently_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason) as raised:
        decode(body)

    assert str(raised.value).isascii()
    assert len(str(raised.value)) < 200


def test_the_deepest_allowed_body_is_read() -> None:
    assert decode(b"[" * 64 + b"]" * 64) is not None


def test_many_shallow_brackets_are_no_depth() -> None:
    assert decode(b"[" + b",".join([b'{"]":"["}'] * 1000) + b"]") == [{"]": "["}] * 1000


def test_a_body_over_the_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(DecodeError, match="11 bytes, more than max_bytes = 10"):
        decode(b"x" * 11, protocol=JsonProtocol(config=JsonConfig(max_bytes=10)))


@pytest.mark.parametrize("filler", [b'\\"', b'"', b"\\", b"[]", b'[{"a":'], ids=repr)
def test_looking_at_the_depth_takes_time_in_proportion(filler: bytes) -> None:
    """A pattern that backtracks would take hours here."""
    began = time.process_time()

    with pytest.raises(DecodeError):
        decode(b"[" * 60 + b"[]" * 60 + b'"' + filler * 200_000)

    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "content_type", ["application/x-python-serialize", "text/plain", "application/json;charset=latin-1"]
)
def test_another_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(DecodeError, match="content type"):
        decode(b"{}", content_type=content_type)


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "Application/JSON; charset=UTF-8", "application/cloudevents+json"]
)
def test_the_content_types_of_json_are_read(content_type: str) -> None:
    assert decode(b"{}", content_type=content_type) == {}


def test_subject_and_headers_pass_through() -> None:
    message = JsonProtocol().decode(Envelope(subject="a.b", body=b"1", headers={"k": 1}))

    assert (message.subject, message.payload, message.headers) == ("a.b", 1, {"k": 1})


@pytest.mark.slow
@given(st.binary() | st.text().map(str.encode) | st.text(alphabet='[]{}",:\\ue0123456789d8.-+tfn').map(str.encode))
def test_any_bytes_are_a_value_or_a_decode_error(body: bytes) -> None:
    try:
        value = decode(body)
    except DecodeError:
        return
    assert value == json.loads(body)


ALLOWING = JsonProtocol(config=JsonConfig(content_types=("text/plain", "Application/Octet-Stream")))


@pytest.mark.parametrize("content_type", ["text/plain", "TEXT/PLAIN; charset=utf-8", "application/octet-stream", ""])
def test_another_content_type_can_be_allowed(content_type: str) -> None:
    assert decode(b"{}", content_type=content_type, protocol=ALLOWING) == {}


@pytest.mark.parametrize("content_type", ["text/html", "text/plain; charset=latin-1", "text/plainer"])
def test_what_is_not_allowed_is_refused_all_the_same(content_type: str) -> None:
    with pytest.raises(DecodeError):
        decode(b"{}", content_type=content_type, protocol=ALLOWING)


@pytest.mark.parametrize("name", ["plain", "text/plain; charset=utf-8", "", "*/*"])
def test_what_is_no_content_type_is_a_mistake_of_the_manifest(name: str) -> None:
    with pytest.raises(ValueError, match="'content_types' must be content types without parameters"):
        JsonConfig(content_types=(name,))
