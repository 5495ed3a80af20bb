"""Acknowledgements that are sent together: what the broker takes from them is what was settled, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_amqp.core import Channel, Connection
from kernel_amqp.core.acks import Acks
from pamqp import commands
from pamqp.frame import unmarshal
from pamqp.header import ContentHeader

from .far_side import frames, open_channel, open_connection


@attrs.define
class Broker:
    """Takes acknowledgements as RabbitMQ does: a tag that it does not know is an error."""

    unsettled: list[int] = attrs.field(factory=list[int])

    def take(self, frames: Sequence[tuple[int, bool]]) -> None:
        for tag, below in frames:
            assert tag in self.unsettled, f"unknown delivery tag {tag}"
            self.unsettled = [other for other in self.unsettled if (other > tag if below else other != tag)]


STEPS = st.lists(st.tuples(st.sampled_from(["deliver", "ack", "nack", "send", "all"]), st.integers(0, 30)), max_size=80)


@given(steps=STEPS, first=st.sampled_from([1, 1, 1, 5]), gap=st.sampled_from([1, 1, 1, 2]))
def test_the_broker_takes_what_was_settled_and_no_more(steps: list[tuple[str, int]], first: int, gap: int) -> None:
    acks, broker, ours, following = Acks(), Broker(), list[int](), first
    for step, number in steps:
        tag = ours[number % len(ours)] if ours else None
        match step:
            case "deliver":
                acks.delivered(following)
                broker.unsettled.append(following)
                ours.append(following)
                following += gap
            case "ack" if tag is not None:
                acks.add(tag)
                ours.remove(tag)
            case "nack" if tag is not None:
                broker.take([(tag, False)])
                acks.settled(tag)
                ours.remove(tag)
            case "all" if tag is not None:
                broker.take(acks.take())
                broker.take([(tag, True)])
                acks.settled(tag, below=True)
                ours = [other for other in ours if other > tag]
            case _:
                broker.take(acks.take())
                assert broker.unsettled == ours
    broker.take(acks.take())

    assert broker.unsettled == ours


def test_those_that_stand_next_to_each_other_are_one_frame() -> None:
    acks = Acks()
    for tag in range(1, 101):
        acks.delivered(tag)
    for tag in (3, 1, 2, 7, *range(10, 100)):
        acks.add(tag)
    first = acks.take()
    for tag in (4, 5, 6, 8, 9):
        acks.add(tag)

    assert first == [(3, True), (7, False), *((tag, False) for tag in range(10, 100))]
    assert acks.take() == [(9, True)]


@pytest.mark.parametrize("tag", [1, 2])
def test_one_alone_names_only_itself(tag: int) -> None:
    acks = Acks()
    acks.delivered(1)
    acks.delivered(2)
    acks.add(tag)

    assert acks.take() == [(tag, False)]
    assert acks.take() == []


def delivered(count: int) -> tuple[Connection, Channel]:
    connection = open_connection()
    channel = open_channel(connection)
    for tag in range(1, count + 1):
        connection.receive(frames(channel.number, commands.Basic.Deliver("c", tag, False, "", "q")))
        connection.receive(frames(channel.number, ContentHeader(0, 0, commands.Basic.Properties())))
    return connection, channel


@pytest.mark.parametrize("of", ["channel", "connection"])
def test_acknowledgements_are_sent_before_what_closes_their_channel(of: str) -> None:
    connection, channel = delivered(3)
    for tag in (1, 2, 3):
        channel.ack(tag)
    (channel if of == "channel" else connection).close()
    sent = sent_frames(connection)

    assert [type(frame).__qualname__ for _, frame in sent] == ["Basic.Ack", f"{of.title()}.Close"]
    assert (sent[0][1].delivery_tag, sent[0][1].multiple) == (3, True)


def test_a_connection_sends_what_its_channels_acknowledge() -> None:
    connection, channel = delivered(3)
    channel.ack(2)
    channel.nack(1, requeue=True)
    first = [(type(frame).__qualname__, frame.delivery_tag) for _, frame in sent_frames(connection)]
    channel.ack(3)

    assert first == [("Basic.Nack", 1), ("Basic.Ack", 2)]
    assert [(frame.delivery_tag, frame.multiple) for _, frame in sent_frames(connection)] == [(3, False)]


def sent_frames(connection: Connection) -> list[tuple[int, Any]]:
    data, found = connection.data_to_send(), list[tuple[int, Any]]()
    while data:
        size, number, frame = unmarshal(data)
        found.append((number, frame))
        data = data[size:]
    return found
