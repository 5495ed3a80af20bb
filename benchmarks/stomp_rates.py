"""Consuming over STOMP, against stomp.py: rounds in turns, the median of the ratios; and the parser on a large body.

    uv run python benchmarks/stomp_rates.py [--rounds 5] [--messages 5000] [--server rabbitmq] [--server activemq] [--server peer]

A queue is filled, then a process takes it all: prefetch 100, JSON of about 200 bytes read, each message acknowledged
after its handler. The kernel's side is a whole service. Each side measures itself, from the first handler to the last.
Starts a RabbitMQ of its own, then an ActiveMQ; the third, `peer`, is no server but a scripted peer, which has its messages
ready and counts acknowledgements, so that only the two sides count. What a side costs in CPU is told besides: with other
work on the machine a rate is what that leaves, and the ratio of the CPU is what remains of the comparison.

Two sides are no clients. `bare` reads nothing and handles nothing: it shows what the server can bring to whoever
acknowledges each message. It has one subscription; `apart`, at ActiveMQ alone, has one for each message in hand as the
service has, and so the same promises. `bulk` is `bare` with one acknowledgement for all that came together (`ack:client`),
which no service can use: a message that is refused would take those before it along, and one that takes long would keep
back those behind it.
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
from typing import Final, Literal, TypeAlias

import attrs
import trio
from kernel_stomp import StompConfig, StompDriver
from kernel_stomp.core import Frame, Parser, encode

from kernel import Envelope
from kernel.abc import Queue, Topology
from kernel.testing import fake_context, free_port

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
    parser.add_argument("--server", choices=SERVERS, action="append", help="all of them by default")
    arguments = parser.parse_args()
    seconds = parsed()
    print(f"a body of 1 MB is read in {seconds * 1000:.2f} ms; at most {PARSED * 1000:g}")
    is_met = seconds <= PARSED
    for name in arguments.server or SERVERS:
        with running(name) as server:
            ratio = race(server, arguments.rounds, arguments.messages)
        is_met = is_met and (ratio >= RATE or name == "peer")
    sys.exit(not is_met)


Name: TypeAlias = Literal["rabbitmq", "activemq", "peer"]
SERVERS: Final[tuple[Name, ...]] = ("rabbitmq", "activemq", "peer")


@attrs.frozen(kw_only=True)
class Server:
    """Whom the sides take messages from; the scripted peer has no port, since each side has one of its own."""

    name: Name
    port: int = 0
    process: int = 0

    @property
    def kind(self) -> Literal["rabbitmq", "activemq"]:
        """Whose destinations are spoken; the peer takes any, and brings what RabbitMQ would."""
        return "activemq" if self.name == "activemq" else "rabbitmq"

    @property
    def sides(self) -> tuple[str, ...]:
        return ("kernel", "apart", "bare", "bulk", "stomp.py") if self.name == "activemq" else SIDES


@attrs.frozen
class Taken:
    """What one side did: messages a second, and the CPU seconds of a message on both ends."""

    rate: float
    cpu: float
    server: float


@contextmanager
def running(name: Name) -> Generator[Server]:
    """Run a server of one's own."""
    if name == "peer":
        yield Server(name=name)
        return
    sys.path.insert(0, str(ROOT))
    from tests.amqp._node import running_node, scripts  # noqa: PLC0415  no package of a distribution
    from tests.stomp._activemq import activemq_is_here, running_activemq  # noqa: PLC0415  as well

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if name == "activemq":
            assert activemq_is_here(), "ActiveMQ is not installed"
            with running_activemq(folder) as active:
                yield Server(name=name, port=active.port, process=active.process)
            return
        programs, port = scripts(), free_port()
        assert programs is not None, "RabbitMQ is not installed"
        (folder / "rabbitmq.conf").write_text(f"stomp.listeners.tcp.1 = 127.0.0.1:{port}\n")
        with running_node(folder, programs, plugins=("rabbitmq_stomp",)):
            yield Server(name=name, port=port, process=int((folder / "pid").read_text()))


def race(server: Server, rounds: int, messages: int) -> float:
    """Return how many times faster the kernel is, in the median."""
    found = {name: list[Taken]() for name in server.sides}
    for name in server.sides:
        take(name, server, messages)  # a virtual machine has to become warm
    for number in range(rounds):
        for name in server.sides if number % 2 else reversed(server.sides):
            found[name].append(take(name, server, messages))
        print(f"{server.name}: " + ", ".join(f"{name} {found[name][-1].rate:.0f}/s" for name in server.sides))
    ratios = {
        name: statistics.median(
            one.rate / other.rate for one, other in zip(found[name], found["stomp.py"], strict=True)
        )
        for name in server.sides
    }
    allowed = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items() if name not in ("kernel", "stomp.py"))
    bound = "no server, so no bound" if server.name == "peer" else f"at least {RATE:g}"
    print(f"{server.name}: the kernel consumes {ratios['kernel']:.2f} times as fast as stomp.py ({bound}); {allowed}")
    for name in server.sides:
        own, other = (statistics.median(getattr(one, end) for one in found[name]) for end in ("cpu", "server"))
        share = f", and {other * 1e6:.0f} the server" if other else ""
        print(f"{server.name}: {name} takes {own * 1e6:.0f} us of CPU for each message{share}")
    return ratios["kernel"]


SIDES: Final = ("kernel", "bare", "bulk", "stomp.py")


def take(side: str, server: Server, messages: int) -> Taken:
    """Have one side take messages."""
    if not server.port:
        with scripted_peer(messages) as port:
            return taken(side, "bench", attrs.evolve(server, port=port), messages)
    queue = f"bench-{secrets.token_hex(4)}"
    trio.run(partial(fill, queue, server, messages))
    return taken(side, queue, server, messages)


@contextmanager
def scripted_peer(messages: int) -> Generator[int]:
    """Run the scripted peer; its port. It has more than is taken, so that nobody waits for the end."""
    command = [sys.executable, str(RIVALS / "scripted_stomp_peer.py"), str(messages + 200)]
    peer = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
    try:
        assert peer.stdout is not None
        yield int(peer.stdout.readline())
    finally:
        peer.kill()
        peer.wait()


def taken(side: str, queue: str, server: Server, messages: int) -> Taken:
    """Have one side take messages from a queue."""
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
    return Taken(said["count"] / said["wall"], said["cpu"] / said["count"], spent)


def command(side: str, queue: str, server: Server, messages: int) -> list[str]:
    """Return what runs one side."""
    if side == "kernel":
        return [sys.executable, "-m", "kernel", "run", "--log-level", "error", str(RIVALS / "kernel_stomp.toml")]
    given = [queue, str(messages), str(server.port), server.kind]
    if side == "stomp.py":
        peer = str(RIVALS / "consume_stomp_py.py")
        return [os.environ.get("UV", "uv"), "run", "--quiet", "--script", peer, *given]
    mode, subscriptions = "client" if side == "bulk" else "client-individual", "100" if side == "apart" else "1"
    return [sys.executable, str(RIVALS / "bare_stomp.py"), *given, mode, subscriptions]


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
