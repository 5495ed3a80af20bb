from __future__ import annotations

import math
import time
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from kernel_stomp.broker.activemq import ActiveMq, _read, _written
from kernel_stomp.broker.delivery import StompDelivery
from kernel_stomp.broker.letters import read_letter, write_letter
from kernel_stomp.broker.outbox import rounded
from kernel_stomp.broker.rabbitmq import RabbitMq
from kernel_stomp.core import Frame, Limits, encode

from kernel import Envelope
from kernel.errors import EncodeError

from .far_side import read

WIDE = Limits()
TEXT = st.text(st.characters(exclude_categories=("Cs",)))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NAMES = TEXT.filter(lambda name: not name.startswith("kernel-"))
TRICKY = st.sampled_from(["destination", "receipt", "content-length", "JMSType", "AMQ_X", "id", "ack", "x-priority"])


def there_and_back(envelope: Envelope, *, attempts: int = 0) -> tuple[Envelope, int]:
    dialect = RabbitMq(frozenset())
    headers = write_letter(envelope, now=0.0, attempts=attempts) | dialect.outside(envelope, exchange="")
    frames, is_wrong = read([encode(Frame("SEND", headers, envelope.body), "1.2")], limits=WIDE)
    assert not is_wrong
    frame = Frame("MESSAGE", frames[0][1], frames[0][2])
    letter = read_letter(
        frame,
        id_=dialect.id_of(frame.headers),
        reply_to=dialect.reply_to_of(frame.headers),
        subject=dialect.subject_of,
        now=0.0,
    )
    return letter.envelope, letter.attempts


@given(headers=st.dictionaries(NAMES | TRICKY, JSON, max_size=5), body=st.binary(max_size=100))
def test_headers_and_bytes_arrive_as_they_were(headers: dict[str, object], body: bytes) -> None:
    sent = Envelope(subject="order.created", headers=headers, body=body)

    got, _ = there_and_back(sent)

    assert got == sent


def test_everything_else_arrives_as_well() -> None:
    sent = Envelope(
        subject="a/b.ü",
        id="i-1",
        content_type="application/x",
        reply_to="an/swers",
        correlation_id="c:1",
        priority=7,
        deadline=3.5,
        headers={"plain": "text", "other": 1},
    )

    assert there_and_back(sent, attempts=3) == (sent, 3)


def test_text_goes_under_its_own_name() -> None:
    headers = write_letter(
        Envelope(subject="s", headers={"tenant": "a b", "count": 1, "id": "x", "pad": " x"}), now=0.0
    )

    assert headers["tenant"] == "a b"
    assert headers["kernel-headers"] == '{"count":1,"id":"x","pad":" x"}'
    assert "id" not in headers


@pytest.mark.parametrize("text", ["{", "[1]", "1", "", '{"a":' * 5000])
def test_nonsense_in_the_headers_of_others_means_nothing(text: str) -> None:
    frame = Frame("MESSAGE", {"kernel-headers": text, "kernel-attempts": "x", "priority": "99", "kernel-deadline": "-"})

    letter = read_letter(frame, id_="1", reply_to="", subject=lambda _: "s", now=0.0)

    assert letter.attempts == 0
    assert letter.envelope == Envelope(subject="s", id="1", priority=9, deadline=math.inf)


@pytest.mark.parametrize("headers", [{"a": math.nan}, {"a": object()}])
def test_what_json_cannot_say_is_an_error_of_the_sender(headers: dict[str, object]) -> None:
    with pytest.raises(EncodeError):
        write_letter(Envelope(subject="s", headers=headers), now=0.0)


@given(name=TEXT.filter(bool))
def test_any_name_of_a_queue_is_a_destination_of_activemq(name: str) -> None:
    assert _read(f"/queue/{_written(name)}") == name


@pytest.mark.parametrize(
    ("exchange", "subject", "rabbitmq", "activemq"),
    [
        ("", "orders", "/amq/queue/orders", "/queue/orders"),
        ("", "a/b", "/amq/queue/a%2Fb", "/queue/a~2Fb"),
        ("", "/temp-queue/x", "/temp-queue/x", "/temp-queue/x"),
        ("events", "order.*", "/topic/events.order.*", "/topic/VirtualTopic.events"),
        ("shop.events", "a", "/topic/shop~2Eevents.a", "/topic/VirtualTopic.shop~2Eevents"),
        ("theirs", "a.b", "/exchange/theirs/a.b", "/topic/VirtualTopic.theirs"),
    ],
)
def test_where_messages_go(exchange: str, subject: str, rabbitmq: str, activemq: str) -> None:
    assert RabbitMq(frozenset({"theirs"})).destination(exchange=exchange, subject=subject) == rabbitmq
    assert ActiveMq(False, frozenset()).destination(exchange=exchange, subject=subject) == activemq


@pytest.mark.parametrize(
    ("delay", "wanted"), [(0.0001, 0.001), (0.5, 0.5), (1.234, 1.3), (99.1, 100.0), (123456, 130000)]
)
def test_delays_have_two_digits(delay: float, wanted: float) -> None:
    assert rounded(delay) == wanted


@pytest.mark.parametrize(
    ("headers", "is_told"),
    [
        ({}, False),
        ({"timestamp": "nonsense"}, False),
        ({"timestamp": "1700000000"}, True),
        ({"timestamp": "1700000000000"}, True),
        ({"timestamp": "1600000000", "timestamp_in_ms": "1700000000000"}, True),
    ],
)
def test_a_message_tells_when_it_was_sent_if_it_says_so(headers: dict[str, str], is_told: bool) -> None:
    nobody: Any = None

    async def ago() -> float | None:
        await trio.lowlevel.checkpoint()
        sent = StompDelivery(Frame(command="MESSAGE", headers=headers), nobody).sent
        return None if sent is None else time.time() - trio.current_time() + sent

    assert trio.run(ago) == (pytest.approx(1_700_000_000) if is_told else None)
