# /// script
# requires-python = ">=3.11"
# dependencies = ["pika==1.4.4"]
# ///
"""Makes, fills, counts and deletes queues, for all sides alike."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Final

import pika
from pika.adapters.blocking_connection import BlockingChannel

BODY: Final = json.dumps({"id": 12345, "sku": "tea", "quantity": 2, "note": "x" * 150}).encode()
PROPERTIES: Final = pika.BasicProperties(
    content_type="application/json", content_encoding="utf-8", delivery_mode=2, message_id="b" * 32
)
DEPTH: Final = 20_000


def make(channel: BlockingChannel, queue: str, _: int) -> None:
    """Make an empty queue that gets what is published to `amq.topic` under its name."""
    channel.queue_declare(queue, durable=True)
    channel.queue_purge(queue)
    channel.queue_bind(queue, "amq.topic", queue)


def fill(channel: BlockingChannel, queue: str, count: int) -> None:
    """Make the queue hold so many persistent messages, ready to be delivered."""
    make(channel, queue, count)
    for _ in range(count):
        channel.basic_publish("amq.topic", queue, BODY, PROPERTIES)
    while size(channel, queue) < count:
        time.sleep(0.05)


def feed(channel: BlockingChannel, queue: str, count: int) -> None:
    """Publish so many while somebody consumes; at most `DEPTH` wait."""
    for number in range(count):
        channel.basic_publish("amq.topic", queue, BODY, PROPERTIES)
        if number % 1000 == 0:
            while size(channel, queue) > DEPTH:
                time.sleep(0.05)


def size(channel: BlockingChannel, queue: str) -> int:
    return channel.queue_declare(queue, durable=True).method.message_count


def show(channel: BlockingChannel, queue: str, _: int) -> None:
    print(json.dumps({"size": size(channel, queue)}))


def delete(channel: BlockingChannel, queue: str, _: int) -> None:
    """Delete the queue, and what the callers and the called declared under its name."""
    for name in (queue, f"{queue}-calls", f"rpc-{queue}", f"rpc-{queue}-caller"):
        channel.queue_delete(name)
    channel.exchange_delete(queue)


COMMANDS: Final[dict[str, Callable[[BlockingChannel, str, int], None]]] = {
    "make": make,
    "fill": fill,
    "feed": feed,
    "size": show,
    "delete": delete,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("queue")
    parser.add_argument("count", type=int, nargs="?", default=0)
    arguments = parser.parse_args()
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1")) as connection:
        COMMANDS[arguments.command](connection.channel(), arguments.queue, arguments.count)


if __name__ == "__main__":
    main()
