"""Consuming over STOMP, against stomp.py: rounds in turns, the median of the ratios; and the parser on a large body.

    uv run python benchmarks/stomp_rates.py [--rounds 5] [--messages 5000] [--server activemq] [--idle]

A queue is filled, then a process takes it all: prefetch 100, JSON of about 200 bytes read, each message acknowledged
after its handler. The kernel's side is a whole service. Each side measures itself, from the first handler to the last.
Starts a RabbitMQ of its own, or an ActiveMQ; with `--idle`, a server that does next to nothing, so that only the two sides
count. The side `bare` reads nothing and handles nothing: it shows what the server can bring, and what a message costs that.
`bulk` is the same with one acknowledgement for all that came together (`ack:client`), which no service can use: a message
that is refused would take those before it along, and one that takes long would keep back those behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, Literal

import attrs
import trio
from kernel_stomp import StompConfig, StompDriver
from kernel_stomp.core import Frame, Parser, encode

from kernel import Envelope
from kernel.abc import Queue, Topology
from kernel.testing import fake_context

ROOT: Final = Path(__file__).parent.parent
RIVALS: Final = Path(__file__).parent / "rivals"
RATE: Final = 3.0
"""Times the rate of stomp.py, at least."""
PARSED: Final = 0.002
"""Seconds for a body of 1 MB, at most."""
_BODY: Final = json.dumps({"id": 12345, "sku": "tea", "quantity": 2, "note": "x" * 150}).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--server", choices=("rabbitmq", "activemq"), default="rabbitmq")
    parser.add_argument("--idle", action="store_true")
    arguments = parser.parse_args()
    seconds = parsed()
    print(f"a body of 1 MB is read in {seconds * 1000:.2f} ms; at most {PARSED * 1000:g}")
    if arguments.idle:
        race(Server(), arguments.rounds, arguments.messages)
        return
    with running(arguments.server) as server:
        ratio = race(server, arguments.rounds, arguments.messages)
    sys.exit(not (ratio >= RATE and seconds <= PARSED))


@attrs.frozen(kw_only=True)
class Server:
    """Whom the sides take messages from; without a port, one that does next to nothing."""

    kind: Literal["rabbitmq", "activemq"] = "rabbitmq"
    port: int = 0
    process: int = 0


@contextmanager
def running(kind: Literal["rabbitmq", "activemq"]) -> Generator[Server]:
    """Run a server of one's own."""
    sys.path.insert(0, str(ROOT))
    from tests.amqp._node import free_port, running_node, scripts  # noqa: PLC0415  no package of a distribution
    from tests.stomp._activemq import activemq_is_here, running_activemq  # noqa: PLC0415  as well

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "activemq":
            assert activemq_is_here(), "ActiveMQ is not installed"
            with running_activemq(folder) as active:
                yield Server(kind=kind, port=active.port, process=active.process)
            return
        programs, port = scripts(), free_port()
        assert programs is not None, "RabbitMQ is not installed"
        (folder / "rabbitmq.conf").write_text(f"stomp.listeners.tcp.1 = 127.0.0.1:{port}\n")
        with running_node(folder, programs, plugins=("rabbitmq_stomp",)):
            yield Server(kind=kind, port=port, process=int((folder / "pid").read_text()))


def race(server: Server, rounds: int, messages: int) -> float:
    """Return how many times faster the kernel is, in the median."""
    rates = {name: list[float]() for name in SIDES}
    for name in SIDES:
        rate(name, server, messages)  # a virtual machine has to become warm
    for number in range(rounds):
        for name in SIDES if number % 2 else reversed(SIDES):
            rates[name].append(rate(name, server, messages))
        print(", ".join(f"{name} {rates[name][-1]:.0f}/s" for name in SIDES))
    ratio, bare, bulk = (
        statistics.median(one / other for one, other in zip(rates[name], rates["stomp.py"], strict=True))
        for name in ("kernel", "bare", "bulk")
    )
    print(
        f"the kernel consumes {ratio:.2f} times as fast as stomp.py; at least {RATE:g}; {server.kind} allows {bare:.2f}, "
        f"and {bulk:.2f} with acknowledgements in bulk"
    )
    return ratio


