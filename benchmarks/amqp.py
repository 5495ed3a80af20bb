"""RabbitMQ through the kernel, against what else Python has: interleaved rounds in one run, medians of pairwise ratios.

    uv run python benchmarks/amqp.py [--rounds 7] [--messages 20000] [--only RACE] [--soak]

Consuming: a queue is filled, then a process takes it all: prefetch 100, JSON of about 200 bytes read, each message
acknowledged after its handler. The kernel's side is a whole service, as `kernel run` runs it: consumer, protocol, worker.
Publishing: 50 tasks, each waits for the confirm of every persistent message, which goes straight to a queue; and once
more through a topic exchange, whose routing costs the broker a sixth of its time. RPC: 16 callers, each waits for every
answer.
Every side is a process of its own, with an environment of its own (`rivals`), and measures itself with one ruler, from
the first handler to the last: wall and CPU seconds of that process, not of the broker, which shares the cores.
Needs RabbitMQ on 127.0.0.1:5672. `--soak` shows instead what 1,000,000 messages do to the memory of the service.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

import attrs

RIVALS: Final = Path(__file__).parent / "rivals"
QUEUE: Final = f"bench-{secrets.token_hex(4)}"
CALLS: Final = 4_000
SOAK: Final = 1_000_000
SOAK_STEPS: Final = 20
SOAK_BOUND: Final = 0.05


@final
@attrs.frozen
class Figures:
    """What one side took for one round."""

    rate: float
    cpu: float
    """CPU seconds for each message."""
    rss: int


@final
@attrs.frozen
class Bound:
    """What the kernel promises against a rival."""

    rival: str
    rate: float
    """At least so many times its rate."""
    cpu: float | None = None
    """At most so much of its CPU time."""


@final
@attrs.frozen
class Race:
    """One kind of work, the sides that do it, and what is promised."""

    name: str
    run: Mapping[str, Callable[[int], Figures]]
    bounds: tuple[Bound, ...]


def script(name: str, *arguments: object) -> list[str]:
    """Return the command that runs a script of `rivals` in its own environment."""
    return [os.environ.get("UV", "uv"), "run", "--quiet", "--script", str(RIVALS / name), *map(str, arguments)]


def service(name: str) -> list[str]:
    """Return the command that runs a manifest of `rivals`."""
    return [sys.executable, "-m", "kernel", "run", "--log-level", "error", str(RIVALS / f"{name}.toml")]


@contextmanager
def started(command: list[str], *, count: int, every: int = 0, exchange: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run a side; its end is asked for on the way out, and must be a good one."""
    environ = {**os.environ, "BENCH_QUEUE": QUEUE, "BENCH_COUNT": str(count), "BENCH_EVERY": str(every)}
    environ |= {"BENCH_EXCHANGE": exchange, "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        command, env=environ, cwd=RIVALS, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        assert process.stdin is not None
        process.stdin.close()  # how a rival learns that it should end
        if command[0] == sys.executable:
            process.terminate()
        assert process.wait(30) in {0, -9}, command


def figures(process: subprocess.Popen[str]) -> Figures:
    """Return what a side says of itself."""
    said = next(line for line in said_by(process) if "wall" in line)
    return Figures(rate=said["count"] / said["wall"], cpu=said["cpu"] / said["count"], rss=int(said["rss"]))


def wait_ready(process: subprocess.Popen[str]) -> None:
    """Wait until a side says that it can be called."""
    assert process.stdout is not None
    if not any("ready" in line for line in process.stdout):
        raise SystemExit(f"{process.args} ended before it was ready")


def said_by(process: subprocess.Popen[str]) -> Iterator[dict[str, float]]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            yield json.loads(line)
    raise SystemExit(f"{process.args} ended without figures")


def queues(command: str, count: int = 0) -> dict[str, int]:
    """Have pika do something with the queue of this run."""
    ran = subprocess.run(
        script("queues.py", command, QUEUE, count), stdout=subprocess.PIPE, text=True, check=True, cwd=RIVALS
    )
    return json.loads(ran.stdout or "{}")


def consumes(command: Callable[[int], list[str]]) -> Callable[[int], Figures]:
    """Return a round of consuming; whoever leaves a message without acknowledgement is disqualified."""

    def run(count: int) -> Figures:
        queues("fill", count)
        with started(command(count), count=count) as process:
            taken = figures(process)
        assert queues("size")["size"] == 0, f"{command(count)} left messages"
        return taken

    return run


def publishes(command: Callable[[int], list[str]], *, exchange: str) -> Callable[[int], Figures]:
    """Return a round of publishing; all of it must be in the queue."""

    def run(count: int) -> Figures:
        queues("make")
        with started(command(count), count=count, exchange=exchange) as process:
            sent = figures(process)
        assert queues("size")["size"] == count, f"{command(count)} lost messages"
        return sent

    return run


def publishing(exchange: str) -> Mapping[str, Callable[[int], Figures]]:
    """Return the sides that publish through an exchange; an empty one is the broker's way straight to a queue."""
    aio_pika = publishes(lambda count: script("publish_aio_pika.py", QUEUE, count, exchange), exchange=exchange)
    return {"aio-pika": aio_pika, "kernel": publishes(lambda _: service("kernel_publish"), exchange=exchange)}


def calls(serve: list[str], call: Callable[[int], list[str]]) -> Callable[[int], Figures]:
    """Return a round of calls."""

    def run(_: int) -> Figures:
        with started(serve, count=CALLS) as called:
            wait_ready(called)
            with started(call(CALLS), count=CALLS) as caller:
                return figures(caller)

    return run


RACES: Final = (
    Race(
        "consume",
        {
            "aio-pika": consumes(lambda count: script("consume_aio_pika.py", QUEUE, count)),
            "FastStream": consumes(lambda count: script("consume_faststream.py", QUEUE, count)),
            "kernel": consumes(lambda _: service("kernel_consume")),
        },
        (Bound("FastStream", 5, 0.25), Bound("aio-pika", 2.5)),
    ),
    Race("publish", publishing(""), (Bound("aio-pika", 2, 0.25),)),
    Race("publish-topic", publishing("amq.topic"), (Bound("aio-pika", 2, 0.25),)),
    Race(
        "rpc",
        {
            "Nameko": calls(
                script("rpc_nameko.py", "serve", QUEUE), lambda count: script("rpc_nameko.py", "call", QUEUE, count)
            ),
            "aio-pika": calls(
                script("rpc_aio_pika.py", "serve", QUEUE), lambda count: script("rpc_aio_pika.py", "call", QUEUE, count)
            ),
            "kernel": calls(service("kernel_serve"), lambda _: service("kernel_call")),
        },
        (Bound("Nameko", 4), Bound("aio-pika", 2)),
    ),
)


def race(what: Race, *, rounds: int, count: int) -> bool:
    """Run the rounds, print the figures, and return whether the bounds are met."""
    queues("delete")  # another race may have left one of another kind
    taken: dict[str, list[Figures]] = {name: [] for name in what.run}
    for _ in range(rounds):
        for name, run in what.run.items():
            taken[name].append(run(count))
    print(f"\n{what.name}, {rounds} rounds of {CALLS if what.name == 'rpc' else count}")
    for name, each in taken.items():
        rate, cpu = statistics.median(one.rate for one in each), statistics.median(one.cpu for one in each)
        print(f"  {name:12} {rate:8,.0f} /s {cpu * 1e6:7.1f} us CPU each   {max(one.rss for one in each):,} kB")
    met = [judge(bound, taken["kernel"], taken[bound.rival]) for bound in what.bounds]
    return all(met)


def judge(bound: Bound, ours: list[Figures], theirs: list[Figures]) -> bool:
    """Print the ratios to a rival and return whether they are as promised."""
    rates = [mine.rate / other.rate for mine, other in zip(ours, theirs, strict=True)]
    rate, spread = statistics.median(rates), f"({min(rates):.2f} to {max(rates):.2f})"
    cpu = statistics.median(mine.cpu / other.cpu for mine, other in zip(ours, theirs, strict=True))
    met = rate >= bound.rate and (bound.cpu is None or cpu <= bound.cpu)
    wanted = f"at least {bound.rate:g}" + ("" if bound.cpu is None else f" and at most {bound.cpu:g}")
    print(
        f"  rate {rate:.2f} {spread} and CPU {cpu:.2f} of {bound.rival}; bound: {wanted}: {'met' if met else 'NOT met'}"
    )
    return met


def soak(count: int) -> bool:
    """Print the memory of the service while it consumes, and return whether it stays flat."""
    queues("make")
    sizes: list[int] = []
    with (
        started(service("kernel_consume"), count=count, every=count // SOAK_STEPS) as process,
        started(script("queues.py", "feed", QUEUE, count), count=count),
    ):
        for said in said_by(process):
            sizes.append(int(said["rss"]))
            print(f"  {said['count']:>9,} messages  {sizes[-1]:>8,} kB", flush=True)
            if said["count"] == count:
                break
    first, last = statistics.median(sizes[1:4]), statistics.median(sizes[-3:])
    met = last <= first * (1 + SOAK_BOUND)
    print(f"  at the end {last / first:.3f} of the start; bound: {1 + SOAK_BOUND:g}: {'met' if met else 'NOT met'}")
    return met


def main() -> int:
    """Return 1 if a bound is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--only", choices=[race.name for race in RACES])
    parser.add_argument("--soak", type=int, nargs="?", const=SOAK, default=0, metavar="MESSAGES")
    arguments = parser.parse_args()
    try:
        if arguments.soak:
            return 0 if soak(arguments.soak) else 1
        races = [one for one in RACES if arguments.only in {None, one.name}]
        met = [race(one, rounds=arguments.rounds, count=arguments.messages) for one in races]
        return 0 if all(met) else 1
    finally:
        queues("delete")


if __name__ == "__main__":
    raise SystemExit(main())
