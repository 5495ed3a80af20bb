"""Facts about one channel. In one file although it is long: each case is a few lines, and they share one far side."""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_amqp.core import (
    ChannelClosed,
    ChannelOpened,
    ChannelState,
    Closed,
    Confirmed,
    Connection,
    ConnectionState,
    ConsumerCancelled,
    Delivered,
    EncodingError,
    Event,
    LocalError,
    Properties,
    Replied,
    Returned,
    Settings,
    TooLarge,
)
from pamqp import body, commands, header

from .far_side import (
    LEAST_FRAME,
    confirming,
    content,
    deliver,
    frames,
    kinds,
    names,
    open_channel,
    open_connection,
    raw,
    returned,
    sent,
)
from .strategies import properties, unhurried
from .test_properties import in_pamqp
from .test_table import as_pamqp_reads, nested, nested_on_wire

SMALL = commands.Connection.Tune(2047, LEAST_FRAME, 0)
MAX = 10_000


def fields(event: Event) -> tuple[Any, ...]:
    """The fields of an event beside its channel, properties as a tuple."""
    values = [getattr(event, field.name) for field in attrs.fields(type(event)) if field.name != "channel"]
    return tuple(attrs.astuple(value) if isinstance(value, Properties) else value for value in values)


def small() -> Connection:
    """A connection whose frames have 4096 bytes, and messages 10,000."""
    return open_connection(Settings(max_message_bytes=MAX), tune=SMALL)


def publish(connection: Connection, payload: bytes, **given_ones: Any) -> list[Any]:
    """Return the frames of a message that is sent to `e` with the key `k`."""
    channel = open_channel(connection)
    channel.publish(exchange="e", routing_key="k", properties=Properties(**given_ones), body=payload)
    return [value for number, value in sent(connection) if number == channel.number]


def test_a_channel_is_opened_with_a_handshake() -> None:
    connection = open_connection()

    channel = connection.open_channel()

    assert names(connection) == ["Channel.Open"]
    assert channel.state is ChannelState.OPENING
    assert connection.receive(frames(1, commands.Channel.OpenOk())) == [ChannelOpened(channel.number)]
    assert channel.state is ChannelState.OPEN


@pytest.mark.slow
@unhurried
@given(properties, st.binary(max_size=9000), st.booleans())
def test_pamqp_reads_what_is_published(given_ones: dict[str, Any], payload: bytes, mandatory: bool) -> None:
    connection = open_connection(tune=SMALL)
    channel = open_channel(connection)

    number = channel.publish(
        exchange="e", routing_key="k", properties=Properties(**given_ones), body=payload, mandatory=mandatory
    )

    method, head, *bodies = [value for _, value in sent(connection)]
    expected = commands.Basic.Properties(**in_pamqp(given_ones))
    if expected.headers is not None:
        expected.headers = as_pamqp_reads(expected.headers)
    assert number == 0
    assert dict(method) == dict(commands.Basic.Publish(0, "e", "k", mandatory, False))
    assert (head.body_size, dict(head.properties)) == (len(payload), dict(expected))
    assert b"".join(part.value for part in bodies) == payload


@pytest.mark.parametrize(
    ("size", "parts"), [(0, []), (1, [1]), (4088, [4088]), (4089, [4088, 1]), (9000, [4088, 4088, 824])]
)
def test_a_body_is_cut_into_frames_that_the_peer_takes(size: int, parts: list[int]) -> None:
    _, head, *bodies = publish(open_connection(tune=SMALL), bytes(size))

    assert head.body_size == size
    assert [len(part.value) for part in bodies] == parts


@pytest.mark.parametrize("room", [4096 - 8 - 12])
def test_properties_must_fit_one_frame(room: int) -> None:
    connection = open_connection(tune=SMALL)
    overhead = 2 + 4 + 2 + 1 + 4  # flags, table, key, type, string

    fits = publish(connection, b"", headers={"k": "x" * (room - overhead)})
    assert len(fits) == 2

    with pytest.raises(EncodingError, match="one frame has room for 4076"):
        publish(connection, b"", headers={"k": "x" * (room - overhead + 1)})
    assert connection.data_to_send() == b""


