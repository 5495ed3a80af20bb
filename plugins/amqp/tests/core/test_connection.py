from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_amqp.core import (
    Blocked,
    ChannelState,
    Closed,
    Connection,
    ConnectionState,
    EncodingError,
    LocalError,
    Opened,
    Properties,
    Settings,
    Unblocked,
)
from pamqp import commands, heartbeat

from .far_side import (
    HEARTBEAT,
    SETTINGS,
    START,
    TUNE,
    deliver,
    frames,
    names,
    open_channel,
    open_connection,
    raw,
    sent,
)
from .strategies import unhurried


def started(settings: Settings = SETTINGS) -> Connection:
    connection = Connection(settings)
    connection.start()
    connection.data_to_send()
    return connection


def test_it_says_whether_it_has_something_to_send() -> None:
    connection = open_connection()
    channel = open_channel(connection)
    said = [connection.has_data_to_send]
    connection.receive(deliver(channel.number, 1, b"tea"))
    said.append(connection.has_data_to_send)
    channel.ack(1)
    said.append(connection.has_data_to_send)
    connection.data_to_send()
    said.append(connection.has_data_to_send)
    connection.receive(frames(channel.number, commands.Channel.Close(404, "gone", 60, 40)))
    said.append(connection.has_data_to_send)

    assert said == [False, False, True, False, True]


def test_a_connection_is_opened_step_by_step() -> None:
    connection = Connection(Settings(response="\0u\0p", virtual_host="orders", properties={"product": "kernel"}))
    assert connection.data_to_send() == b""

    connection.start()
    assert connection.data_to_send() == b"AMQP\x00\x00\x09\x01"

    assert connection.receive(frames(0, START)) == []
    [(channel, start_ok)] = sent(connection)
    assert (channel, start_ok.mechanism, start_ok.response, start_ok.locale) == (0, "PLAIN", "\0u\0p", "en_US")
    assert start_ok.client_properties["product"] == "kernel"
    assert start_ok.client_properties["capabilities"]["consumer_cancel_notify"] is True

    assert connection.receive(frames(0, TUNE)) == []
    [(_, tune_ok), (_, entry)] = sent(connection)
    assert (tune_ok.channel_max, tune_ok.frame_max, tune_ok.heartbeat) == (2047, 131072, 10)
    assert entry.virtual_host == "orders"

    assert connection.receive(frames(0, commands.Connection.OpenOk())) == [Opened({"product": "far side"}, 10.0)]
    assert connection.state is ConnectionState.OPEN
    assert connection.data_to_send() == b""


def test_external_sends_what_it_was_told_to() -> None:
    connection = started(Settings(mechanism="EXTERNAL", response=""))

    connection.receive(frames(0, START))

    [(_, start_ok)] = sent(connection)
    assert (start_ok.mechanism, start_ok.response) == ("EXTERNAL", "")


def test_the_client_cannot_hide_what_the_core_can_do() -> None:
    connection = started(Settings(properties={"capabilities": {"basic.nack": False}}))

    connection.receive(frames(0, START))

    assert sent(connection)[0][1].client_properties["capabilities"]["basic.nack"] is True


@pytest.mark.parametrize(
    ("ours", "theirs", "result"),
    [
        ((2047, 131072, 10.0), (2047, 131072, 60), (2047, 131072, 10.0)),
        ((2047, 131072, 60.0), (100, 4096, 10), (100, 4096, 10.0)),
        ((2047, 131072, 10.0), (0, 0, 0), (2047, 131072, 10.0)),
        ((2047, 131072, 0.0), (2047, 131072, 60), (2047, 131072, 0.0)),
        ((2047, 131072, 6.9), (2047, 131072, 60), (2047, 131072, 6.0)),
        ((2047, 131072, 0.2), (2047, 131072, 60), (2047, 131072, 1.0)),
        ((1, 4096, 1.0), (65535, 4294967295, 65535), (1, 4096, 1.0)),
    ],
)
def test_the_smaller_limit_of_both_counts(ours: Any, theirs: tuple[int, int, int], result: Any) -> None:
    channel_max, frame_max, seconds = ours
    connection = started(Settings(channel_max=channel_max, frame_max=frame_max, heartbeat=seconds))
    connection.receive(frames(0, START))
    connection.data_to_send()

    connection.receive(frames(0, commands.Connection.Tune(*theirs)))

    tune_ok = sent(connection)[0][1]
    assert (tune_ok.channel_max, tune_ok.frame_max, float(tune_ok.heartbeat)) == result
    assert (connection.channel_max, connection.frame_max, connection.heartbeat) == result


def test_a_peer_that_takes_no_usable_frames_is_refused() -> None:
    connection = started()
    connection.receive(frames(0, START))

    assert connection.receive(frames(0, commands.Connection.Tune(0, 4095, 0))) == [
        Closed(0, "the peer takes frames of 4095 bytes only")
    ]
    assert names(connection) == ["Connection.Close"]


