"""What counts the frames of a message, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_websocket._fragments import Fragments
from wsproto.frame_protocol import FrameProtocol, Opcode

_HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
_SIZES = st.sampled_from([0, 1, 125, 126, 127, 300, 65535, 65536])


def written(frames: list[tuple[Opcode, bool, int]], *, is_client: bool) -> bytes:
    protocol = FrameProtocol(client=is_client, extensions=[])
    return b"".join(
        protocol._serialize_frame(opcode, b"x" * min(size, 125 if opcode.iscontrol() else size), fin=fin)
        for opcode, fin, size in frames
    )


def expected(frames: list[tuple[Opcode, bool, int]]) -> int:
    count = 0
    for opcode, fin, _ in frames:
        if not opcode.iscontrol():
            count = 0 if fin else count + 1
    return count


@given(
    st.lists(st.tuples(st.sampled_from([Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY]), st.booleans(), _SIZES)),
    st.booleans(),
    st.integers(1, 5000),
)
def test_the_frames_of_an_unfinished_message_are_counted(
    frames: list[tuple[Opcode, bool, int]], is_client: bool, cut: int
) -> None:
    frames = [each for frame in frames for each in (frame, (Opcode.PING, True, frame[2]))]
    data = _HEAD + written(frames, is_client=is_client)
    fragments = Fragments()
    for at in range(0, len(data), cut):
        fragments.feed(data[at : at + cut])

    assert fragments.count == expected(frames)


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01", b"x" * 100_000, b"\r\n\r"])
def test_what_is_no_handshake_is_no_frame(data: bytes) -> None:
    fragments = Fragments()
    fragments.feed(data)

    assert fragments.count == 0
    assert len(fragments._header) <= 3
