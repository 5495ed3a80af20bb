# /// script
# requires-python = ">=3.11"
# dependencies = ["faststream[rabbit]==0.7.8"]
# ///
"""FastStream as `loss.py` runs it: `loss_faststream.py QUEUE CONCURRENCY GRACE EFFECTS URL`.

With `--where` it prints the interpreter that has its dependencies: `uv run` passes no SIGKILL on, so `loss.py` starts
the program without it.
"""

from __future__ import annotations

import asyncio
import os
import sys

from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue


async def main(queue: str, concurrency: int, grace: float, effects: str, url: str) -> None:
    file = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    broker = RabbitBroker(url, default_channel=Channel(prefetch_count=concurrency), graceful_timeout=grace, logger=None)

    @broker.subscriber(RabbitQueue(queue, declare=False), ack_policy=AckPolicy.NACK_ON_ERROR)
    async def handle(work: dict[str, float]) -> None:
        await asyncio.sleep(work["seconds"])
        os.write(file, b"%09d\n" % work["id"])

    await FastStream(broker, logger=None).run()


if __name__ == "__main__":
    if sys.argv[1] == "--where":
        print(sys.executable)
    else:
        asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:]))
