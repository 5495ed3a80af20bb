"""The frames of websockets, without I/O: what is broken and how, compression, and the core against itself and wsproto."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import pytest
import wsproto.connection
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_web.websocket.frames import MOST_FRAMES, BrokenFrameError, Close, Frames, Ping, Pong, close_frame, frame
from kernel_web.websocket.handshake import accept_key, deflate_window, refusal
from wsproto.extensions import PerMessageDeflate

LIMIT = 1000
MASK = b"\x01\x02\x03\x04"


def masked(first: int, payload: bytes = b"", size: bytes | None = None) -> bytes:
    """Return a frame of a client."""
    if size is None:
        size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    body = bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))
    return bytes([first]) + size + MASK + body


def read(pieces: Any, *, inflates: bool = False) -> list[Any]:
    frames, seen = Frames(LIMIT, inflates=inflates), list[Any]()
    try:
        for piece in pieces:
            seen.extend(frames.feed(piece))
    except BrokenFrameError as error:
        seen.append(error.code)
    return seen


def packed(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (masked(0x81, b"text"), ["text"]),
        (masked(0x82, b"\xff"), [b"\xff"]),
        (masked(0x81), [""]),
        (masked(0x01, b"te") + masked(0x80, b"xt"), ["text"]),
        (masked(0x01, b"t") + masked(0x89, b"p") + masked(0x00) + masked(0x80, b"x"), [Ping(b"p"), "tx"]),
        (masked(0x01, b"\xc3") + masked(0x80, b"\xa9"), ["é"]),
        (masked(0x8A, b"x"), [Pong(b"x")]),
        (masked(0x88), [Close(1005, "")]),
        (masked(0x88, b"\x03\xe8bye"), [Close(1000, "bye")]),
        (masked(0x88, b"\x0f\xa0") + masked(0x81, b"x"), [Close(4000, "")]),
        (masked(0x82, b"x" * LIMIT), [b"x" * LIMIT]),
        (masked(0x82, b"x" * (LIMIT + 1)), [1009]),
        (masked(0x02, b"x" * 600) + masked(0x80, b"x" * 401), [1009]),
        (masked(0x82, size=b"\xff" + (2**40).to_bytes(8, "big")), [1009]),
        (masked(0x82, size=b"\xff" + (2**63).to_bytes(8, "big")), [1002]),
        (masked(0x82, b"xx", b"\xfe\x00\x02"), [1002]),
        (masked(0x82, b"xx", b"\xff" + (2).to_bytes(8, "big")), [1002]),
        (b"\x81\x04text", [1002]),
        (masked(0x83), [1002]),
        (masked(0x8B), [1002]),
        (masked(0x91), [1002]),
        (masked(0xA1), [1002]),
        (masked(0xC1), [1002]),
        (masked(0x80), [1002]),
        (masked(0x01) + masked(0x81), [1002]),
        (masked(0x09), [1002]),
        (masked(0x89, b"x" * 126), [1002]),
        (masked(0x88, b"\x03"), [1002]),
        *((masked(0x88, code.to_bytes(2, "big")), [1002]) for code in (0, 999, 1004, 1005, 1006, 1015, 1100, 2999, 5000)),
        (masked(0x88, b"\x03\xe8\xff"), [1007]),
        (masked(0x81, b"\xff"), [1007]),
        (masked(0x01, b"\xc3") + masked(0x80, b"x"), [1007]),
    ],
)  # fmt: skip
def test_a_frame_is_read_as_it_must_be(data: bytes, seen: list[Any]) -> None:
    assert read([data]) == seen
    assert read([data[at : at + 1] for at in range(len(data))]) == seen


def test_what_is_compressed_is_unpacked_within_its_limit() -> None:
    assert read([masked(0xC1, packed(b"text"))], inflates=True) == ["text"]
    assert read([masked(0x41, packed(b"te" * 9)[:4]), masked(0x80, packed(b"te" * 9)[4:])], inflates=True) == ["te" * 9]
    assert read([masked(0xC2, packed(b"x" * LIMIT))], inflates=True) == [b"x" * LIMIT]
    assert read([masked(0xC2, packed(b"x" * 10**6))], inflates=True) == [1009]
    assert read([masked(0xC2, b"\xff\xff\xff")], inflates=True) == [1007]
    assert read([masked(0xC9)], inflates=True) == [1002]
    assert read([masked(0x41, b"x") + masked(0xC0)], inflates=True) == [1002]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 511, 512, 65535, 65536, 200_000])
@pytest.mark.parametrize("window", [0, 9, 15])
def test_what_is_sent_another_implementation_reads(size: int, window: int) -> None:
    extension = PerMessageDeflate(server_max_window_bits=window or 15)
    extension.finalize("permessage-deflate; server_no_context_takeover; client_no_context_takeover")
    theirs = wsproto.connection.Connection(wsproto.ConnectionType.CLIENT, [extension] if window else [])
    data = bytes(at % 251 for at in range(size))
    theirs.receive_data(frame(2, data, window=window) + close_frame(1001, "x" * 200))
    events = list(theirs.events())

    assert b"".join(bytes(event.data) for event in events[:-1]) == data
    assert (events[-1].code, len(events[-1].reason)) == (1001, 123)


FRAMES = st.lists(
    st.builds(
        masked,
        st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88, 0xC1, 0x83]),
        st.binary(max_size=40) | st.sampled_from([b"\x03\xe8", b"text", "é🍵".encode(), packed(b"text" * 50)]),
    ),
    max_size=6,
).map(b"".join)


@given(data=FRAMES, cuts=st.lists(st.integers(0, 200), max_size=4), inflates=st.booleans())
@settings(max_examples=200)
def test_how_bytes_are_cut_does_not_change_what_they_say(data: bytes, cuts: list[int], inflates: bool) -> None:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})

    assert read([data[a:b] for a, b in itertools.pairwise(places)], inflates=inflates) == read(
        [data], inflates=inflates
    )


@pytest.mark.parametrize(
    ("offer", "window"),
    [
        (b"permessage-deflate", 15),
        (b"permessage-deflate; client_max_window_bits", 15),
        (b"permessage-deflate; server_max_window_bits=10; client_max_window_bits=9", 10),
        (b'permessage-deflate; server_max_window_bits="12"', 12),
        (b"permessage-deflate; server_max_window_bits=8", 0),
        (b"permessage-deflate; server_max_window_bits=x", 0),
        (b"permessage-deflate; unknown", 0),
        (b"x-webkit-deflate-frame, permessage-deflate", 15),
        (b"permessage-deflate; server_max_window_bits=8, permessage-deflate", 15),
        (b"other", 0),
        (b"", 0),
    ],
)
def test_compression_is_agreed_on_if_it_can_be(offer: bytes, window: int) -> None:
    found, answer = deflate_window([(b"sec-websocket-extensions", offer)])

    assert found == window
    assert answer.startswith(b"permessage-deflate; server_no_context_takeover; client_no") == bool(window)
    assert (b"server_max_window_bits=%d" % window in answer) == (0 < window < 15)


def test_the_handshake_is_that_of_the_rfc() -> None:
    key = [(b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")]

    assert accept_key(key) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert refusal([(b"sec-websocket-version", b"13")]) == 0


async def test_a_client_that_can_is_served_compressed(web: Any) -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "text": message["text"]})
        await receive()

    upgrade = (
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
    text = b"tea " * 500
    async with web(echo, websocket_compression=True) as service, await service.connect() as client:
        await client.send_all(upgrade)
        head = await client.receive_some()
        await client.send_all(masked(0xC1, packed(text)))
        received = await client.receive_some()

    assert b"sec-websocket-extensions: permessage-deflate; server_no_context_takeover" in head
    assert received[0] == 0xC1
    assert zlib.decompressobj(-15).decompress(received[2:] + b"\x00\x00\xff\xff") == text


@pytest.mark.parametrize("piece", [b"", b"x"])
@pytest.mark.parametrize(("limit", "most"), [(100_000, MOST_FRAMES), (4_194_304, 65_536)])
def test_a_message_comes_in_so_many_frames_and_no_more(piece: bytes, limit: int, most: int) -> None:
    first, middle, last = masked(0x02, piece), masked(0x00, piece), masked(0x80, piece)

    def sent(count: int) -> Any:
        frames = Frames(limit, inflates=False)
        return [*frames.feed(first), *frames.feed(middle * (count - 2)), *frames.feed(last)]

    assert sent(most) == [piece * most]
    assert sent(most // 2) == [piece * (most // 2)]
    with pytest.raises(BrokenFrameError, match="too many frames"):
        sent(most + 1)