def test_a_method_must_fit_one_frame() -> None:
    connection = open_connection(tune=SMALL)
    channel = open_channel(connection)

    with pytest.raises(EncodingError, match=r"Queue\.Declare has 4\d+ bytes"):
        channel.call(commands.Queue.Declare(queue="q", arguments={"k": "x" * 4096}))
    assert connection.data_to_send() == b""
    assert [type(event) for event in connection.receive(frames(1, commands.Queue.DeclareOk("q", 0, 0)))] == [Closed]


@pytest.mark.parametrize(
    "wrong",
    [
        {"exchange": "e" * 256},
        {"routing_key": "k" * 256},
        {"routing_key": "\ud800"},
        {"properties": Properties(headers={"k": object()})},
    ],
    ids=["exchange", "routing key", "surrogate", "header"],
)
def test_a_message_that_the_wire_cannot_carry_is_not_sent_and_has_no_number(wrong: dict[str, Any]) -> None:
    connection = open_connection()
    channel = confirming(connection)
    message: dict[str, Any] = {"exchange": "", "routing_key": "", "properties": Properties(), "body": b""}

    with pytest.raises(EncodingError):
        channel.publish(**(message | wrong))

    assert connection.data_to_send() == b""
    assert channel.publish(**message) == 1


def test_properties_may_be_used_again() -> None:
    connection = open_connection()
    channel = open_channel(connection)
    same = Properties(message_id="1")

    channel.publish(exchange="", routing_key="a", properties=same, body=b"")
    same.message_id = "2"
    channel.publish(exchange="", routing_key="a", properties=same, body=b"")

    heads = [value for _, value in sent(connection) if isinstance(value, header.ContentHeader)]
    assert [head.properties.message_id for head in heads] == ["1", "2"]


def test_numbers_begin_when_confirms_are_asked_for() -> None:
    connection = open_connection()
    channel = open_channel(connection)
    message: dict[str, Any] = {"exchange": "", "routing_key": "", "properties": Properties(), "body": b""}

    assert channel.publish(**message) == 0
    channel.call(commands.Confirm.Select())
    assert [channel.publish(**message) for _ in range(3)] == [1, 2, 3]
    channel.call(commands.Confirm.Select())
    assert channel.publish(**message) == 4


def test_confirms_are_told_as_ranges() -> None:
    connection = open_connection()
    channel = confirming(connection)
    for _ in range(5):
        channel.publish(exchange="", routing_key="", properties=Properties(), body=b"")
    ack, nack = commands.Basic.Ack, commands.Basic.Nack

    events = connection.receive(frames(1, ack(2, False), ack(3, True), nack(4, False), nack(0, True)))

    assert kinds(events) == [Confirmed] * 4 + [Confirmed]
    assert [fields(event) for event in events] == [
        (2, 2, True),
        (1, 1, True),
        (3, 3, True),
        (4, 4, False),
        (5, 5, False),
    ]


def test_a_confirm_that_was_not_asked_for_is_a_violation() -> None:
    connection = open_connection()
    open_channel(connection)

    assert connection.receive(frames(1, commands.Basic.Ack(1))) == [
        Closed(0, "the peer confirmed on channel 1 without being asked")
    ]


def test_a_confirm_of_nothing_is_a_violation() -> None:
    connection = open_connection()
    confirming(connection)

    assert connection.receive(frames(1, commands.Basic.Ack(1))) == [Closed(0, "the peer confirmed message 1 of 0")]


