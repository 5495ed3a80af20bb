# /// script
# requires-python = ">=3.11"
# dependencies = ["aio-pika==10.2.1", "aiormq==7.2.4", "uvloop==0.23.0"]
# ///
"""aio-pika on uvloop: `consume_aio_pika.py QUEUE COUNT`, prefetch 100, JSON read, acknowledged after the handler."""

from __future__ import annotations

import asyncio
import json
import sys

import aio_pika
import uvloop
from _meter import Meter


async def main(queue_name: str, count: int) -> None:
    meter, finished = Meter(count), asyncio.Event()

    async def on_message(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        async with message.process():
            order = json.loads(message.body)
            assert order["sku"] == "tea"
            await asyncio.sleep(0)
        if meter.tick():
            finished.set()

    connection = await aio_pika.connect("amqp://guest:guest@127.0.0.1/")
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=100)
        queue = await channel.get_queue(queue_name)
        await queue.consume(on_message)
        await finished.wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
