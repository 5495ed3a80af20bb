"""A client that does next to nothing: `bare_stomp.py QUEUE COUNT PORT SERVER MODE SUBSCRIPTIONS`, prefetch 100.

Bytes are cut at their NULs, nothing is read but what an acknowledgement has to name, and those of one read go out together.
So it shows what the server can bring: nobody who acknowledges each message takes more from it. With the mode `client` the
last message of a read is acknowledged alone, and all before it with it. The prefetch is shared by the subscriptions.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

from _meter import Meter

PLACES = {
    "rabbitmq": "destination:/amq/queue/{}\nprefetch-count:{}",
    "activemq": "destination:/queue/{}\nactivemq.prefetchSize:{}",
}


def main(queue: str, count: int, port: int, server: str, mode: str, subscriptions: int) -> None:
    meter, place = Meter(count), PLACES[server].format(queue, 100 // subscriptions)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n\0")
        for id_ in range(1, subscriptions + 1):
            connection.sendall(f"SUBSCRIBE\nid:{id_}\nack:{mode}\n{place}\n\n\0".encode())
        for frames in heard(connection):
            names = [frame.partition(b"\nack:")[2].partition(b"\n")[0] for frame in frames if b"\nack:" in frame]
            if names:
                acknowledged = names[-1:] if mode == "client" else names
                connection.sendall(b"".join([b"ACK\nid:%b\n\n\0" % name for name in acknowledged]))
            if any(meter.tick() for _ in names):
                break


def heard(connection: socket.socket) -> Iterator[list[bytes]]:
    """Return the frames of one read after another; none of them has a body with a NUL."""
    rest = b""
    while data := connection.recv(65536):
        *frames, rest = (rest + data).split(b"\0")
        yield frames


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5], int(sys.argv[6]))
