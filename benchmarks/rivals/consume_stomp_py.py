# /// script
# requires-python = ">=3.11"
# dependencies = ["stomp-py==9.0.0"]
# ///
"""stomp.py: `consume_stomp_py.py QUEUE COUNT PORT SERVER`, prefetch 100, JSON read, acknowledged after the handler."""

from __future__ import annotations

import json
import sys
import threading

import stomp
from _meter import Meter


class Listener(stomp.ConnectionListener):
    """Handles what comes, in the thread that reads."""

    def __init__(self, connection: stomp.Connection12, count: int) -> None:
        self.connection, self.meter, self.finished = connection, Meter(count), threading.Event()

    def on_message(self, frame: stomp.utils.Frame) -> None:
        order = json.loads(frame.body)
        assert order["sku"] == "tea"
        self.connection.ack(frame.headers["ack"])
        if self.meter.tick():
            self.finished.set()


PLACES = {
    "rabbitmq": ("/amq/queue/", {"prefetch-count": "100"}),
    "activemq": ("/queue/", {"activemq.prefetchSize": "100"}),
}


def main(queue: str, count: int, port: int, server: str) -> None:
    place, headers = PLACES[server]
    connection = stomp.Connection12([("127.0.0.1", port)], vhost="/")
    listener = Listener(connection, count)
    connection.set_listener("", listener)
    connection.connect("guest", "guest", wait=True)
    connection.subscribe(f"{place}{queue}", "1", ack="client-individual", headers=headers)
    listener.finished.wait()
    connection.disconnect()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
