"""What a second process brings: the rate of `--processes 2` against that of one, on RabbitMQ and behind `web`.

    uv run python benchmarks/processes.py [--rounds 5] [--seconds 4] [--messages 4000]

A handler counts for about 2 ms without giving up its core, as one that computes does, so that the client (wrk, or the
broker) takes a small part of the other core. Both are measured in turns in one run; the ratio of the medians counts, and
is to be 1.5 at least where there are two cores. How much of a core the client takes is printed, for web. To RabbitMQ all
messages are sent by this program before the watch starts: a sender in one of the processes would wait behind its
handlers, and be what is measured.
"""

from __future__ import annotations

import argparse
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from kernel_amqp import AmqpBroker, AmqpConfig, AmqpDriver

from kernel import Envelope
from kernel.testing import fake_context

PATIENCE = 60.0
SENDERS = 64
BURNS = """
def burn():
    number = 0
    for step in range(40_000):
        number += step
"""
SITE = f"""{BURNS}
class Site:
    async def app(self, scope, receive, send):
        assert scope["type"] == "http"
        burn()
        await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}})
        await send({{"type": "http.response.body", "body": b"ok"}})
"""
WEB = """
[kernel]
name = "bench"
[dispatchers.web]
plugin = "web"
bind = "127.0.0.1:0"
[workers.site]
use = "bench:Site"
dispatcher = "web"
"""
HANDLES = f"""{BURNS}
import os
from kernel import handles

class Counter:
    def __init__(self):
        self.file = os.open("handled", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @handles("#")
    async def on(self, payload: object):
        burn()
        os.write(self.file, b"x")
"""
RABBIT = """
[kernel]
name = "bench"
[drivers.queue]
plugin = "amqp"
[dispatchers.work]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "{queue}"
options = {{ expires = 60 }}
[workers.counter]
use = "bench:Counter"
dispatcher = "work"
"""


@contextmanager
def running(folder: Path, processes: int) -> Iterator[Path]:
    """Run the service of a folder; yield the file of its log once all of it is ready."""
    log = folder / "log"
    command = [sys.executable, "-m", "kernel", "run", "kernel.toml", "--processes", str(processes)]
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
    try:
        wait(lambda: "bench is ready" in log.read_text(), log)
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def wait(condition: Callable[[], bool], log: Path) -> None:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(log.read_text())
        time.sleep(0.005)


def web(processes: int, seconds: float) -> tuple[float, float]:
    """Return requests a second, and the part of a core that wrk took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kernel.toml").write_text(WEB)
        (folder / "bench.py").write_text(SITE)
        with running(folder, processes) as log:
            port = re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())
            assert port is not None
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                ["wrk", "-t1", "-c16", f"-d{seconds:g}s", f"http://127.0.0.1:{port[1]}/"],
                capture_output=True,
                check=True,
                text=True,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        if rate is None or "Socket errors" in done.stdout or "Non-2xx" in done.stdout:
            raise SystemExit(done.stdout)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return float(rate[1]), spent / seconds


async def fill(queue: str, messages: int) -> None:
    """Send messages; return when the broker has confirmed each."""
    numbers = iter(range(messages))

    async def send(broker: AmqpBroker) -> None:  # noqa: ASYNC910  the last of them may have nothing to send
        for number in numbers:
            envelope = Envelope(subject=queue, body=str(number).encode(), content_type="application/json")
            await broker.send(envelope, exchange="", mandatory=True)

    driver = AmqpDriver(config=AmqpConfig(), context=fake_context("driver/queue"))
    async with driver.open() as broker, trio.open_nursery() as nursery:
        for _ in range(SENDERS):
            nursery.start_soon(send, broker)


def rabbit(processes: int, messages: int) -> float:
    """Return messages a second, of those that were left when the last had been sent."""
    queue = f"bench{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kernel.toml").write_text(RABBIT.format(queue=queue))
        (folder / "bench.py").write_text(HANDLES)
        handled = folder / "handled"
        handled.touch()
        with running(folder, processes) as log:
            trio.run(fill, queue, messages)
            began, first = time.monotonic(), handled.stat().st_size
            wait(lambda: handled.stat().st_size >= messages, log)
            return (messages - first) / (time.monotonic() - began)


def main() -> None:
    """Measure, in turns, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--only", choices=["web", "rabbit"])
    given = parser.parse_args()
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(given.rounds):
        for processes in (1, 2):
            if given.only != "rabbit":
                rate, client = web(processes, given.seconds)
                rates.setdefault(("web", processes), []).append(rate)
                print(f"web       {processes} processes {rate:8.0f}/s  wrk took {client:.0%} of a core", flush=True)
            if given.only != "web":
                rate = rabbit(processes, given.messages)
                rates.setdefault(("RabbitMQ", processes), []).append(rate)
                print(f"RabbitMQ  {processes} processes {rate:8.0f}/s", flush=True)
    for what in dict.fromkeys(name for name, _ in rates):
        one, two = (statistics.median(rates[what, processes]) for processes in (1, 2))
        print(f"{what}: {one:.0f}/s with one, {two:.0f}/s with two: {two / one:.2f} times (at least 1.5)")


if __name__ == "__main__":
    main()
