# /// script
# requires-python = ">=3.11"
# dependencies = ["faststream[rabbit]==0.7.8", "aio-pika==10.2.1", "aiormq==7.2.4", "uvloop==0.23.0"]
# ///
"""FastStream on uvloop: `consume_faststream.py QUEUE COUNT`, prefetch 100, JSON read, acknowledged after the handler.

Its log of every message is off.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop
from _meter import Meter
from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue


async def main(queue_name: str, count: int) -> None:
    meter, finished = Meter(count), asyncio.Event()
    broker = RabbitBroker("amqp://guest:guest@127.0.0.1/", default_channel=Channel(prefetch_count=100), logger=None)

    @broker.subscriber(RabbitQueue(queue_name, durable=True), ack_policy=AckPolicy.NACK_ON_ERROR)
    async def handle(order: dict[str, object]) -> None:
        assert order["sku"] == "tea"
        await asyncio.sleep(0)
        if meter.tick():
            finished.set()

    async with broker:
        await broker.start()
        await finished.wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
