from __future__ import annotations

import math
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_amqp10._addresses import RABBITMQ
from kernel_amqp10.broker.letters import Letter, write_letter
from kernel_amqp10.broker.reading import Reader

from kernel import Envelope
from kernel.errors import EncodeError

if TYPE_CHECKING:
    from kernel_amqp10.link.proton import Proton

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
HEADERS = st.dictionaries(TEXT.map(lambda name: f"x{name}"), VALUES, max_size=5)


def again(proton: Proton, envelope: Envelope, **how: Any) -> Letter:
    return Reader(proton, RABBITMQ).read(write_letter(proton, RABBITMQ, envelope, now=0.0, **how), now=0.0)


@given(headers=HEADERS, body=st.binary(max_size=100), priority=st.integers(0, 9))
def test_an_envelope_comes_as_it_was_written(
    proton: Proton, headers: dict[str, object], body: bytes, priority: int
) -> None:
    sent = Envelope(
        subject="order.paid",
        body=body,
        headers=headers,
        content_type="application/json",
        reply_to="an/swers",
        correlation_id="c",
        priority=priority,
    )

    letter = again(proton, sent)

    assert (letter.envelope, letter.attempts, letter.is_again) == (sent, 0, False)


@pytest.mark.parametrize(("body", "sent"), [('{"a":"ü"}'.encode(), '{"a":"ü"}'), (b"\xff", b"\xff"), (b"", "")])
def test_bodies_of_text_go_as_text_to_whoever_wants_that(proton: Proton, body: bytes, sent: object) -> None:
    data = write_letter(proton, RABBITMQ, Envelope(subject="x", body=body), now=0.0, as_text=True)
    message = proton.Message()
    message.decode(data)

    assert message.body == sent
    assert Reader(proton, RABBITMQ).read(data, now=0.0).envelope.body == body


def test_what_has_no_content_type_has_none(proton: Proton) -> None:
    assert not again(proton, Envelope(subject="x", body=b"{}")).envelope.content_type


def test_headers_keep_their_types(proton: Proton) -> None:
    headers = {
        "int": 1,
        "float": 1.0,
        "true": True,
        "text": "1",
        "none": None,
        "long": 2**63 - 1,
        "list": [1, {"a": None}],
    }

    got = again(proton, Envelope(subject="x", headers=headers)).envelope.headers

    assert {key: (type(value), value) for key, value in got.items()} == {
        key: (type(value), value) for key, value in headers.items()
    }


def test_attempts_and_what_is_left_of_a_deadline_travel_with_a_message(proton: Proton) -> None:
    letter = again(proton, Envelope(subject="x", deadline=5.0), attempts=3)

    assert letter.attempts == 3
    assert letter.envelope.deadline == pytest.approx(5.0, abs=0.01)
    assert dict(letter.envelope.headers) == {}


def test_headers_that_nothing_can_say_are_an_error(proton: Proton) -> None:
    with pytest.raises(EncodeError, match="header 'a' is nothing that JSON can say"):
        write_letter(proton, RABBITMQ, Envelope(subject="x", headers={"a": [object()]}), now=0.0)


def test_a_priority_is_0_to_9(proton: Proton) -> None:
    with pytest.raises(ValueError, match="a priority is 0 to 9"):
        write_letter(proton, RABBITMQ, Envelope(subject="x", priority=10), now=0.0)


@pytest.mark.parametrize(
    ("body", "data"),
    [
        ("snow \u2603", "snow \u2603".encode()),
        (None, b""),
        ({"a": [1, 2.5, True, None]}, b'{"a": [1, 2.5, true, null]}'),
        ([1, "b"], b'[1, "b"]'),
        (7, b"7"),
    ],
)
def test_what_others_send_as_a_body_becomes_bytes(proton: Proton, body: object, data: bytes) -> None:
    message = proton.Message()
    message.body = body

    assert Reader(proton, RABBITMQ).read(message.encode(), now=0.0).envelope.body == data


def test_what_others_send_as_headers_and_ids_becomes_what_json_can_say(proton: Proton) -> None:
    known = uuid.UUID(int=7)
    message = proton.Message()
    message.body, message.id, message.correlation_id = "x", known, 2**40
    message.properties = {"id": known, "bytes": b"\xff", "text": b"ok", "nan": math.nan}

    envelope = Reader(proton, RABBITMQ).read(message.encode(), now=0.0).envelope

    assert (envelope.id, envelope.correlation_id) == (str(known), str(2**40))
    assert dict(envelope.headers) == {"id": str(known), "bytes": "/w==", "text": "ok", "nan": "nan"}


@pytest.mark.parametrize("data", [b"\x00", b"\x00Sp\xc0", b"no message", bytes(range(256))])
def test_what_is_no_message_is_told_as_such(proton: Proton, data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        Reader(proton, RABBITMQ).read(data, now=0.0)


def test_a_body_that_is_nested_without_end_is_refused(proton: Proton) -> None:
    nested: list[object] = []
    for _ in range(60):
        nested = [nested]
    message = proton.Message()
    message.body = nested

    with pytest.raises(ValueError, match="cannot be read"):
        Reader(proton, RABBITMQ).read(message.encode(), now=0.0)


def test_a_message_tells_when_it_was_sent(proton: Proton) -> None:
    before = time.time()
    sent = again(proton, Envelope(subject="x")).sent

    assert before - 0.001 <= sent <= time.time()  # it is written in milliseconds


def test_nothing_of_a_message_is_there_in_the_next_one(proton: Proton) -> None:
    """They are read into the same place."""
    reader = Reader(proton, RABBITMQ)
    full = Envelope(
        subject="a.b",
        body=b"body",
        headers={"h": 1},
        content_type="text/plain",
        reply_to="q",
        correlation_id="c",
        priority=3,
        deadline=9.0,
    )
    reader.read(write_letter(proton, RABBITMQ, full, now=0.0, attempts=2, delay=1.0), now=0.0)
    bare = proton.Message()
    bare.id = "1"

    assert reader.read(bare.encode(), now=0.0) == Reader(proton, RABBITMQ).read(bare.encode(), now=0.0)