@pytest.mark.parametrize("kind", [b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"], ids=["ack", "nack"])
@pytest.mark.parametrize("rest", [bytes(8), bytes(10)], ids=["short", "long"])
def test_a_malformed_confirm_is_a_violation(kind: bytes, rest: bytes) -> None:
    connection = open_connection()
    confirming(connection)

    assert kinds(connection.receive(raw(1, 1, kind + rest))) == [Closed]


def test_deliveries_are_settled_one_by_one() -> None:
    connection = open_connection()
    channel = open_channel(connection)

    channel.ack(1)
    channel.ack((1 << 64) - 1, multiple=True)
    channel.nack(3, requeue=True)
    channel.nack(4, requeue=False)

    values = [value for _, value in sent(connection)]
    assert [value.name for value in values] == ["Basic.Ack", "Basic.Ack", "Basic.Nack", "Basic.Reject"]
    assert [dict(value) for value in values[:1]] == [{"delivery_tag": 1, "multiple": False}]
    assert values[1].multiple is True
    assert [dict(value) for value in values[2:]] == [
        {"delivery_tag": 3, "multiple": False, "requeue": True},
        {"delivery_tag": 4, "requeue": False},
    ]


@pytest.mark.parametrize("tag", [-1, 1 << 64])
def test_a_tag_that_no_delivery_has_is_refused(tag: int) -> None:
    connection = open_connection()
    channel = open_channel(connection)

    with pytest.raises(EncodingError):
        channel.ack(tag)
    with pytest.raises(EncodingError):
        channel.nack(tag, requeue=True)
    assert connection.data_to_send() == b""


@pytest.mark.slow
@unhurried
@given(properties, st.binary(max_size=9000))
def test_what_pamqp_delivers_is_delivered(given_ones: dict[str, Any], payload: bytes) -> None:
    given_ones.pop("headers", None)
    given_ones = {name: value for name, value in given_ones.items() if value != ""}
    connection = small()
    channel = open_channel(connection)

    [event] = connection.receive(deliver(1, 7, payload, room=4088, **in_pamqp(given_ones)))

    assert isinstance(event, Delivered)
    assert event.channel == channel.number
    assert fields(event) == ("c", 7, False, "e", "k", attrs.astuple(Properties(**given_ones)), payload)


@unhurried
@given(st.text(max_size=60), st.integers(0, (1 << 64) - 1), st.booleans(), st.text(max_size=60), st.text(max_size=60))
def test_the_fields_of_a_delivery_are_those_that_were_sent(
    consumer: str, tag: int, redelivered: bool, exchange: str, key: str
) -> None:
    connection = open_connection()
    open_channel(connection)
    names_ = [b"\x3c" + bytes((len(name.encode()),)) + name.encode() for name in (consumer, exchange, key)]
    method = (
        b"\x00\x3c\x00" + names_[0] + tag.to_bytes(8, "big") + bytes((redelivered,)) + names_[1][1:] + names_[2][1:]
    )

    [event] = connection.receive(raw(1, 1, method) + frames(1, header.ContentHeader(0, 0)))

    assert fields(event)[:5] == (consumer, tag, redelivered, exchange, key)


@unhurried
@given(st.data())
def test_a_delivery_that_is_cut_is_a_violation(data: st.DataObject) -> None:
    whole = b"\x00\x3c\x00\x3c\x01c" + (5).to_bytes(8, "big") + b"\x00\x01e\x01k"
    cut = data.draw(st.integers(4, len(whole) - 1))
    for payload in (whole[:cut], whole + b"\x00"):
        connection = open_connection()
        open_channel(connection)

        events = connection.receive(raw(1, 1, payload) + b"\x03\x00\x01\x00\x00\x00\x01x\xce" * 9)

        assert kinds(events) == [Closed]


def test_channels_may_be_interleaved_frame_by_frame() -> None:
    connection = small()
    one, two = open_channel(connection), open_channel(connection)
    first = [deliver(1, 1, b"1" * 5000, room=4000)]
    second = [deliver(2, 1, b"2" * 5000, room=4000)]

    def cut(data: bytes) -> list[bytes]:
        parts: list[bytes] = []
        while data:
            size = int.from_bytes(data[3:7], "big") + 8
            parts.append(data[:size])
            data = data[size:]
        return parts

    both = zip(cut(first[0]), cut(second[0]), strict=True)
    events = connection.receive(b"".join(part for pair in both for part in pair))

    assert [(event.channel, event.body) for event in events if isinstance(event, Delivered)] == [
        (one.number, b"1" * 5000),
        (two.number, b"2" * 5000),
    ]


def test_a_body_at_the_bound_is_taken_and_one_byte_more_is_skipped() -> None:
    connection = small()
    open_channel(connection)

    events = connection.receive(deliver(1, 1, bytes(MAX), room=4088) + deliver(1, 2, bytes(MAX + 1), room=4088))

    assert kinds(events) == [Delivered, TooLarge]
    assert fields(events[1]) == ("c", 2, False, "e", "k", MAX + 1)


def test_what_follows_a_message_that_was_skipped_is_taken() -> None:
    connection = small()
    open_channel(connection)

    events = connection.receive(deliver(1, 1, bytes(3 * MAX), room=4088) + deliver(1, 2, b"next"))

    assert kinds(events) == [TooLarge, Delivered]


def test_bodies_of_many_frames_do_not_run_together() -> None:
    connection = small()
    open_channel(connection)

    events = connection.receive(deliver(1, 1, b"a" * 5000, room=4088) + deliver(1, 2, b"b" * 9000, room=4088))

    assert [event.body for event in events if isinstance(event, Delivered)] == [b"a" * 5000, b"b" * 9000]


def test_nothing_of_a_message_that_is_skipped_is_kept() -> None:
    connection = small()
    channel = open_channel(connection)
    whole = deliver(1, 1, bytes(3 * MAX), room=4088)

    connection.receive(whole[:-10])

    assert len(channel._assembly._body) == 0
    assert len(connection._reader._rest) <= LEAST_FRAME


def test_an_empty_message_is_within_a_bound_of_nothing() -> None:
    connection = open_connection(Settings(max_message_bytes=0))
    open_channel(connection)

    assert kinds(connection.receive(deliver(1, 1, b"") + deliver(1, 2, b"1"))) == [Delivered, TooLarge]


@pytest.mark.parametrize("payload", [b"", b"body", bytes(5000)])
def test_a_message_whose_headers_nest_too_deep_is_skipped_and_hurts_nobody(payload: bytes) -> None:
    connection = small()
    open_channel(connection)
    head = b"\x00\x3c\x00\x00" + len(payload).to_bytes(8, "big") + b"\x20\x00" + nested_on_wire(40)
    parts = [body.ContentBody(payload[at : at + 4088]) for at in range(0, len(payload), 4088)]
    poison = frames(1, commands.Basic.Deliver("c", 1, False, "e", "k")) + raw(2, 1, head) + frames(1, *parts)

    events = connection.receive(poison + deliver(1, 2, b"next"))

    assert kinds(events) == [TooLarge, Delivered]
    assert fields(events[0])[-1] == len(payload)


def test_headers_of_ours_that_nest_too_deep_are_refused() -> None:
    with pytest.raises(EncodingError, match="nests deeper"):
        publish(open_connection(), b"", headers=nested(33))


HEAD = header.ContentHeader(0, 10, commands.Basic.Properties())
DELIVER = commands.Basic.Deliver("c", 1, False, "e", "k")


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(frames(1, DELIVER, DELIVER), id="method instead of the header"),
        pytest.param(frames(1, DELIVER, body.ContentBody(b"x")), id="body instead of the header"),
        pytest.param(frames(1, DELIVER, HEAD, HEAD), id="header instead of the body"),
        pytest.param(frames(1, DELIVER, HEAD, DELIVER), id="method instead of the body"),
        pytest.param(frames(1, DELIVER, HEAD, commands.Basic.Cancel("c", True)), id="another method"),
        pytest.param(frames(1, DELIVER, HEAD, commands.Basic.Ack(1)), id="confirm in a message"),
        pytest.param(frames(1, DELIVER, HEAD, body.ContentBody(bytes(11))), id="body too long"),
        pytest.param(
            frames(1, DELIVER, HEAD, body.ContentBody(bytes(9)), body.ContentBody(b"12")), id="parts too long"
        ),
        pytest.param(frames(1, DELIVER, HEAD) + raw(3, 1, b""), id="empty body frame"),
        pytest.param(deliver(1, 1, b"x") + frames(1, body.ContentBody(b"x")), id="body after the end"),
        pytest.param(deliver(1, 1, b"") + raw(3, 1, b""), id="body of an empty message"),
        pytest.param(frames(1, DELIVER) + raw(2, 1, b"\x00\x3c\x00\x00" + bytes(8)), id="header without flags"),
        pytest.param(frames(1, DELIVER) + raw(2, 1, b"\x00\x32\x00\x00" + bytes(10)), id="header of another class"),
        pytest.param(frames(1, DELIVER) + raw(2, 1, b"\x00\x3c\x00\x01" + bytes(10)), id="header with a weight"),
        pytest.param(frames(1, DELIVER) + raw(2, 1, b"\x00\x3c\x00\x00" + bytes(9)), id="header that is cut"),
        pytest.param(raw(1, 1, b"\x00\x3c\x00"), id="method that is cut"),
        pytest.param(raw(1, 1, b""), id="method without anything"),
        pytest.param(frames(1, commands.Channel.Flow(False)), id="flow"),
        pytest.param(frames(1, commands.Basic.GetOk(1, False, "e", "k", 0)), id="message that nobody asked for"),
    ],
)
def test_frames_out_of_their_order_are_a_violation(wire: bytes) -> None:
    connection = open_connection()
    confirming(connection)

    events = connection.receive(wire)

    assert kinds(events)[-1] is Closed
    assert connection.state is ConnectionState.CLOSED
    assert names(connection)[-1] == "Connection.Close"


