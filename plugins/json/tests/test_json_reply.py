"""Answers: results, errors, and what a caller makes of them."""

from __future__ import annotations

import attrs
import pytest
from kernel_json import JsonConfig, JsonProtocol

from kernel import Envelope
from kernel.errors import DecodeError, EncodeError, RemoteError

REQUEST = Envelope(subject="add", reply_to="replies", correlation_id="c1")


class TextlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def answer(body: bytes) -> object:
    return JsonProtocol().decode_reply(Envelope(subject="replies", body=body))


def test_a_result_goes_to_the_caller() -> None:
    reply = JsonProtocol().encode_reply(REQUEST, [1, 2])

    assert reply is not None
    assert (reply.subject, reply.correlation_id, reply.body) == ("replies", "c1", b'{"result":[1,2]}')
    assert JsonProtocol().decode_reply(reply) == [1, 2]


def test_a_result_of_none_is_an_answer() -> None:
    reply = JsonProtocol().encode_reply(REQUEST, None)

    assert reply is not None
    assert JsonProtocol().decode_reply(reply) is None


def test_an_error_goes_to_the_caller_as_a_remote_error() -> None:
    reply = JsonProtocol().encode_error(REQUEST, ValueError("bad\ud800"))

    assert reply is not None
    assert (reply.subject, reply.correlation_id) == ("replies", "c1")
    with pytest.raises(RemoteError) as raised:
        JsonProtocol().decode_reply(reply)
    assert (raised.value.kind, raised.value.message) == ("ValueError", "bad\\ud800")


def test_an_error_without_text_is_written() -> None:
    reply = JsonProtocol().encode_error(REQUEST, TextlessError())

    assert reply is not None
    with pytest.raises(RemoteError, match="TextlessError: its text cannot be made: RuntimeError"):
        JsonProtocol().decode_reply(reply)


def test_a_long_error_is_cut() -> None:
    reply = JsonProtocol(config=JsonConfig(max_bytes=10)).encode_error(REQUEST, ValueError("x" * 100_000))

    assert reply is not None
    assert len(reply.body) < 3000


def test_nobody_is_answered_who_did_not_ask() -> None:
    event = attrs.evolve(REQUEST, reply_to="")

    assert JsonProtocol().encode_reply(event, 1) is None
    assert JsonProtocol().encode_error(event, ValueError()) is None


def test_a_result_that_cannot_be_written_is_named() -> None:
    with pytest.raises(EncodeError, match=r"payload\.result\.a"):
        JsonProtocol().encode_reply(REQUEST, {"a": object()})


@pytest.mark.parametrize(
    "body",
    [b"[]", b"1", b"{}", b'{"error":1}', b'{"error":{"type":1,"message":""}}', b'{"error":1,"result":1}', b"{"],
    ids=repr,
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        answer(body)


def test_an_answer_may_hold_more_than_a_reader_knows() -> None:
    assert answer(b'{"result":1,"trace":"x"}') == 1
    assert answer(b'{"result":1,"error":null}') == 1
