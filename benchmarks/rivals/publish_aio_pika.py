# /// script
# requires-python = ">=3.11"
# dependencies = ["aio-pika==10.2.1", "aiormq==7.2.4", "uvloop==0.23.0"]
# ///
"""aio-pika on uvloop: `publish_aio_pika.py QUEUE COUNT EXCHANGE`: 50 tasks, each waits for the confirm of every message.

An empty EXCHANGE sends straight to the queue.
"""

from __future__ import annotations

import asyncio
import json
import sys

import aio_pika
import uvloop
from _meter import Meter

TASKS = 50
ORDER = {"id": 12345, "sku": "tea", "quantity": 2, "note": "x" * 150}


async def main(queue_name: str, count: int, exchange_name: str) -> None:
    meter = Meter(count)
    connection = await aio_pika.connect("amqp://guest:guest@127.0.0.1/")
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = channel.default_exchange
        if exchange_name:
            exchange = await channel.get_exchange(exchange_name, ensure=False)

        async def publish() -> None:  # noqa: ASYNC910  there is something to publish
            for _ in range(count // TASKS):
                message = aio_pika.Message(
                    json.dumps(ORDER).encode(),
                    content_type="application/json",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                )
                await exchange.publish(message, queue_name)

        meter.begin()
        await asyncio.gather(*(publish() for _ in range(TASKS)))
        meter.finish()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