def test_a_message_that_comes_back_is_told_before_its_confirm() -> None:
    connection = open_connection()
    channel = confirming(connection)
    channel.publish(exchange="e", routing_key="k", properties=Properties(), body=b"hello", mandatory=True)

    events = connection.receive(returned(1, b"hello", message_id="m") + frames(1, commands.Basic.Ack(1)))

    assert kinds(events) == [Returned, Confirmed]
    assert fields(events[0]) == (312, "NO_ROUTE", "e", "k", attrs.astuple(Properties(message_id="m")))


@pytest.mark.parametrize("payload", [b"", bytes(MAX + 1)], ids=["empty", "large"])
def test_a_message_of_any_size_comes_back_and_is_not_kept(payload: bytes) -> None:
    connection = small()
    channel = open_channel(connection)
    method = commands.Basic.Return(312, "NO_ROUTE", "e", "k")
    whole = content(1, method, payload, room=4088)

    events = connection.receive(whole[:-5])
    assert len(channel._assembly._body) == 0

    assert kinds([*events, *connection.receive(whole[-5:])]) == [Returned]


def test_calls_are_answered_in_their_order() -> None:
    connection = open_connection()
    channel = open_channel(connection)
    channel.call(commands.Queue.Declare(queue="q"))
    channel.call(commands.Basic.Qos(prefetch_count=5))
    channel.call(commands.Basic.Consume(queue="q", consumer_tag="c"))
    assert names(connection) == ["Queue.Declare", "Basic.Qos", "Basic.Consume"]
    answers = [commands.Queue.DeclareOk("q", 3, 0), commands.Basic.QosOk(), commands.Basic.ConsumeOk("c")]

    events = connection.receive(frames(1, *answers[:2]) + deliver(1, 1, b"early") + frames(1, answers[2]))

    assert kinds(events) == [Replied, Replied, Delivered, Replied]
    replies = [event.method for event in events if isinstance(event, Replied)]
    assert [reply.name for reply in replies] == [answer.name for answer in answers]
    assert replies[0]["message_count"] == 3


