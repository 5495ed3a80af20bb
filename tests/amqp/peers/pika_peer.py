# /// script
# requires-python = ">=3.11"
# dependencies = ["pika==1.4.4"]
# ///
"""pika: declares, publishes with confirms, takes and consumes, as the lines of its standard input ask for."""

from __future__ import annotations

import argparse
from typing import Any

import pika
from _lines import say, serve
from pika.adapters.blocking_connection import BlockingChannel


class Peer:
    """What the test may ask for; each method of the channel that the protocol knows, by its name."""

    def __init__(self, connection: pika.BlockingConnection) -> None:
        self.connection = connection
        self._channel: BlockingChannel | None = None

    @property
    def channel(self) -> BlockingChannel:
        """A channel in confirm mode; another one if an error closed the last."""
        if self._channel is None or self._channel.is_closed:
            self._channel = self.connection.channel()
            self._channel.confirm_delivery()
        return self._channel

    def method(self, name: str, **arguments: Any) -> Any:
        """Call a method of the channel: `exchange_declare`, `queue_bind`, `queue_delete`, ..."""
        frame = getattr(self.channel, name)(**arguments)
        return {key: value for key, value in vars(frame.method).items() if not key.startswith("_")}

    def publish(self, exchange: str, routing_key: str, body: str, *, mandatory: bool = True, **properties: Any) -> None:
        """Publish and wait for the confirm."""
        self.channel.basic_publish(
            exchange, routing_key, body.encode(), pika.BasicProperties(**properties), mandatory=mandatory
        )

    def get(self, queue: str) -> dict[str, Any] | None:
        """Take one message, or None."""
        method, properties, body = self.channel.basic_get(queue, auto_ack=True)
        return None if method is None else seen(method, properties, body)

    def consume(self, queue: str, count: int, seconds: float = 10) -> list[dict[str, Any]]:
        """Consume and acknowledge so many; fewer if no more come in time."""
        messages: list[dict[str, Any]] = []
        for method, properties, body in self.channel.consume(queue, inactivity_timeout=seconds):
            if method is None:
                break
            messages.append(seen(method, properties, body))
            self.channel.basic_ack(method.delivery_tag)
            if len(messages) == count:
                break
        self.channel.cancel()
        return messages


def seen(method: Any, properties: Any, body: bytes) -> dict[str, Any]:
    """Return a message as it came over the wire."""
    return {
        "exchange": method.exchange,
        "routing_key": method.routing_key,
        "redelivered": method.redelivered,
        "properties": {key: value for key, value in vars(properties).items() if value is not None},
        "body": body.decode("utf-8", "backslashreplace"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5672)
    parameters = pika.ConnectionParameters("127.0.0.1", parser.parse_args().port, heartbeat=0)
    with pika.BlockingConnection(parameters) as connection:
        peer = Peer(connection)
        say(ready=True)
        serve({"method": peer.method, "publish": peer.publish, "get": peer.get, "consume": peer.consume})


if __name__ == "__main__":
    main()
