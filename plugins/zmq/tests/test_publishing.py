"""What is published: with plain sockets and their bytes, through a proxy, and what becomes of what fails."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
import trio
import zmq
from kernel_zmq import MessageLost

from kernel import Envelope, handles
from kernel.errors import QueueFullError, TransientError

from .raw import Inbox, open_raw, serving


class Ear:
    def __init__(self) -> None:
        self.heard = Inbox()

    @handles("news.#", "ear")
    async def hear(self, payload: object, envelope: Envelope) -> None:
        self.heard.put((envelope.subject, payload, dict(envelope.headers)))


class Failing(Ear):
    """Fails until it is called the third time; what says so fails for good."""

    @handles("news.#", "ear")
    async def hear(self, payload: object, envelope: Envelope) -> None:
        self.heard.put(payload)
        if payload == "never" or len(self.heard.seen) < 3:
            raise TransientError("not yet", after=0.001)


def ear_at(address: str, **table: Any) -> dict[str, Any]:
    return {"dispatchers": {"ear": {"plugin": "zmq_subscribe", "connect": [address], **table}}}


def news_at(address: str, **table: Any) -> dict[str, Any]:
    return {"drivers": {"news": {"plugin": "zmq_publish", "bind": [address], **table}}}


async def test_a_plain_publisher_is_heard(address: str) -> None:
    async with (
        open_raw(zmq.XPUB, bind=address) as pub,
        serving({"ear": Ear}, **ear_at(address, topics=["news."], concurrency=1)) as ours,
    ):
        assert await pub.recv() == [b"\1news."]
        await pub.send([b"other", b"0"])
        await pub.send([b"news.tea", b"1"])
        await pub.send([b"news.oil", b"2"])

        heard = await ours.resource("worker/ear").heard.get(2)

    assert heard == [("news.tea", 1, {}), ("news.oil", 2, {})]


async def test_a_plain_subscriber_hears(address: str) -> None:
    async with (
        serving({}, **news_at(address)) as ours,
        open_raw(zmq.SUB, connect=address, subscribe=b"news.") as sub,
    ):
        with trio.fail_after(5):
            frames = await published_until_heard(ours.resource("driver/news"), sub, "news.tea", {"n": 1})

    assert frames == [b"news.tea", b'{"n":1}']


async def published_until_heard(publisher: Any, sub: Any, subject: str, payload: object, **more: Any) -> list[bytes]:
    """Return the first message that comes: to subscribe takes effect some time after connecting."""
    while True:
        await publisher.publish(subject, payload, **more)
        with trio.move_on_after(0.01):
            frames: list[bytes] = await sub.recv()
            return frames


@pytest.mark.parametrize("topic", ["quotes", ""])
async def test_one_frame_with_the_topic_is_what_service_framework_sends_and_takes(address: str, topic: str) -> None:
    framed = {"framing": "service_framework", "protocol": "service_framework"}
    packed = msgpack.packb(topic) if topic else b""
    body = packed + msgpack.packb({"args": {"price": 2}, "workflow_id": "w"})
    table = ear_at(address, topics=[topic], subject="ear", **framed)
    async with open_raw(zmq.XPUB, bind=address) as pub, serving({"ear": Anything}, **table) as ours:
        assert await pub.recv() == [b"\1" + packed]
        await pub.send([body])
        [heard] = await ours.resource("worker/ear").heard.get(1)

    assert heard == (topic or "ear", {"price": 2})


class Anything(Ear):
    @handles("#")
    async def hear(self, payload: object, envelope: Envelope) -> None:
        self.heard.put((envelope.subject, payload))


async def test_headers_and_ids_travel_between_services(address: str) -> None:
    async with (
        open_raw(zmq.SUB, connect=address, subscribe=b"") as sub,
        serving({"ear": Ear}, **ear_at(address), **news_at(address)) as ours,
    ):
        with trio.fail_after(5):
            await published_until_heard(ours.resource("driver/news"), sub, "news.tea", 1, headers={"k": "v"})
            ear = ours.resource("worker/ear").heard
            while not ear.seen:  # its subscription may arrive after that of the other one
                await ours.resource("driver/news").publish("news.tea", 1, headers={"k": "v"})
                with trio.move_on_after(0.05):
                    await ear.get(1)
            heard = ear.seen

    assert heard[0] == ("news.tea", 1, {"k": "v"})


async def test_publishers_and_subscribers_meet_at_a_proxy(address: str) -> None:
    inside, outside = f"{address}1", f"{address}2"
    proxy = {"proxy": {"plugin": "zmq_proxy", "publishers": inside, "subscribers": outside}}
    news = {"news": {"plugin": "zmq_publish", "connect": [inside]}}
    async with (
        serving({}, drivers=proxy) as middle,
        serving({"ear": Ear}, **ear_at(outside, topics=["news."])) as listener,
        serving({}, drivers=news) as publisher,
    ):
        heard = listener.resource("worker/ear").heard
        with trio.fail_after(5):
            while not heard.seen:
                await publisher.publish("news", "news.tea", 1)
                await trio.sleep(0.005)

        assert middle.resource("driver/proxy").forwarded >= 1
        assert heard.seen[0] == ("news.tea", 1, {})


async def test_what_fails_is_tried_again_and_then_lost_with_an_event(address: str) -> None:
    async with (
        open_raw(zmq.XPUB, bind=address) as pub,
        serving({"ear": Failing}, worker={"retry": {"attempts": 3}}, **ear_at(address)) as ours,
    ):
        await pub.recv()
        heard = ours.resource("worker/ear").heard
        await pub.send([b"ear", b'"third time"'])
        await heard.get(3)
        await pub.send([b"ear", b'"never"'])
        lost = await ours.wait_event(MessageLost)
        await pub.send([b"ear", b"not json"])
        undecodable = await ours.wait_event(MessageLost, lambda event: event.id != lost.id)

    assert heard.seen == ["third time"] * 3 + ["never"] * 3
    assert "not yet" in lost.reason
    assert "DecodeError" in undecodable.reason


async def test_a_message_that_waits_for_its_next_attempt_is_lost_with_an_event_at_the_stop(address: str) -> None:
    async with open_raw(zmq.XPUB, bind=address) as pub, serving({"ear": Patient}, **ear_at(address)) as ours:
        await pub.recv()
        await pub.send([b"ear", b"1"])
        await ours.resource("worker/ear").heard.get(1)
        await ours.wait_settled(1)
        await ours.stop()

        lost = await ours.wait_event(MessageLost)

    assert "next attempt" in lost.reason


class Patient(Ear):
    @handles("ear")
    async def hear(self, payload: object) -> None:
        self.heard.put(payload)
        raise TransientError("later", after=1000)


@pytest.mark.parametrize("full", ["drop", "refuse"])
async def test_a_subscriber_that_does_not_read_costs_a_bounded_number_of_messages(address: str, full: str) -> None:
    refused = 0
    payload = "x" * 50_000
    async with (
        open_raw(zmq.SUB, connect=address, subscribe=b"", rcvhwm=1) as sub,
        serving({}, **news_at(address, full=full, send_high_water=5, linger=0.0)) as ours,
    ):
        news = ours.resource("driver/news")
        with trio.fail_after(5):
            await published_until_heard(news, sub, "news", "first")
        for _ in range(300):
            try:
                await news.publish("news", payload)
            except QueueFullError:
                refused += 1

    assert (refused > 0) == (full == "refuse")
