"""A scripted peer that speaks STOMP 1.2: what it brings is made beforehand, and acknowledgements are counted.

So whoever takes from it shows how fast he can be himself. `scripted_stomp_peer.py COUNT` prints its port and brings so many
messages to each subscription, never more than 100 that are not acknowledged. It runs until it is ended.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

PREFETCH: Final = 100
BODY: Final = json.dumps({"id": 12345, "sku": "tea", "quantity": 2, "note": "x" * 150}).encode()
HEAD: Final = (
    "MESSAGE\nsubscription:1\ndestination:/queue/bench\nmessage-id:T_1@@abcdef@@{0}\nredelivered:false\n"
    "ack:T_1@@abcdef@@{0}\nkernel-subject:bench\ncontent-type:application/json\npersistent:true\n"
    "amqp-message-id:{0:032x}\ncontent-length:{1}\n\n"
)
"""What RabbitMQ says of a message that the kernel has sent."""


def main(count: int) -> None:
    messages = [HEAD.format(number, len(BODY)).encode() + BODY + b"\0" for number in range(count)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0], messages), daemon=True).start()


def serve(connection: socket.socket, messages: list[bytes]) -> None:
    """Answer what wants an answer; after SUBSCRIBE, bring a message for each that is acknowledged."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    brought, acknowledged, place, is_cumulative = 0, 0, 0, False
    for heard_ in heard(connection):
        if any(word in heard_ for word in (b"accept-version:", b"SUBSCRIBE\n", b"receipt:")):
            frames = [frame.lstrip(b"\n").partition(b"\n")[::2] for frame in heard_.split(b"\0")]
            connection.sendall(b"".join([answer(command, lines) for command, lines in frames]))
            is_cumulative = is_cumulative or b"ack:client\n" in heard_
            place = place or PREFETCH * any(command == b"SUBSCRIBE" for command, _ in frames)
        if is_cumulative and b"ACK\n" in heard_:
            acknowledged = int(heard_.rpartition(b"@@")[2].partition(b"\n")[0]) + 1
        else:
            acknowledged += heard_.count(b"ACK\nid:")
        free = place - (brought - acknowledged)
        # At once, since it is this that tells the other side's TCP that its acknowledgements have come.
        connection.sendall(b"".join(messages[brought : brought + free]))
        brought += free


def answer(command: bytes, lines: bytes) -> bytes:
    """Return what a frame is answered with."""
    if command in (b"CONNECT", b"STOMP"):
        return b"CONNECTED\nversion:1.2\nheart-beat:0,0\nsession:1\n\n\0"
    receipt = next((line.partition(b":")[2] for line in lines.split(b"\n") if line.startswith(b"receipt:")), b"")
    return b"RECEIPT\nreceipt-id:%b\n\n\0" % receipt if receipt else b""


def heard(connection: socket.socket) -> Iterator[bytes]:
    """Return the whole frames of one read after another; none of them has a body with a NUL."""
    rest = b""
    with suppress(ConnectionError):
        while data := connection.recv(65536):
            whole, end, rest = (rest + data).rpartition(b"\0")
            yield whole + end


if __name__ == "__main__":
    main(int(sys.argv[1]))
