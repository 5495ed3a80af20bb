# /// script
# requires-python = ">=3.11"
# dependencies = ["pika==1.4.4"]
# ///
"""Makes, fills, counts and deletes queues, for all sides alike: `queues.py fill|size|delete QUEUE [COUNT]`."""

from __future__ import annotations

import argparse
import json
import time

import pika

BODY = json.dumps({"id": 12345, "sku": "tea", "quantity": 2, "note": "x" * 150}).encode()


def fill(channel: pika.adapters.blocking_connection.BlockingChannel, queue: str, count: int) -> None:
    """Make the queue hold `count` persistent messages, ready to be delivered."""
    channel.queue_declare(queue, durable=True)
    channel.queue_purge(queue)
    properties = pika.BasicProperties(
        content_type="application/json", content_encoding="utf-8", delivery_mode=2, message_id="b" * 32
    )
    for _ in range(count):
        channel.basic_publish("", queue, BODY, properties)
    while size(channel, queue) < count:
        time.sleep(0.05)


def size(channel: pika.adapters.blocking_connection.BlockingChannel, queue: str) -> int:
    return channel.queue_declare(queue, durable=True).method.message_count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["fill", "size", "delete"])
    parser.add_argument("queue")
    parser.add_argument("count", type=int, nargs="?", default=0)
    arguments = parser.parse_args()
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1")) as connection:
        channel = connection.channel()
        if arguments.what == "fill":
            fill(channel, arguments.queue, arguments.count)
        elif arguments.what == "delete":
            channel.queue_delete(arguments.queue)
        else:
            print(json.dumps({"size": size(channel, arguments.queue)}))


if __name__ == "__main__":
    main()
