"""What a link does with its socket itself, once for many messages: trio's streams do more around each call.

A stream that is none of TCP, such as one of TLS, is used as every stream of trio is.
"""

from __future__ import annotations

import os

import trio

from .connect import CHUNK


def socket_of(stream: trio.abc.SendStream) -> trio.socket.SocketType | None:
    """Return the socket that takes the bytes of a stream as they are; None if it has none."""
    return stream.socket if isinstance(stream, trio.SocketStream) and os.name == "posix" else None


async def receive(stream: trio.abc.Stream) -> bytes | bytearray:
    """Return what has come, as soon as there is something; empty at the end of the stream.

    A socket is read when it has something, and not before: for a peer that answers, the first look is in vain, and
    costs as much as to wait and read.

    Raises:
        trio.BrokenResourceError: if the connection broke; its cause says how.

    Cancellation: Is a checkpoint.
    """
    socket = socket_of(stream)
    if socket is None:
        return await stream.receive_some(CHUNK)
    while True:
        await trio.lowlevel.wait_readable(socket)
        try:
            return os.read(socket.fileno(), CHUNK)
        except BlockingIOError:  # there is nothing, whatever the system had said
            continue
        except OSError as error:
            raise trio.BrokenResourceError from error


def write_at_once(socket: trio.socket.SocketType, data: bytes) -> int:
    """Write as much as a socket takes without waiting; return how many bytes.

    0 may also mean that it takes nothing any more: who waits for it finds out.
    """
    try:
        return os.write(socket.fileno(), data)
    except OSError:
        return 0
