"""Inputs that look like STOMP, and what must hold for each of them; for the tests and `benchmarks/fuzz_stomp.py`."""

from __future__ import annotations

import random
from typing import Final

from .far_side import COMMANDS, cut, read

_WORDS: Final = (
    *(command.encode() for command in COMMANDS),
    *(
        b"\n",
        b"\n\n",
        b"\r\n",
        b"\n\r\n",
        b"\0",
        b"\0\n",
        b"\r",
        b":",
        b"a:b",
        b"a:b\n",
        b"c\\cd:\\n\\r\n",
        b"\\t",
        b"\\",
    ),
    *(
        b"content-length:",
        b"content-length:3\n",
        b"content-length:25\n",
        b"3",
        b"-1",
        b"abc\0",
        b"x" * 25,
        b"\xff",
        b"\xc3",
    ),
)
_HEADERS: Final = (
    b"a:b\n",
    b"a:c\n",
    b"d:e\\cf\n",
    b"k\\cl:\\\\\n",
    b"content-length:3\n",
    b"content-length:25\n",
    b"q:\r\n",
    b"\n",
)
_BODIES: Final = (b"abc\0", b"\0", b"x" * 25 + b"\0", b"x" * 21 + b"\0", b"ab\0", b"abcd", b"")

_END: Final = b"content-length:3\n\nabc\0"
"""How a frame ends that is right."""


def made(seed: int) -> bytes:
    """Return an input: words in any order, a frame that is nearly right, or one with some bytes changed."""
    chance = random.Random(seed)
    words = b"".join(chance.choices(_WORDS, k=chance.randint(0, 12)))
    if seed % 3 == 0:
        return words
    head = chance.choice(tuple(COMMANDS)).encode() + b"\n" + b"".join(chance.choices(_HEADERS, k=chance.randint(0, 3)))
    end = _END if chance.random() < 0.3 else chance.choice((b"\n", b"\r\n")) + chance.choice(_BODIES)
    frame = bytearray(head + end + words)
    if seed % 3 == 1:
        frame[chance.randrange(len(frame))] = chance.randrange(256)
    return bytes(frame)


def check(seed: int) -> None:
    """Raise AssertionError if the verdict on an input depends on how it is cut; anything else is a bug as well."""
    data, chance = made(seed), random.Random(seed)
    version = chance.choice(("1.2", "1.1"))
    whole = read([data], version=version)
    single = read(cut(data, range(len(data))), version=version)
    pieces = read(cut(data, chance.choices(range(len(data) + 1), k=3)), version=version)
    assert whole == single == pieces, f"seed {seed}: {data!r}: {whole} in one piece, {single} byte by byte, {pieces}"