def test_frames_beyond_what_was_negotiated_are_a_violation() -> None:
    connection = open_connection(tune=commands.Connection.Tune(10, 4096, 0))
    channel = open_channel(connection)

    [closed] = connection.receive(raw(3, channel.number, bytes(4089)))

    assert isinstance(closed, Closed)
    assert "4089 bytes" in closed.text


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_peer_of_another_version_is_named(cut: int) -> None:
    connection = started()
    answer = b"AMQP\x00\x01\x00\x00"

    events = [*connection.receive(answer[:cut]), *connection.receive(answer[cut:])]

    assert events == [Closed(0, "the peer does not speak AMQP 0-9-1, but 0.1.0.0")]
    assert connection.data_to_send() == b""


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x16", b"\xff"])
def test_a_peer_that_speaks_something_else_is_found_at_once(garbage: bytes) -> None:
    connection = started()

    [closed] = connection.receive(garbage[:1])

    assert isinstance(closed, Closed)
    assert connection.receive(garbage[1:]) == []
    assert connection.data_to_send() == b""


def test_a_peer_of_version_0_8_is_refused() -> None:
    connection = started()

    assert connection.receive(frames(0, commands.Connection.Start(8, 0, {}, "PLAIN", "en_US"))) == [
        Closed(0, "the peer does not speak AMQP 0-9-1")
    ]


def test_a_peer_that_does_not_offer_the_mechanism_is_refused() -> None:
    connection = started(Settings(mechanism="EXTERNAL"))

    [closed] = connection.receive(frames(0, commands.Connection.Start(0, 9, {}, "PLAIN AMQPLAIN", "en_US")))

    assert closed == Closed(0, "the peer offers PLAIN AMQPLAIN and not EXTERNAL")


def test_a_peer_with_endless_offers_is_told_a_text_that_fits() -> None:
    connection = started(Settings(mechanism="EXTERNAL"))
    [closed] = connection.receive(frames(0, commands.Connection.Start(0, 9, {}, "é" * 5000, "en_US")))
    assert isinstance(closed, Closed)

    tuning = started()
    tuning.receive(frames(0, START))
    tuning.receive(raw(1, 0, b"\x00\x0a\x00\x1e" + bytes(300)))

    assert names(tuning)[-1] == "Connection.Close"


def test_another_round_of_authentication_is_a_violation() -> None:
    connection = started()
    connection.receive(frames(0, START))

    assert connection.receive(frames(0, commands.Connection.Secure("more"))) == [
        Closed(0, "the peer sent Connection.Secure in state tuning")
    ]


@pytest.mark.parametrize("until", [1, 2])
def test_a_refused_login_is_told_with_its_code(until: int) -> None:
    connection = started()
    for method in (START, TUNE)[:until]:
        connection.receive(frames(0, method))
    connection.data_to_send()

    refusal = commands.Connection.Close(403, "ACCESS_REFUSED - login refused", 0, 0)

    assert connection.receive(frames(0, refusal)) == [Closed(403, "ACCESS_REFUSED - login refused")]
    assert names(connection) == ["Connection.CloseOk"]


def test_a_connection_is_closed_by_us_with_a_handshake() -> None:
    connection = open_connection()

    connection.close(200, "done")

    [(_, close)] = sent(connection)
    assert (close.reply_code, close.reply_text) == (200, "done")
    assert connection.receive(frames(0, commands.Connection.CloseOk())) == [Closed(200, "done")]
    assert connection.state is ConnectionState.CLOSED


def test_closing_twice_sends_one_close() -> None:
    connection = open_connection()

    connection.close()
    connection.close(500, "again")

    assert names(connection) == ["Connection.Close"]
    assert connection.receive(frames(0, commands.Connection.CloseOk())) == [Closed(200, "")]


def test_what_is_under_way_while_closing_is_discarded() -> None:
    connection = open_connection()
    channel = open_channel(connection)
    connection.close()

    assert connection.receive(deliver(channel.number, 1, b"late")) == []
    assert connection.receive(frames(0, commands.Connection.Blocked("memory"))) == []
    assert connection.receive(frames(0, commands.Connection.CloseOk())) == [Closed(200, "")]


def test_both_may_close_at_once() -> None:
    connection = open_connection()
    connection.close()
    connection.data_to_send()

    events = connection.receive(frames(0, commands.Connection.Close(320, "shutdown", 0, 0)))

    assert events == [Closed(320, "shutdown")]
    assert names(connection) == ["Connection.CloseOk"]


def test_a_close_of_the_peer_drops_what_was_not_sent() -> None:
    connection = open_connection()
    channel = open_channel(connection)
    channel.publish(exchange="", routing_key="q", properties=Properties(), body=b"never")

    assert connection.receive(frames(0, commands.Connection.Close(320, "shutdown", 0, 0))) == [Closed(320, "shutdown")]
    assert names(connection) == ["Connection.CloseOk"]


def test_what_follows_a_close_of_the_peer_is_ignored() -> None:
    connection = open_connection()
    close = frames(0, commands.Connection.Close(320, "shutdown", 0, 0))

    assert connection.receive(close + close + b"garbage") == [Closed(320, "shutdown")]
    assert connection.receive(b"garbage") == []


