"""Header blocks of HTTP/2 that are known again mean, byte for byte, what they would mean to who had never seen one."""

from __future__ import annotations

from typing import Any

import h2.errors
import h2.events
import h2.exceptions
import hpack
import pytest
from hyperframe.frame import HeadersFrame, SettingsFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_web.http2.known import BLOCKS_MAX, Decoder, Encoder
from kernel_web.http2.protocol import build_protocol

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = [(b":method", b"GET"), (b":path", b"/"), (b":scheme", b"http"), (b":authority", b"a")]
FIELD = st.tuples(
    st.sampled_from([b":method", b"date", b"x", b"cookie"]), st.sampled_from([b"GET", b"", b"1", b"2" * 30, b"3" * 300])
)
LIST = st.lists(FIELD, max_size=5)
SIZE = st.sampled_from([0, 40, 100, 4096])
STEPS = st.lists(st.one_of(LIST, SIZE, st.just("forget"), st.just("many")), max_size=40)


def several(step: Any) -> list[list[tuple[bytes, bytes]]]:
    return [[(b"x", b"%d" % n)] for n in range(2 * BLOCKS_MAX)] * 2 if step == "many" else [step]


def resize(encoder: hpack.Encoder, size: int) -> None:
    if size != encoder.header_table_size:  # hpack would forget that it has to say so
        encoder.header_table_size = size


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_what_is_written_reads_as_what_was_said(steps: list[Any]) -> None:
    ours, plain = Encoder(), hpack.Decoder()
    for step in steps:
        if isinstance(step, int):
            resize(ours, step)
        elif step == "forget":
            ours.forget()
        else:
            for fields in several(step):
                assert [tuple(field) for field in plain.decode(ours.encode(fields), raw=True)] == fields


@settings(max_examples=300, deadline=None)
@given(STEPS, st.booleans())
def test_what_is_read_is_what_was_written(steps: list[Any], is_never_indexed: bool) -> None:
    plain, ours = hpack.Encoder(), Decoder()
    for step in steps:
        if isinstance(step, int):
            resize(plain, step)
        elif step == "forget":
            ours.forget()
        else:
            for fields in several(step):
                block = plain.encode([(*field, is_never_indexed) for field in fields])
                read = list(ours.decode(block, raw=True))
                if not ours.is_known:
                    ours.remember(block, read)
                assert [tuple(field) for field in read] == fields


def serve(*blocks: list[tuple[bytes, bytes]], streams: tuple[int, ...] = ()) -> int:
    """Return the error that header blocks of one connection end it with, 0 if they are good."""
    protocol, client = build_protocol(65536), hpack.Encoder()
    protocol.initiate_connection()
    protocol.receive_data(PREFACE + SettingsFrame(0).serialize())
    ids = streams or tuple(range(1, 2 * len(blocks), 2))
    for number, (stream, fields) in enumerate(zip(ids, blocks, strict=True)):
        frame = HeadersFrame(stream, data=client.encode(fields))
        frame.flags |= {"END_HEADERS"} if stream in ids[number + 1 :] else {"END_HEADERS", "END_STREAM"}
        try:
            protocol.receive_data(frame.serialize())
        except h2.exceptions.ProtocolError as error:
            return int(error.error_code)
    return 0


def test_a_head_that_is_known_is_served_as_often_as_it_comes() -> None:
    protocol, client = build_protocol(65536), hpack.Encoder()
    protocol.receive_data(PREFACE + SettingsFrame(0).serialize())
    heads, known = [], []
    for stream in range(1, 12, 2):
        frame = HeadersFrame(stream, data=client.encode(HEAD))
        frame.flags |= {"END_HEADERS", "END_STREAM"}
        (asked, _) = protocol.receive_data(frame.serialize())[-2:]
        assert isinstance(asked, h2.events.RequestReceived)
        heads.append(asked.headers)
        known.append(protocol.decoder.is_known)

    assert all(head == HEAD for head in heads)
    assert len({id(head) for head in heads}) == len(heads)  # whoever changes one changes no other
    assert known == [False, False, True, True, True, True]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_head_is_no_trailer_however_well_it_is_known(times: int) -> None:
    streams = (*range(1, 2 * times, 2), 99, 99)
    assert serve(*[HEAD] * times, HEAD, HEAD, streams=streams) == h2.errors.ErrorCodes.PROTOCOL_ERROR


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_trailer_is_no_head_however_well_it_is_known(times: int) -> None:
    trailer = [(b"x", b"1")]
    streams = (*(stream for n in range(times) for stream in (2 * n + 1, 2 * n + 1)), 99)
    blocks = [each for _ in range(times) for each in (HEAD, trailer)]
    assert serve(*blocks, streams=streams[:-1]) == 0
    assert serve(*blocks, trailer, streams=streams) == h2.errors.ErrorCodes.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "wrong",
    [
        [(b"X", b"1")], [(b"x ", b"1")], [(b"", b"1")], [(b"x:y", b"1")], [(b"x", b"1\n")], [(b"x", b" 1")], [(b"x", b"\0")],
        [(b"te", b"gzip")], [(b"connection", b"close")], [(b"x", b"1"), (b":path", b"/")], [(b":path", b"/")],
        [(b":status", b"200")], [(b":own", b"1")], [(b"host", b"b")], [(b"host", b"a"), (b"host", b"a")],
        [(b"content-length", b"x")], [(b"upgrade", b"h2c")],
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("before", [0, 3])
def test_a_head_that_is_wrong_is_refused_whatever_is_known(wrong: list[tuple[bytes, bytes]], before: int) -> None:
    assert serve(*[HEAD] * before, HEAD + wrong) == h2.errors.ErrorCodes.PROTOCOL_ERROR
