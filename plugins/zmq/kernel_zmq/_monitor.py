"""What libzmq says of the connections of a socket."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, final

import attrs
import zmq
from zmq.utils.monitor import parse_monitor_message

from ._socket import Socket

CONNECTED: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED
DISCONNECTED: Final = zmq.EVENT_DISCONNECTED
REFUSED: Final = zmq.EVENT_HANDSHAKE_FAILED_AUTH
UNFIT: Final = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
"""The peer speaks another mechanism, or none of ZeroMQ's; or it left in the handshake, as one does that finds this out
before we do."""
_ALL: Final = CONNECTED | DISCONNECTED | REFUSED


@final
@attrs.frozen(repr=False)
class Monitor:
    """Tells what happens to the connections of a socket."""

    _socket: Socket

    async def next(self) -> int:
        """Wait for the next change: `CONNECTED`, `DISCONNECTED` or `REFUSED`.

        Cancellation: Is a checkpoint. If cancelled, the change is there for the next one.
        """
        return parse_monitor_message(await self._socket.recv())["event"]


@contextmanager
def open_monitor(socket: Socket, events: int = _ALL) -> Generator[Monitor]:
    """Have a socket watched for some events."""
    raw = socket.raw.get_monitor_socket(events)
    try:
        yield Monitor(Socket(raw))
    finally:
        socket.raw.disable_monitor()
        raw.close(0)