def test_an_answer_to_another_call_is_a_violation() -> None:
    connection = open_connection()
    channel = open_channel(connection)
    channel.call(commands.Queue.Declare(queue="q"))
    channel.call(commands.Basic.Qos(prefetch_count=5))

    assert connection.receive(frames(1, commands.Basic.QosOk())) == [
        Closed(0, "the peer sent Basic.QosOk in state open")
    ]


@pytest.mark.parametrize(
    "method",
    [
        commands.Basic.Ack(1),
        commands.Basic.Publish(),
        commands.Channel.Open(),
        commands.Channel.Close(),
        commands.Basic.Get(),
        commands.Connection.Close(),
        commands.Queue.Declare(queue="q", nowait=True),
        commands.Basic.Consume(queue="q", nowait=True),
    ],
    ids=lambda method: method.name,
)
def test_what_has_no_answer_or_is_not_for_a_channel_cannot_be_called(method: Any) -> None:
    connection = open_connection()
    channel = open_channel(connection)

    with pytest.raises(LocalError, match=method.name):
        channel.call(method)
    assert connection.data_to_send() == b""


def test_flow_may_be_called() -> None:
    """It does nothing, so that its answer says that everything before it was processed."""
    connection = open_connection()
    open_channel(connection).call(commands.Channel.Flow(True))

    assert names(connection) == ["Channel.Flow"]
    assert kinds(connection.receive(frames(1, commands.Channel.FlowOk(True)))) == [Replied]


