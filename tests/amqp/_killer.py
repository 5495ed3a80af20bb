"""A message that kills every process that handles it, and a service that is started again each time.

What the handler of such a message does is `os._exit`: nothing is said to the broker, and nothing is cleaned up.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import attrs
import trio

from kernel import Ack, Envelope, handles
from kernel.abc import Broker, Queue, Subscription, Topology

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0
"""Seconds after which it is taken to go on for ever."""


@attrs.frozen(kw_only=True)
class KillerConfig:
    """The table of the worker."""

    folder: str
    """Where it writes down what it handles."""


class Killer:
    """Ends its process with each message, which it writes down before."""

    def __init__(self, config: KillerConfig) -> None:
        self._deaths = Path(config.folder) / "deaths"

    @handles("#")
    async def take(self, _: object) -> None:
        with self._deaths.open("ab") as file:
            file.write(b"x")
        os._exit(9)


def manifest(queue: str, folder: Path, driver: str) -> str:
    """Return the service; `driver` is what its driver's table says."""
    return f"""
[kernel]
name = "killed"
[drivers.queue]
{driver}
[dispatchers.work]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "{queue}"
concurrency = 1
[protocols.json]
[workers.work]
use = "tests.amqp._killer:Killer"
dispatcher = "work"
config = {{ folder = "{folder}" }}
retry = {{ attempts = 3 }}
"""


async def deaths_of(broker: Broker, queue: str, folder: Path, driver: str) -> int:
    """Return how many processes a message kills before it is put aside."""
    grave = Queue(name=f"{queue}.dead")
    await broker.declare(Topology(queues=[grave, Queue(name=queue, dead_letters=grave.name)]))
    poison = Envelope(subject=queue, body=b"{}", content_type="application/json")
    await broker.send(poison, exchange="")
    path = folder / "kernel.toml"
    path.write_text(manifest(queue, folder, driver))
    wish = Subscription(queue=grave.name, prefetch=1)
    async with trio.open_nursery() as nursery, broker.subscribe(wish) as letters:
        nursery.start_soon(_run_again_and_again, path)
        with trio.fail_after(PATIENCE):
            await (await anext(letters)).settle(Ack())
        nursery.cancel_scope.cancel()
    return len((folder / "deaths").read_bytes())


async def _run_again_and_again(manifest: Path) -> None:
    """Be what starts a service again that has died."""
    with (manifest.parent / "log").open("ab") as log:
        while True:
            command = [sys.executable, "-m", "kernel", "run", str(manifest)]
            await trio.run_process(command, cwd=ROOT, stdout=log, stderr=log, check=False)
