"""Frames and envelopes: whatever comes, it means something or nothing, and nothing is raised."""

from __future__ import annotations

import math

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_zmq._config import CurveConfig, ReplyConfig, RequestConfig, endpoint, problems
from kernel_zmq._wire import (
    Cancellation,
    Malformed,
    Request,
    read_publication,
    read_reply,
    read_request,
    topic_filter,
    write_cancellation,
    write_publication,
    write_reply,
    write_request,
)

from kernel import Envelope, Secret

FRAMES = st.lists(
    st.binary(max_size=20)
    | st.sampled_from([b"", b"\1kernel {", b"\1kernel {}", b"\1kernel-cancel", b"\xd9", b"\xda\xff\xff"]),
    min_size=1,
    max_size=6,
)


@given(FRAMES)
def test_no_message_makes_reading_it_fail(frames: list[bytes]) -> None:
    read_request([b"peer", *frames], subject="s", now=0.0)
    read_reply(frames)
    for framing in ("frames", "service_framework", "body"):
        read_publication(frames, framing, subject="s")


def test_a_request_comes_back_and_its_answer_finds_the_call() -> None:
    asked = Envelope(subject="a.b", body=b"x", headers={"k": "v"}, deadline=12.5)
    frames = write_request(asked, b"call", now=10.0)

    request = read_request([b"peer", *frames], subject="else", now=100.0)

    assert isinstance(request, Request)
    came = request.envelope
    assert (came.subject, came.body, came.headers, came.deadline) == ("a.b", b"x", {"k": "v"}, 102.5)
    assert write_reply(request, Envelope(subject="zmq", body=b"y")) == [b"peer", b"call", b"", b"y"]
    assert read_reply([b"call", b"", b"y"]) is not None
    cancellation = read_request([b"peer", *write_cancellation(b"call")], subject="else", now=0.0)
    assert cancellation == Cancellation(request.name)


def test_a_rep_socket_and_a_req_socket_see_bodies_alone() -> None:
    frames = write_request(Envelope(subject="a", body=b"x"), b"call", now=0.0)

    assert frames[frames.index(b"") + 1 :] == [b"x"]  # REP gives its user what follows the empty frame
    assert b"" not in write_cancellation(b"call")  # and drops what has none

    plain = read_request([b"peer", b"", b"x"], subject="s", now=0.0)
    assert isinstance(plain, Request)
    assert (plain.envelope.subject, plain.envelope.deadline, plain.name) == ("s", math.inf, "")
    assert write_reply(plain, Envelope(subject="zmq", body=b"y", headers={"k": 1})) == [b"peer", b"", b"y"]


def test_the_facts_that_rep_gives_back_are_no_headers_of_the_answer() -> None:
    call, facts, empty, _body = write_request(Envelope(subject="a", headers={"k": "v"}), b"call", now=0.0)

    answer = read_reply([call, facts, empty, b"y"])

    assert answer is not None
    assert (answer[0], answer[1].body, answer[1].headers) == (b"call", b"y", {})


def test_a_request_of_two_frames_names_its_subject() -> None:
    request = read_request([b"peer", b"", b"a.b", b"x"], subject="s", now=0.0)

    assert isinstance(request, Request)
    assert (request.envelope.subject, request.envelope.body) == ("a.b", b"x")


@pytest.mark.parametrize(
    ("frames", "reason", "back"),
    [
        ([b"", b"a", b"b", b"c"], "not 3 frames", [b"peer", b""]),
        ([b"", *[b"x"] * 1000], "not 1000 frames", [b"peer", b""]),
        ([b""], "not 0 frames", [b"peer", b""]),
        ([b"", b"\xff", b"x"], "not UTF-8", [b"peer", b""]),
        ([b"call", b"\1kernel {", b"", b"x"], "", [b"peer", b"call", b""]),
        *(
            ([b"call", b"\1kernel " + facts, b"", b"x"], reason, [b"peer", b"call", b""])
            for facts, reason in {
                b"[]": "no object",
                b"null": "no object",
                b'{"headers": [1]}': "headers",
                b'{"headers": null}': "headers",
                b'{"subject": 5}': "subject",
                b'{"subject": null}': "subject",
                b'{"kernel-deadline": -1}': "kernel-deadline",
                b'{"kernel-deadline": "-1"}': "kernel-deadline",
                b'{"kernel-deadline": null}': "kernel-deadline",
                b'{"kernel-deadline": 1.5}': "kernel-deadline",
                b'{"kernel-deadline": "soon"}': "kernel-deadline",
            }.items()
        ),
        ([b"x"], "no empty frame", None),
    ],
)
def test_what_is_no_request_has_a_reason_and_an_answer_where_there_is_an_address(
    frames: list[bytes], reason: str, back: list[bytes] | None
) -> None:
    malformed = read_request([b"peer", *frames], subject="s", now=0.0)

    assert isinstance(malformed, Malformed)
    assert reason in malformed.reason
    answer = malformed.request and write_reply(malformed.request, Envelope(subject="zmq", body=b"y"))
    assert answer == (back and [*back, b"y"])


@pytest.mark.parametrize("topic", ["", "a", "x" * 31, "x" * 32, "é" * 100, "x" * 256, "x" * 65535])
def test_a_topic_is_framed_as_messagepack_writes_it(topic: str) -> None:
    [frame] = write_publication(Envelope(subject=topic, body=b"\x81"), "service_framework")

    assert frame == msgpack.packb(topic) + b"\x81"
    assert not topic or frame.startswith(topic_filter(topic, "service_framework"))
    read = read_publication([frame], "service_framework", subject="else")
    assert read is not None
    assert (read.subject, read.body) == (topic or "else", b"\x81")


def test_headers_stand_behind_what_a_plain_subscriber_reads() -> None:
    plain, rich = (Envelope(subject="a", body=b"x", headers=headers) for headers in ({}, {"k": "v"}))

    assert write_publication(plain, "frames") == [b"a", b"x"]
    frames = write_publication(rich, "frames")
    assert frames[:2] == [b"a", b"x"]
    read = read_publication(frames, "frames", subject="s")
    assert read is not None
    assert (read.id, read.headers) == (rich.id, {"k": "v"})


@pytest.mark.parametrize("facts", [b"{", b"[]", b'{"headers": 1}', b'{"headers": null}', b'{"id": 5}', b'{"id": null}'])
def test_facts_of_a_publication_make_sense_or_it_means_nothing(facts: bytes) -> None:
    assert read_publication([b"a", b"x", b"\1kernel " + facts], "frames", subject="s") is None


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("5555", "tcp://127.0.0.1:5555"),
        (":5555", "tcp://127.0.0.1:5555"),
        ("127.0.0.1:8001", "tcp://127.0.0.1:8001"),
        ("[::1]:5555", "tcp://[::1]:5555"),
        ("tcp://*:5555", "tcp://*:5555"),
        ("ipc:///tmp/x", "ipc:///tmp/x"),
        ("inproc://x", "inproc://x"),
    ],
)
def test_an_endpoint_is_local_unless_it_says_otherwise(written: str, means: str) -> None:
    assert endpoint(written) == means


@pytest.mark.parametrize("written", ["", "localhost", "udp://x:1", "tcp://", "host:port"])
def test_what_is_no_endpoint_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        RequestConfig(connect=(written,))


def test_a_table_that_says_too_little_is_refused() -> None:
    key = CurveConfig(secret_key=Secret("x" * 40))

    assert list(problems(ReplyConfig())) == ["neither `bind` nor `connect` says where the peers are"]
    assert len(list(problems(ReplyConfig(bind=("5555",), curve=key)))) == 1
