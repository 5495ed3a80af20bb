"""The other side of a connection, as bytes and frames: what a server says, and how bytes are cut."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from kernel_stomp.core import Frame, Limits, Parser, StompError

COMMANDS: Final = frozenset({"CONNECTED", "MESSAGE", "RECEIPT", "ERROR", "SEND", "CONNECT"})
SMALL: Final = Limits(headers=4, line=30, head=60, body=20)
Read = list[tuple[str, dict[str, str], bytes, int]]


def read(pieces: Iterable[bytes], *, limits: Limits = SMALL, version: str = "1.2") -> tuple[Read, bool]:
    """Return the frames that the pieces hold, and whether what follows is none."""
    parser, frames = Parser(COMMANDS, limits, version), Read()
    try:
        for piece in pieces:
            parser.feed(piece)
            while (frame := parser.next_frame()) is not None:
                frames.append(told(frame))
    except StompError:
        return frames, True
    return frames, False


def told(frame: Frame) -> tuple[str, dict[str, str], bytes, int]:
    return frame.command, dict(frame.headers), frame.body, frame.skipped


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Return bytes in pieces that begin at these places."""
    ends = sorted({0, len(data), *places})
    return [data[begin:end] for begin, end in pairwise(ends)]
