"""The other side of a connection, as bytes and frames: what a server says, and how bytes are cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Final

import trio
import trio.testing
from kernel_stomp.core import Frame, Limits, Parser, StompError
from kernel_stomp.link.connect import Joined
from kernel_stomp.link.link import Link

COMMANDS: Final = frozenset({"CONNECTED", "MESSAGE", "RECEIPT", "ERROR", "SEND", "CONNECT"})
SMALL: Final = Limits(headers=4, line=30, head=60, body=20)
ASKED: Final = frozenset((
    "CONNECT",
    "BEGIN",
    "ABORT",
    "COMMIT",
    "SEND",
    "ACK",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "DISCONNECT",
))
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


class Server:
    """The other end of a connection."""

    def __init__(self) -> None:
        self.near, self.stream = trio.testing.memory_stream_pair()
        self.parser = Parser(ASKED)
        self.heard: list[Frame] = []
        self.beats = 0

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self, *, probes: bool = True, others: bool = True) -> None:
        """Confirm what is asked to be, for ever."""
        async for data in self.stream:
            self.beats += data == b"\n"
            self.parser.feed(data)
            while (frame := self.parser.next_frame()) is not None:
                self.heard.append(frame)
                id_ = frame.headers.get("receipt")
                if id_ is not None and (probes if frame.command == "ABORT" else others):
                    await self.say(f"RECEIPT\nreceipt-id:{id_}\n\n\0".encode())

    async def beat(self) -> None:
        while True:
            await trio.sleep(10)
            await self.say(b"\n")


@asynccontextmanager
async def linked(server: Server, *, hears: bool = True) -> AsyncIterator[Link]:
    joined = Joined(stream=server.near, parser=Parser(COMMANDS), where="here", beat=10.0, hears=hears)
    link = Link(joined, 10.0, 2.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        yield link
        nursery.cancel_scope.cancel()
        await link.aclose()
