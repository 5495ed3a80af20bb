"""Bytes go through as they are; nothing else goes through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_raw import RawConfig, RawProtocol

from kernel import Arguments, Envelope, Message
from kernel.errors import DecodeError, EncodeError, RemoteError

REQUEST = Envelope(subject="add", reply_to="replies", correlation_id="c1")


def encoded(payload: object, *, max_bytes: int = 100) -> bytes:
    protocol = RawProtocol(config=RawConfig(max_bytes=max_bytes))
    return protocol.encode(Message(subject="s", payload=payload)).body


@pytest.mark.slow
@given(st.binary(), st.text(max_size=5))
def test_any_body_is_the_payload_whatever_it_is_called(body: bytes, content_type: str) -> None:
    message = RawProtocol().decode(Envelope(subject="a.b", body=body, headers={"k": 1}, content_type=content_type))

    assert (message.subject, message.payload, message.headers) == ("a.b", body, {"k": 1})


@pytest.mark.parametrize(
    ("payload", "body"),
    [(b"\xff", b"\xff"), (bytearray(b"ab"), b"ab"), (memoryview(b"abcd")[::2], b"ac"), ("é", b"\xc3\xa9")],
    ids=["bytes", "bytearray", "memoryview", "str"],
)
def test_bytes_and_text_are_written(payload: object, body: bytes) -> None:
    assert encoded(payload) == body


@pytest.mark.parametrize("payload", [None, 1, [1], {}, Arguments((1,))], ids=repr)
def test_anything_else_is_refused(payload: object) -> None:
    with pytest.raises(EncodeError, match="raw takes bytes, bytearray, memoryview and str only"):
        encoded(payload)


def test_text_that_is_none_is_refused() -> None:
    with pytest.raises(EncodeError, match="lone surrogate"):
        encoded("\ud800")


def test_what_is_too_long_is_refused_in_both_directions() -> None:
    with pytest.raises(EncodeError, match="11 bytes, more than max_bytes = 10"):
        encoded(b"x" * 11, max_bytes=10)
    with pytest.raises(DecodeError, match="11 bytes, more than max_bytes = 10"):
        RawProtocol(config=RawConfig(max_bytes=10)).decode(Envelope(subject="s", body=b"x" * 11))


def test_no_result_is_an_empty_answer() -> None:
    reply = RawProtocol().encode_reply(REQUEST, None)

    assert reply is not None
    assert RawProtocol().decode_reply(reply) == b""


def test_an_error_stands_in_the_headers() -> None:
    reply = RawProtocol().encode_error(REQUEST, ValueError("why"))

    assert reply is not None
    assert (reply.body, dict(reply.headers)) == (
        b"",
        {"kernel-error-type": "ValueError", "kernel-error-message": "why"},
    )
    with pytest.raises(RemoteError, match="ValueError: why"):
        RawProtocol().decode_reply(reply)
