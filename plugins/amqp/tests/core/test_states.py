"""Every state against everything that can happen in it: the tables are the whole truth, and an illegal move changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from kernel_amqp.core import Channel, ChannelState, Closed, Connection, ConnectionState, LocalError, Properties
from kernel_amqp.core.states import (
    CHANNEL_ASKED,
    CHANNEL_RECEIVES,
    CONNECTION_ASKED,
    CONNECTION_RECEIVES,
    DISCARDING,
)
from pamqp import body, commands, header, heartbeat
from pamqp.base import Frame

from .far_side import SETTINGS, START, TUNE, confirming, frames, kinds, open_channel, open_connection

DEFAULTS = {"bit": False, "shortstr": "", "longstr": "", "table": {}}
SPECIAL: dict[str, Frame] = {
    "Connection.Start": START,
    "Connection.Tune": TUNE,
    "Channel.Open": commands.Channel.Open(),
    "Channel.OpenOk": commands.Channel.OpenOk(),
    "Basic.Ack": commands.Basic.Ack(1),
    "Basic.Nack": commands.Basic.Nack(1),
}


def sample(kind: type[Frame]) -> Frame:
    """Return a method of a class that means no harm by its fields."""
    if kind.name in SPECIAL:
        return SPECIAL[kind.name]
    method = kind.__new__(kind)
    for name in kind.attributes():
        setattr(method, name, DEFAULTS.get(kind.amqp_type(name), 0))
    return method


METHODS = {kind.name: sample(kind) for kind in commands.INDEX_MAPPING.values()}
CONTENT = {
    "header": header.ContentHeader(0, 5, commands.Basic.Properties()),
    "body": body.ContentBody(b"12345"),
}


def idle() -> Connection:
    return Connection(SETTINGS)


def starting() -> Connection:
    connection = idle()
    connection.start()
    return connection


def tuning() -> Connection:
    connection = starting()
    connection.receive(frames(0, START))
    return connection


def opening() -> Connection:
    connection = tuning()
    connection.receive(frames(0, TUNE))
    return connection


def closing() -> Connection:
    connection = open_connection()
    connection.close()
    return connection


def closed() -> Connection:
    connection = open_connection()
    connection.receive(frames(0, commands.Connection.Close(320, "bye", 0, 0)))
    return connection


CONNECTIONS: dict[ConnectionState, Callable[[], Connection]] = {
    ConnectionState.IDLE: idle,
    ConnectionState.STARTING: starting,
    ConnectionState.TUNING: tuning,
    ConnectionState.OPENING: opening,
    ConnectionState.OPEN: open_connection,
    ConnectionState.CLOSING: closing,
    ConnectionState.CLOSED: closed,
}
TOLD = {ConnectionState.TUNING, ConnectionState.OPENING, ConnectionState.OPEN}
ASK_CONNECTION: dict[str, Callable[[Connection], Any]] = {
    "start": Connection.start,
    "open_channel": Connection.open_channel,
    "close": Connection.close,
}


def opening_channel(connection: Connection) -> Channel:
    return connection.open_channel()


def open_one(connection: Connection) -> Channel:
    """In confirm mode with one message under way, so that a confirm is legal."""
    channel = confirming(connection)
    channel.publish(exchange="", routing_key="", properties=Properties(), body=b"")
    return channel


def closing_channel(connection: Connection) -> Channel:
    channel = open_channel(connection)
    channel.close()
    return channel


def crossed_channel(connection: Connection) -> Channel:
    channel = closing_channel(connection)
    connection.receive(frames(channel.number, commands.Channel.Close(404, "no", 50, 10)))
    return channel


def closed_channel(connection: Connection) -> Channel:
    channel = open_channel(connection)
    connection.receive(frames(channel.number, commands.Channel.Close(404, "no", 50, 10)))
    return channel


CHANNELS: dict[ChannelState, Callable[[Connection], Channel]] = {
    ChannelState.OPENING: opening_channel,
    ChannelState.OPEN: open_one,
    ChannelState.CLOSING: closing_channel,
    ChannelState.CROSSED: crossed_channel,
    ChannelState.CLOSED: closed_channel,
}
ASK_CHANNEL: dict[str, Callable[[Channel], Any]] = {
    "call": lambda channel: channel.call(commands.Basic.Qos(prefetch_count=1)),
    "publish": lambda channel: channel.publish(exchange="", routing_key="", properties=Properties(), body=b"b"),
    "ack": lambda channel: channel.ack(1),
    "nack": lambda channel: channel.nack(1, requeue=True),
    "close": Channel.close,
}


def pairs(states: Any, names: Any) -> Any:
    return [pytest.param(state, name, id=f"{state.value}-{name}") for state, name in itertools.product(states, names)]


@pytest.mark.parametrize("table", [CONNECTION_RECEIVES, CONNECTION_ASKED], ids=["receives", "asked"])
def test_the_tables_of_a_connection_have_every_state(table: dict[ConnectionState, Any]) -> None:
    assert set(table) == set(ConnectionState)


@pytest.mark.parametrize("table", [CHANNEL_RECEIVES, CHANNEL_ASKED], ids=["receives", "asked"])
def test_the_tables_of_a_channel_have_every_state(table: dict[ChannelState, Any]) -> None:
    assert set(table) == set(ChannelState)


def test_the_builders_of_this_file_reach_the_states_they_are_for() -> None:
    assert {state: build().state for state, build in CONNECTIONS.items()} == {state: state for state in ConnectionState}
    assert {state: build(open_connection()).state for state, build in CHANNELS.items()} == {
        state: state for state in ChannelState
    }


@pytest.mark.parametrize(("state", "name"), pairs(ConnectionState, METHODS))
def test_what_the_peer_sends_moves_a_connection_as_the_table_says(state: ConnectionState, name: str) -> None:
    connection = CONNECTIONS[state]()
    connection.data_to_send()
    after = CONNECTION_RECEIVES[state].get(name)

    events = connection.receive(frames(0, METHODS[name]))

    if after is not None:
        assert connection.state is after
        assert not [event for event in events if isinstance(event, Closed) and event.code == 0 and event.text]
    elif state in {ConnectionState.CLOSING, ConnectionState.CLOSED}:
        assert (connection.state, events) == (state, [])
    else:
        assert connection.state is ConnectionState.CLOSED
        assert events == [Closed(0, f"the peer sent {name} in state {state.value}")]
        assert bool(connection.data_to_send()) is (state in TOLD)


@pytest.mark.parametrize(("state", "name"), pairs(ConnectionState, CONTENT))
def test_content_on_channel_0_is_a_violation(state: ConnectionState, name: str) -> None:
    connection = CONNECTIONS[state]()

    events = connection.receive(frames(0, CONTENT[name]))

    ignored = state is ConnectionState.CLOSED
    assert events == ([] if ignored else [Closed(0, "the peer sent content on channel 0")])
    assert connection.state is ConnectionState.CLOSED


@pytest.mark.parametrize("state", ConnectionState)
def test_a_heartbeat_of_the_peer_changes_nothing(state: ConnectionState) -> None:
    connection = CONNECTIONS[state]()
    before = connection.data_to_send()

    assert connection.receive(frames(0, heartbeat.Heartbeat())) == []
    assert (connection.state, connection.data_to_send()) == (state, b"")
    assert isinstance(before, bytes)


@pytest.mark.parametrize(("state", "name"), pairs(ConnectionState, ASK_CONNECTION))
def test_what_is_asked_moves_a_connection_as_the_table_says(state: ConnectionState, name: str) -> None:
    connection = CONNECTIONS[state]()
    connection.data_to_send()
    after = CONNECTION_ASKED[state].get(name)

    if after is None:
        with pytest.raises(LocalError, match=f"the connection is {state.value}: it does not take {name}"):
            ASK_CONNECTION[name](connection)
        assert (connection.state, connection.data_to_send()) == (state, b"")
    else:
        ASK_CONNECTION[name](connection)
        assert connection.state is after


@pytest.mark.parametrize("state", ConnectionState)
def test_heartbeats_are_sent_when_the_limits_are_known(state: ConnectionState) -> None:
    connection = CONNECTIONS[state]()
    connection.data_to_send()

    if state in {ConnectionState.IDLE, ConnectionState.STARTING, ConnectionState.TUNING}:
        with pytest.raises(LocalError, match="does not take heartbeats"):
            connection.send_heartbeat()
    else:
        connection.send_heartbeat()
    sent = state in {ConnectionState.OPENING, ConnectionState.OPEN, ConnectionState.CLOSING}
    assert connection.data_to_send() == (frames(0, heartbeat.Heartbeat()) if sent else b"")


@pytest.mark.parametrize(("state", "name"), pairs(ChannelState, METHODS))
def test_what_the_peer_sends_moves_a_channel_as_the_table_says(state: ChannelState, name: str) -> None:
    connection = open_connection()
    channel = CHANNELS[state](connection)
    connection.data_to_send()
    after = CHANNEL_RECEIVES[state].get(name)

    events = connection.receive(frames(channel.number, METHODS[name]))

    if after is not None:
        assert channel.state is after
        assert connection.state is ConnectionState.OPEN
    elif state in DISCARDING:
        assert (channel.state, events, connection.state) == (state, [], ConnectionState.OPEN)
    else:
        assert kinds(events) == [Closed]
        assert channel.state is ChannelState.CLOSED
        assert connection.state is ConnectionState.CLOSED


@pytest.mark.parametrize(("state", "name"), pairs(ChannelState, [*CONTENT, "heartbeat"]))
def test_content_that_nothing_announced_is_a_violation(state: ChannelState, name: str) -> None:
    connection = open_connection()
    channel = CHANNELS[state](connection)
    value = b"\x08" + channel.number.to_bytes(2, "big") + b"\0\0\0\0\xce"

    events = connection.receive(value if name == "heartbeat" else frames(channel.number, CONTENT[name]))

    if state in DISCARDING:
        assert (channel.state, events) == (state, [])
    else:
        assert kinds(events) == [Closed]
        assert connection.state is ConnectionState.CLOSED


@pytest.mark.parametrize(("state", "name"), pairs(ChannelState, ASK_CHANNEL))
def test_what_is_asked_moves_a_channel_as_the_table_says(state: ChannelState, name: str) -> None:
    connection = open_connection()
    channel = CHANNELS[state](connection)
    connection.data_to_send()
    after = CHANNEL_ASKED[state].get(name)

    if after is None:
        with pytest.raises(LocalError, match=f"channel 1 is {state.value}: it does not take {name}"):
            ASK_CHANNEL[name](channel)
        assert (channel.state, connection.data_to_send()) == (state, b"")
    else:
        ASK_CHANNEL[name](channel)
        assert channel.state is after
        assert connection.data_to_send()


@pytest.mark.parametrize("state", [each for each in ChannelState if each is not ChannelState.CLOSED])
@pytest.mark.parametrize("end", ["close", "closed by the peer", "violation"])
def test_channels_end_with_their_connection(state: ChannelState, end: str) -> None:
    connection = open_connection()
    channel = CHANNELS[state](connection)

    if end == "close":
        connection.close()
    else:
        connection.receive(frames(0, commands.Connection.Close(320, "x", 0, 0)) if end != "violation" else b"\xff")

    assert channel.state is ChannelState.CLOSED