def test_a_consumer_is_cancelled_by_the_broker() -> None:
    connection = open_connection()
    channel = open_channel(connection)

    assert connection.receive(frames(1, commands.Basic.Cancel("c", True))) == [ConsumerCancelled(channel.number, "c")]
    assert connection.data_to_send() == b""


def test_a_broker_that_waits_for_an_answer_to_its_cancel_gets_it() -> None:
    connection = open_connection()
    channel = open_channel(connection)

    assert connection.receive(frames(1, commands.Basic.Cancel("c", False))) == [ConsumerCancelled(channel.number, "c")]
    [(_, answer)] = sent(connection)
    assert (answer.name, answer.consumer_tag) == ("Basic.CancelOk", "c")


def test_a_channel_that_the_broker_closes_says_what_failed_and_hurts_nobody() -> None:
    connection = open_connection()
    failed, other = open_channel(connection), open_channel(connection)

    events = connection.receive(frames(1, commands.Channel.Close(406, "PRECONDITION_FAILED", 50, 10)))

    assert events == [ChannelClosed(failed.number, 406, "PRECONDITION_FAILED", "queue.declare")]
    assert names(connection) == ["Channel.CloseOk"]
    assert other.state is ChannelState.OPEN


def test_a_channel_that_is_closed_in_the_middle_of_a_message_is_closed() -> None:
    connection = open_connection()
    channel = open_channel(connection)
    connection.receive(frames(1, DELIVER, HEAD))

    assert connection.receive(frames(1, commands.Channel.Close(541, "INTERNAL_ERROR", 0, 0))) == [
        ChannelClosed(channel.number, 541, "INTERNAL_ERROR", "")
    ]


def test_a_channel_is_closed_by_us_with_a_handshake() -> None:
    connection = open_connection()
    channel = open_channel(connection)

    channel.close()

    assert names(connection) == ["Channel.Close"]
    assert connection.receive(deliver(1, 1, b"late") + frames(1, DELIVER)) == []
    [replied] = connection.receive(frames(1, commands.Channel.CloseOk()))
    assert isinstance(replied, Replied)
    assert replied.method.name == "Channel.CloseOk"
    assert channel.state is ChannelState.CLOSED