def test_events_before_a_violation_are_told() -> None:
    connection = open_connection()
    channel = open_channel(connection)

    events = connection.receive(deliver(channel.number, 1, b"good") + b"\xff")

    assert [type(event).__name__ for event in events] == ["Delivered", "Closed"]


def test_the_text_of_a_close_is_cut_to_what_fits() -> None:
    connection = open_connection()

    connection.close(200, "é" * 300)

    [(_, close)] = sent(connection)
    assert close.reply_text == "é" * 127
    assert connection.receive(frames(0, commands.Connection.CloseOk())) == [Closed(200, "é" * 300)]


def test_a_code_that_the_wire_cannot_carry_closes_nothing() -> None:
    connection = open_connection()

    with pytest.raises(EncodingError):
        connection.close(65536)

    assert (connection.state, connection.data_to_send()) == (ConnectionState.OPEN, b"")


def test_a_broker_that_is_short_of_memory_says_so() -> None:
    connection = open_connection()

    assert connection.receive(frames(0, commands.Connection.Blocked("low on memory"))) == [Blocked("low on memory")]
    assert connection.receive(frames(0, commands.Connection.Unblocked())) == [Unblocked()]


def test_texts_of_the_broker_can_be_printed() -> None:
    connection = open_connection()

    [blocked] = connection.receive(raw(1, 0, b"\x00\x0a\x00\x3c\x03\xffab"))

    assert blocked == Blocked("\ufffdab")


def test_a_heartbeat_is_eight_bytes() -> None:
    connection = open_connection()

    connection.send_heartbeat()

    assert connection.data_to_send() == HEARTBEAT == frames(0, heartbeat.Heartbeat())


def test_a_frame_on_a_channel_that_is_not_open_is_a_violation() -> None:
    connection = open_connection()

    assert connection.receive(frames(7, commands.Channel.OpenOk())) == [
        Closed(0, "the peer sent a frame on channel 7, which is not open")
    ]
    [(_, close)] = sent(connection)
    assert close.reply_code == 504


def test_channels_get_the_lowest_number_that_is_free() -> None:
    connection = open_connection()
    channels = [open_channel(connection) for _ in range(4)]
    for channel in (channels[2], channels[0]):
        channel.close()
        connection.receive(frames(channel.number, commands.Channel.CloseOk()))

    numbers = [open_channel(connection).number for _ in range(3)]

    assert [channel.number for channel in channels] == [1, 2, 3, 4]
    assert numbers == [1, 3, 5]


def test_a_number_is_not_free_before_its_channel_is_closed() -> None:
    connection = open_connection()
    first = open_channel(connection)

    first.close()

    assert connection.open_channel().number == 2


def test_an_old_channel_is_not_the_one_that_has_its_number() -> None:
    connection = open_connection()
    old = open_channel(connection)
    connection.receive(frames(1, commands.Channel.Close(404, "NOT_FOUND", 60, 40)))
    young = open_channel(connection)

    assert (old.number, young.number) == (1, 1)
    with pytest.raises(LocalError, match="closed"):
        old.ack(1)
    assert connection.data_to_send() == b""


def test_channels_are_bounded_by_what_was_negotiated() -> None:
    connection = open_connection(tune=commands.Connection.Tune(2, 131072, 0))
    open_channel(connection)
    open_channel(connection)

    with pytest.raises(LocalError, match="all 2 channels"):
        connection.open_channel()
    assert connection.data_to_send() == b""


def test_nothing_is_queued_twice() -> None:
    connection = open_connection()
    open_channel(connection).ack(1)

    assert names(connection) == ["Basic.Ack"]
    assert connection.data_to_send() == b""


def test_the_response_is_shown_nowhere() -> None:
    connection = open_connection(Settings(response="\0user\0hunter2"))
    channel = open_channel(connection)

    assert "hunter2" not in repr(connection) + repr(channel) + repr(connection._settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"frame_max": 4095},
        {"frame_max": 1 << 31},
        {"channel_max": 0},
        {"channel_max": 65536},
        {"heartbeat": -1.0},
        {"heartbeat": 65536.0},
        {"mechanism": "GUESS"},
        {"max_message_bytes": -1},
        {"virtual_host": "v" * 256},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)


@pytest.mark.parametrize("wrong", [{"properties": {"k": object()}}, {"virtual_host": "\ud800"}, {"response": "\ud800"}])
def test_settings_that_the_wire_cannot_carry_are_refused_before_anything_is_sent(wrong: dict[str, Any]) -> None:
    with pytest.raises(EncodingError):
        Connection(Settings(**wrong))


@unhurried
@given(st.lists(st.binary(max_size=50), max_size=5))
def test_whatever_comes_first_the_connection_says_so_or_waits(chunks: list[bytes]) -> None:
    connection = started()

    events = [event for chunk in chunks for event in connection.receive(chunk)]

    assert len(events) <= 1
    assert all(isinstance(event, Closed) for event in events)


def test_empty_reads_mean_nothing() -> None:
    connection = open_connection()

    assert connection.receive(b"") == []
    assert open_channel(connection).state is ChannelState.OPEN
