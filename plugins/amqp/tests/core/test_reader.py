from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_amqp.core.errors import ViolationError
from kernel_amqp.core.reader import ADDED, Frame, FrameReader
from pamqp import body, frame, heartbeat

from .far_side import raw
from .strategies import unhurried

LIMIT = 4096
SIMPLE = st.tuples(st.sampled_from([1, 2, 3, 8]), st.integers(0, 65535), st.binary(max_size=60))


def contents(frames: list[Frame]) -> list[tuple[int, int, bytes]]:
    return [(kind, channel, data[at:end]) for kind, channel, data, at, end in frames]


def feed(reader: FrameReader, *chunks: bytes) -> list[tuple[int, int, bytes]]:
    return [content for chunk in chunks for content in contents(list(reader.feed(chunk)))]


@pytest.mark.slow
@unhurried
@given(st.lists(SIMPLE, max_size=8), st.data())
def test_frames_are_the_same_however_they_were_cut(frames: list[tuple[int, int, bytes]], data: st.DataObject) -> None:
    wire = b"".join(raw(*each) for each in frames)
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=12).map(sorted))
    chunks = [wire[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(wire)])]

    assert feed(FrameReader(LIMIT), *chunks) == frames


@pytest.mark.slow
@unhurried
@given(st.lists(SIMPLE, max_size=8))
def test_frames_are_the_same_byte_by_byte(frames: list[tuple[int, int, bytes]]) -> None:
    wire = b"".join(raw(*each) for each in frames)

    assert feed(FrameReader(LIMIT), *(wire[at : at + 1] for at in range(len(wire)))) == frames


def test_frames_are_cut_as_pamqp_writes_them() -> None:
    wire = frame.marshal(body.ContentBody(b"abc"), 7) + frame.marshal(heartbeat.Heartbeat(), 0)

    assert feed(FrameReader(LIMIT), wire) == [(3, 7, b"abc"), (8, 0, b"")]


def test_a_frame_comes_as_soon_as_its_last_byte() -> None:
    wire, reader = raw(3, 1, b"abc"), FrameReader(LIMIT)

    assert feed(reader, wire[:-1]) == []
    assert feed(reader, wire[-1:]) == [(3, 1, b"abc")]


def test_the_largest_frame_is_taken_and_one_byte_more_is_a_violation() -> None:
    assert feed(FrameReader(LIMIT), raw(3, 1, bytes(LIMIT - 8))) == [(3, 1, bytes(LIMIT - 8))]
    with pytest.raises(ViolationError, match="4089 bytes"):
        feed(FrameReader(LIMIT), raw(3, 1, bytes(LIMIT - 7)))


def test_a_frame_that_is_too_large_is_found_at_its_head() -> None:
    with pytest.raises(ViolationError):
        feed(FrameReader(LIMIT), b"\x03\x00\x01\xff\xff\xff\xff\x00")


@pytest.mark.parametrize("kind", [0, 4, 7, 9, 72, 255])
def test_an_unknown_type_is_found_at_its_first_byte(kind: int) -> None:
    with pytest.raises(ViolationError, match=f"type {kind}"):
        feed(FrameReader(LIMIT), bytes((kind,)))


def test_a_frame_that_does_not_end_as_it_must_is_a_violation() -> None:
    with pytest.raises(ViolationError, match="longer than it said"):
        feed(FrameReader(LIMIT), raw(3, 1, b"abc")[:-1] + b"\x00")


@unhurried
@given(st.binary(max_size=60), st.lists(st.binary(max_size=60), max_size=3))
def test_anything_is_frames_or_a_violation(first: bytes, more: list[bytes]) -> None:
    reader = FrameReader(LIMIT)
    try:
        frames = feed(reader, first, *more)
    except ViolationError:
        return
    assert sum(len(payload) + 8 for _, _, payload in frames) <= len(first) + sum(map(len, more))


def test_other_kinds_of_bytes_are_taken() -> None:
    wire = raw(3, 1, b"abc")

    for data in (bytearray(wire), memoryview(wire)):
        assert feed(FrameReader(LIMIT), data) == [(3, 1, b"abc")]  # type: ignore[arg-type]  # ty: whatever a socket gives


def seconds_to_take(frame_bytes: int, chunk: int) -> float:
    """CPU seconds for one frame that comes in chunks."""
    wire, reader = raw(3, 1, bytes(frame_bytes)), FrameReader(frame_bytes + 8)
    chunks = [wire[at : at + chunk] for at in range(0, len(wire), chunk)]
    began = time.process_time()
    frames = feed(reader, *chunks)
    assert len(frames) == 1
    return time.process_time() - began


def test_a_frame_in_many_chunks_costs_no_more_than_its_bytes() -> None:
    """A copy of what is there for each chunk would move 134 gigabytes here."""
    assert seconds_to_take(4 << 20, 64) < 2.0


def test_small_frames_in_one_large_chunk_cost_no_more_than_their_bytes() -> None:
    """A copy of what is left for each frame would move 76 gigabytes here."""
    wire, reader = raw(3, 1, b"") * 131072, FrameReader(LIMIT)
    began = time.process_time()

    assert len(feed(reader, wire + wire[:5])) == 131072
    assert time.process_time() - began < 2.0


def test_headers_may_be_larger_than_was_agreed_by_what_the_broker_adds_and_no_more() -> None:
    payload = b"x" * (LIMIT + ADDED)

    assert feed(FrameReader(LIMIT), raw(2, 1, payload)) == [(2, 1, payload)]
    with pytest.raises(ViolationError, match="beyond what was agreed"):
        feed(FrameReader(LIMIT), raw(2, 1, payload + b"x"))


@pytest.mark.parametrize("kind", [1, 3, 8])
def test_other_frames_may_not_be_larger_than_was_agreed(kind: int) -> None:
    with pytest.raises(ViolationError, match="beyond what was agreed"):
        feed(FrameReader(LIMIT), raw(kind, 1, b"x" * (LIMIT - 7)))
