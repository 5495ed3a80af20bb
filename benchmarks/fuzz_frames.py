"""Mutates conversations in frames of HTTP/2, and of websockets, and reads them as the dispatcher `web` does.

No exception but those that mean a broken rule may leave the layers that do no I/O, and the verdict may not depend on how
the bytes are cut. For HTTP/2 it must be that of h2 as it comes, without what the dispatcher remembers; what is said
before a rule is broken counts there only as far as the bytes are cut, so of a broken conversation the code is compared.

    uv run python benchmarks/fuzz_frames.py [--inputs 200000] [--seed 0] [--first 0]
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack
from fuzz_web import cut, run
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from kernel_web.http2.protocol import build_protocol

sys.path.insert(0, str(Path(__file__).parent.parent / "plugins" / "web" / "tests"))

from test_frames import masked, packed
from test_frames import read as read_websocket

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = [(b":method", b"GET"), (b":path", b"/"), (b":scheme", b"http"), (b":authority", b"a")]
HEADS: list[list[tuple[bytes, bytes]]] = [
    HEAD,
    HEAD,
    [*HEAD, (b"x-long", b"y" * 300)],
    [*HEAD[1:], (b":method", b"POST"), (b"content-length", b"3")],
    [*HEAD, (b"cookie", b"a=1"), (b"cookie", b"b=2")],
    [*HEAD, (b"te", b"trailers"), (b"Upper", b"x")],
    [*HEAD, (b"connection", b"close")],
    [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *HEAD[1:]],
    [(b"sum", b"1")],
    [],
]
OPCODES = [0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88, 0xC1, 0x41, 0x83]
PAYLOADS = [b"", b"text", b"\x03\xe8", "é🍵".encode(), b"\xc3", b"x" * 130, packed(b"text" * 50), packed(b"x" * 5000)]


def conversation(source: random.Random) -> bytes:
    """Return what a client may say over HTTP/2, or nearly."""
    encoder, said, stream = hpack.Encoder(), [bytes(SettingsFrame(0).serialize())], 1
    for _ in range(source.randrange(1, 9)):
        is_head = source.random() < 0.7
        frames = asked(source, encoder, stream) if is_head else [besides(source, max(1, stream - 2))]
        said += [bytes(frame.serialize()) for frame in frames]
        stream += 2 if is_head and source.random() < 0.95 else 0
    return PREFACE + b"".join(said)


def asked(source: random.Random, encoder: hpack.Encoder, stream: int) -> list[Frame]:
    """Return a head, whole or in two; most are good, and many the same."""
    if source.random() < 0.1:
        encoder.header_table_size = source.choice([0, 100, 4096])
    block = encoder.encode(source.choice(HEADS if source.random() < 0.2 else HEADS[:5]))
    cut = source.randrange(len(block) + 1) if source.random() < 0.2 else len(block)
    head = HeadersFrame(stream, data=block[:cut], flags=["END_STREAM"] if source.random() < 0.3 else [])
    if cut == len(block):
        head.flags.add("END_HEADERS")
        return [head]
    return [head, ContinuationFrame(stream, data=block[cut:], flags=["END_HEADERS"])]


def besides(source: random.Random, stream: int) -> Frame:
    """Return a frame of any other kind."""
    return source.choice([
        DataFrame(stream, data=source.choice([b"", b"abc", b"x" * 100]), flags=source.choice([[], ["END_STREAM"]])),
        RstStreamFrame(stream, error_code=8),
        WindowUpdateFrame(source.choice([0, stream]), window_increment=source.choice([1, 1, 1, 2**31 - 1])),
        PingFrame(0, opaque_data=b"12345678"),
        PriorityFrame(stream, depends_on=source.choice([0, 99]), stream_weight=1),
        SettingsFrame(0, settings={source.randrange(1, 9): source.choice([0, 1, 16384, 2**31])}),
        GoAwayFrame(0, error_code=1),
    ])


def frames_of_a_websocket(source: random.Random) -> bytes:
    return b"".join(masked(source.choice(OPCODES), source.choice(PAYLOADS)) for _ in range(source.randrange(1, 7)))


def mutated(source: random.Random, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(source.choice([0, 0, 0, 1, 1, 2, 4])):
        at = source.randrange(len(data))
        action = source.randrange(3)
        if action == 0:
            data[at] ^= 1 << source.randrange(8)
        elif action == 1:
            del data[at : at + source.randrange(1, 10)]
        else:
            data[at:at] = source.randbytes(source.randrange(1, 10))
        data = data or bytearray(b"\0")
    return bytes(data)


def read(connection: h2.connection.H2Connection, pieces: Sequence[bytes]) -> tuple[Any, ...]:
    """Return how a conversation ends, and all that was said in it if it has not broken a rule."""
    connection.initiate_connection()
    events: list[str] = []
    try:
        for piece in pieces:
            events += map(str, connection.receive_data(piece))
    except h2.exceptions.ProtocolError as error:
        return ("broken", int(error.error_code))
    return ("served", events, connection.data_to_send())


class Plain(h2.connection.H2Connection):
    """h2 as it comes, but that a client which says goodbye without an error is served on, as RFC 9113, 6.8, has it."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        return ([], []) if frame.error_code == 0 else super()._receive_goaway_frame(frame)


def plain() -> h2.connection.H2Connection:
    """Return such a one with the settings of ours."""
    ours = build_protocol(16384)
    connection = Plain(
        h2.config.H2Configuration(client_side=False, header_encoding=None, normalize_inbound_headers=False)
    )
    connection.local_settings = ours.local_settings
    connection.decoder.max_header_list_size = 16384
    return connection


def try_one(seed: int, number: int) -> str:
    """Read one input in several ways; return how it ended."""
    source = random.Random(f"{seed} {number}")
    is_http2 = number % 2 == 0
    data = mutated(source, conversation(source) if is_http2 else frames_of_a_websocket(source))
    pieces = cut(source, data)
    if is_http2:
        whole = read(build_protocol(16384), [data])
        others = {"cut": read(build_protocol(16384), pieces), "plain h2": read(plain(), [data])}
    else:
        whole = ("websocket", read_websocket([data], inflates=bool(number & 2)))
        others = {"cut": ("websocket", read_websocket(pieces, inflates=bool(number & 2)))}
    for how, other in others.items():
        if other != whole:
            raise SystemExit(f"input {number}: read as {whole}, and {how} as {other}: {pieces}")
    return str(whole[0]) + (f" {whole[1]}" if whole[0] == "broken" else "")


if __name__ == "__main__":
    run(__doc__ or "", try_one)