def test_both_may_close_a_channel_at_once_and_it_is_told_once() -> None:
    connection = open_connection()
    channel = open_channel(connection)
    channel.close()
    connection.data_to_send()

    events = connection.receive(frames(1, commands.Channel.Close(404, "NOT_FOUND", 60, 40)))

    assert events == [ChannelClosed(channel.number, 404, "NOT_FOUND", "basic.publish")]
    assert names(connection) == ["Channel.CloseOk"]
    assert connection.open_channel().number == 2
    assert connection.receive(frames(1, commands.Channel.CloseOk())) == []
    assert connection.open_channel().number == 1


def test_a_channel_may_be_closed_before_it_is_open() -> None:
    connection = open_connection()
    channel = connection.open_channel()

    channel.close()

    assert names(connection) == ["Channel.Open", "Channel.Close"]
    events = connection.receive(frames(1, commands.Channel.OpenOk(), commands.Channel.CloseOk()))
    assert kinds(events) == [Replied]


def test_bodies_are_not_shown() -> None:
    connection = open_connection()
    open_channel(connection)

    [event] = connection.receive(deliver(1, 1, b"secret"))

    assert "secret" not in repr(event)


CONVERSATION = b"".join((
    frames(1, commands.Queue.DeclareOk("q", 0, 0), commands.Basic.ConsumeOk("c")),
    deliver(1, 1, b"first", message_id="1"),
    frames(0, commands.Connection.Blocked("memory")),
    deliver(2, 1, bytes(9000), room=4088, headers={"a": [1, {"b": "c"}]}),
    returned(1, b"back"),
    frames(1, commands.Basic.Ack(2, True), commands.Basic.Nack(3)),
    deliver(1, 2, bytes(MAX + 5), room=4088),
    frames(0, commands.Connection.Unblocked()),
    frames(2, commands.Basic.Cancel("d", True), commands.Channel.Close(404, "NOT_FOUND", 60, 40)),
    deliver(1, 3, b""),
    frames(0, commands.Connection.Close(320, "bye", 0, 0)),
))


def converse(chunks: list[bytes]) -> tuple[list[tuple[Any, ...]], bytes]:
    """Return what the conversation means if it comes in these chunks, and what is answered."""
    connection = small()
    channel, _ = confirming(connection), open_channel(connection)
    channel.call(commands.Queue.Declare(queue="q"))
    channel.call(commands.Basic.Consume(queue="q", consumer_tag="c"))
    for _ in range(3):
        channel.publish(exchange="", routing_key="", properties=Properties(), body=b"")
    connection.data_to_send()
    events = [event for chunk in chunks for event in connection.receive(chunk)]
    values = [(type(event).__name__, *fields(event)) for event in events]
    return [tuple(dict(each) if hasattr(each, "amqp_type") else each for each in value) for value in values], (
        connection.data_to_send()
    )


WHOLE = converse([CONVERSATION])


def test_the_conversation_has_every_kind_of_event_of_an_open_connection() -> None:
    assert {name for name, *_ in WHOLE[0]} == {
        "Replied", "Delivered", "Blocked", "Unblocked", "Returned", "Confirmed", "TooLarge", "ConsumerCancelled",
        "ChannelClosed", "Closed",
    }  # fmt: skip


def test_byte_by_byte_means_the_same() -> None:
    assert converse([CONVERSATION[at : at + 1] for at in range(len(CONVERSATION))]) == WHOLE


@pytest.mark.slow
@unhurried
@given(st.lists(st.integers(0, len(CONVERSATION)), max_size=20))
def test_cut_anywhere_means_the_same(cuts: list[int]) -> None:
    points = [0, *sorted(cuts), len(CONVERSATION)]

    assert converse([CONVERSATION[begin:end] for begin, end in itertools.pairwise(points)]) == WHOLE
