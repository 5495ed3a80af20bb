# /// script
# requires-python = ">=3.11"
# dependencies = ["aio-pika==10.2.1", "aiormq==7.2.4", "uvloop==0.23.0"]
# ///
"""aio-pika's JsonRPC on uvloop: `rpc_aio_pika.py serve NAME` serves `add`; `rpc_aio_pika.py call NAME COUNT` calls it.

Sixteen tasks call, each one call after the other, and the server takes as many at a time.
"""

from __future__ import annotations

import asyncio
import json
import sys

import aio_pika
import uvloop
from _meter import Meter
from aio_pika.patterns import JsonRPC

CALLERS = 16
URL = "amqp://guest:guest@127.0.0.1/"


async def add(*, a: int, b: int) -> int:
    return a + b  # noqa: ASYNC910  as short as can be


async def serve(name: str) -> None:
    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=CALLERS)
        rpc = await JsonRPC.create(channel)
        await rpc.register(name, add, auto_delete=True)
        print(json.dumps({"ready": True}), flush=True)
        await asyncio.to_thread(sys.stdin.read)  # until whoever started it closes the pipe


async def call(name: str, count: int) -> None:
    async with await aio_pika.connect(URL) as connection:
        rpc = await JsonRPC.create(await connection.channel())

        async def calls(count: int) -> None:  # noqa: ASYNC910  there is a call at least
            for number in range(count):
                if await rpc.call(name, {"a": number, "b": 1}) != number + 1:
                    raise AssertionError("a wrong answer")

        await calls(1)
        meter = Meter(count)
        meter.begin()
        await asyncio.gather(*(calls(count // CALLERS) for _ in range(CALLERS)))
        meter.finish()


async def main(what: str, name: str, count: int) -> None:
    await (serve(name) if what == "serve" else call(name, count))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int((sys.argv[3:] or ["0"])[0])))