SIDES: Final = ("kernel", "bare", "bulk", "stomp.py")


def rate(side: str, server: Server, messages: int) -> float:
    """Return how many messages a second one side takes."""
    if not server.port:
        with idle_server(messages) as idle:
            return taken(side, "bench", attrs.evolve(server, port=idle), messages)
    queue = f"bench-{secrets.token_hex(4)}"
    trio.run(partial(fill, queue, server, messages))
    return taken(side, queue, server, messages)


@contextmanager
def idle_server(messages: int) -> Generator[int]:
    """Run the server that does next to nothing; its port. It has more than is taken, so that nobody waits for the end."""
    command = [sys.executable, str(RIVALS / "idle_stomp_server.py"), str(messages + 200)]
    server = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.wait()


def taken(side: str, queue: str, server: Server, messages: int) -> float:
    """Return how many messages a second one side takes from a queue; says what CPU a message costs it, and the server."""
    bench = {"QUEUE": queue, "COUNT": str(messages), "PORT": str(server.port), "SERVER": server.kind}
    environ = {"PYTHONWARNINGS": "ignore", **{f"BENCH_{name}": value for name, value in bench.items()}}
    before = cpu_of(server.process) if server.process else 0.0
    process = subprocess.Popen(
        command(side, queue, server, messages),
        env={**os.environ, **environ},
        cwd=RIVALS,
        text=True,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        said = json.loads(next(line for line in process.stdout if line.startswith("{")))
    finally:
        process.terminate()
        process.wait()
    spent = (cpu_of(server.process) - before) / messages if server.process else 0.0
    share = f", and {spent * 1e6:.0f} the server" if spent else ""
    print(f"{side}: {said['cpu'] / said['count'] * 1e6:.0f} us of CPU for each message{share}")
    return float(said["count"] / said["wall"])


def command(side: str, queue: str, server: Server, messages: int) -> list[str]:
    """Return what runs one side."""
    if side == "kernel":
        return [sys.executable, "-m", "kernel", "run", "--log-level", "error", str(RIVALS / "kernel_stomp.toml")]
    given = [queue, str(messages), str(server.port), server.kind]
    if side == "stomp.py":
        peer = str(RIVALS / "consume_stomp_py.py")
        return [os.environ.get("UV", "uv"), "run", "--quiet", "--script", peer, *given]
    mode = "client" if side == "bulk" else "client-individual"
    return [sys.executable, str(RIVALS / "bare_stomp.py"), *given, mode]


def cpu_of(process: int) -> float:
    """Return the CPU seconds that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def fill(queue: str, server: Server, messages: int) -> None:
    """Put messages into a queue, each confirmed."""
    config = StompConfig(server=server.kind, hosts=(f"127.0.0.1:{server.port}",))
    async with StompDriver(config=config, context=fake_context("driver/queue")).open() as broker:
        await broker.declare(Topology(queues=[Queue(name=queue)]))
        limit = trio.CapacityLimiter(100)

        async def send() -> None:
            async with limit:
                envelope = Envelope(subject=queue, body=_BODY, content_type="application/json")
                await broker.send(envelope, exchange="")

        async with trio.open_nursery() as nursery:
            for _ in range(messages):
                nursery.start_soon(send)


def parsed() -> float:
    """Return how long the parser takes for a body of 1 MB that comes in pieces; the best of some."""
    data, best = encode(Frame("MESSAGE", {"destination": "/queue/a"}, os.urandom(1_000_000)), "1.2"), float("inf")
    for _ in range(20):
        parser, began = Parser(frozenset({"MESSAGE"})), time.perf_counter()
        for begin in range(0, len(data), 65536):
            parser.feed(data[begin : begin + 65536])
        assert parser.next_frame() is not None
        best = min(best, time.perf_counter() - began)
    return best


if __name__ == "__main__":
    main()
