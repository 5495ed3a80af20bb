"""Kills and stops services that consume from RabbitMQ, and prints what was lost, run twice, and how long a stop took.

Each system runs four trials: handlers of 50 ms and of 3 s, each with `kill -9` and with SIGTERM. The messages, kills
and stops asked for are shared out among them. RabbitMQ is a node of the program's own, so `rabbitmq-server` must be
installed; FastStream runs in an environment that `uv run --script` makes. `amqp10` is the kernel over AMQP 1.0, for which
`uv sync --group engine` compiles the engine. The harness is `tests/amqp/_loss.py`; how it counts, and why, is decision 0021.

    uv run python benchmarks/loss.py [--messages 4000] [--kills 12] [--terms 12] [--systems kernel faststream amqp10]

With `--chaos`, the kernel alone, in one trial: each message has something wrong with it, drawn by chance, so that twenty
causes are in hand at a time, and the broker is in trouble all the while (`tests/amqp/_chaos.py`).

    uv run python benchmarks/loss.py --chaos [--messages 4000] [--kills 12] [--terms 12]
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import attrs
import trio
from kernel_amqp import AmqpConfig, AmqpDriver

from kernel.abc import Queue, Topology
from kernel.testing import fake_context

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.amqp._chaos import ChaosTrial, ChaosVerdict
from tests.amqp._chaos import endure as endure_chaos
from tests.amqp._chaos_causes import CAUSES, drawn
from tests.amqp._loss import Effects, Runner, Trial, Verdict, endure, fill, manifest
from tests.amqp._node import Node, running_node, scripts
from tests.amqp10._node import running

ROOT = Path(__file__).parent.parent
GRACE = 20.0
PATIENCE = 120.0
"""Seconds without an effect after which nothing more is expected; a machine that others use may start nothing for long."""
CONCURRENCY = {0.05: 20, 3.0: 250}
"""Messages in hand at a time, for each length of a handler, so that both get done; at most half of what is a life's
share, so that every life has something to do."""
RIVALS = Path(__file__).parent / "rivals"


@attrs.frozen
class Place:
    """Where a trial happens."""

    node: Node
    queue: str
    trial: Trial
    folder: Path
    management: str
    """The URL of the node's HTTP API; empty if it has none."""

    @property
    def effects(self) -> Path:
        return self.folder / "effects"


def kernel_command(place: Place) -> list[str]:
    path = place.folder / "kernel.toml"
    path.write_text(manifest(place.node.address, place.queue, place.trial, place.effects))
    return [sys.executable, "-m", "kernel", "run", str(path)]


def amqp10_command(place: Place) -> list[str]:
    path = place.folder / "kernel.toml"
    broker = f'plugin = "amqp10"\nmanagement = "{place.management}"'
    path.write_text(manifest(place.node.address, place.queue, place.trial, place.effects, broker=broker))
    return [sys.executable, "-m", "kernel", "run", str(path)]


def faststream_command(place: Place) -> list[str]:
    script = RIVALS / "loss_faststream.py"
    where = subprocess.run(["uv", "run", "--script", script, "--where"], check=True, capture_output=True, text=True)
    url = f"amqp://guest:guest@{place.node.address}/"
    numbers = [str(place.trial.concurrency), str(place.trial.grace)]
    return [where.stdout.strip(), str(script), place.queue, *numbers, str(place.effects), url]


Command: TypeAlias = Callable[[Place], list[str]]
SYSTEMS: dict[str, Command] = {
    "kernel": kernel_command,
    "faststream": faststream_command,
    "amqp10": amqp10_command,
}


def trials(arguments: argparse.Namespace) -> list[Trial]:
    counts = [(signal.SIGKILL, arguments.kills // 2), (signal.SIGTERM, arguments.terms // 2)]
    messages = arguments.messages // 4
    return [
        Trial(
            messages=messages,
            seconds=seconds,
            signal=number,
            times=count,
            concurrency=min(concurrency, messages // (count + 1) // 2),
            grace=GRACE,
            seed=arguments.seed,
        )
        for seconds, concurrency in CONCURRENCY.items()
        for number, count in counts
    ]


@contextmanager
def node_for(systems: Sequence[str], folder: Path, programs: Path) -> Iterator[tuple[Node, str]]:
    """A node that runs, and the URL of its HTTP API where one of the systems needs that."""
    if "amqp10" in systems:
        with running(folder, programs) as more:
            yield more.node, more.management
    else:
        with running_node(folder, programs) as node:
            yield node, ""


async def attempt(node: Node, management: str, system: str, trial: Trial) -> Verdict:
    queue = f"loss.{system}.{trial.seconds}.{trial.signal.name}"
    config = AmqpConfig(hosts=(node.address,))
    with tempfile.TemporaryDirectory(prefix="loss-") as name:
        place = Place(node, queue, trial, Path(name), management)
        async with AmqpDriver(config=config, context=fake_context("driver/queue")).open() as broker:
            await broker.declare(Topology(queues=[Queue(name=queue)]))
            await fill(broker, queue, trial)
        runner = Runner(SYSTEMS[system](place), ROOT, place.folder / "log")
        effects = Effects(place.effects, patience=PATIENCE)
        verdict = await endure(trial, runner, effects, lambda: node.waiting(queue))
        if not verdict.holds:
            shutil.copytree(place.folder, kept := Path(tempfile.mkdtemp(prefix="loss-kept-")), dirs_exist_ok=True)
            print(f"what it wrote, and the effects, are in {kept}", file=sys.stderr)
        return verdict


HEAD = """
| system | handler | in hand | ended by | times | messages | lost | run twice | allowed | slowest exit | grace | exit statuses |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


def row(system: str, verdict: Verdict) -> str:
    trial = verdict.trial
    is_kill = trial.signal == signal.SIGKILL
    statuses = ", ".join(f"{status} ({count})" for status, count in sorted(verdict.statuses.items()))
    cells = [
        system,
        f"{trial.seconds * 1000:.0f} ms" if trial.seconds < 1 else f"{trial.seconds:.0f} s",
        trial.concurrency,
        "kill -9" if is_kill else "SIGTERM",
        verdict.ended,
        f"{trial.messages:,}",
        verdict.lost,
        verdict.twice,
        f"{trial.allowed_twice:,}",
        f"{verdict.slowest_exit:.1f} s",
        f"{trial.grace:.0f} s",
        statuses,
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


CHAOS_HEAD = """
| messages | kills | stops | troubles | lost | left | ends twice | runs | beyond attempts | allowed | worst | slowest stop | seconds |
|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


def chaos_row(verdict: ChaosVerdict) -> str:
    trial = verdict.trial
    cells = [
        f"{trial.messages:,}",
        trial.kills,
        trial.terms,
        verdict.troubles.total(),
        verdict.lost,
        verdict.left,
        verdict.twice,
        f"{verdict.runs:,}",
        verdict.beyond,
        f"{verdict.allowed:,}",
        verdict.worst,
        f"{verdict.slowest_stop:.1f} s",
        f"{verdict.seconds:.0f} s",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def keep(node: Node, trial: ChaosTrial, place: Path) -> None:
    """Keep what a trial wrote that does not hold, with what is left in the queues; name what was lost."""
    kept = Path(tempfile.mkdtemp(prefix="chaos-kept-"))
    shutil.copytree(place, kept, dirs_exist_ok=True)
    shutil.copytree(node.folder, kept / "node", dirs_exist_ok=True, ignore=shutil.ignore_patterns("mnesia*", "*.idx"))
    (kept / "queues").write_text(node.control("list_queues", "name", "type", "messages"))
    print(f"what it wrote, and what is left in the queues, are in {kept}", file=sys.stderr)
    done = set(map(int, (place / "effects").read_bytes().split()))
    names = {id(cause): name for name, cause in CAUSES.items()}
    for number, cause in enumerate(drawn(random.Random(trial.seed), trial.messages)):
        if number not in done:
            print(f"lost: {number}, {names[id(cause)]}", file=sys.stderr)


async def suffer(trial: ChaosTrial) -> bool:
    programs = scripts()
    if programs is None:
        sys.exit("loss.py needs rabbitmq-server; on Debian: apt install rabbitmq-server")
    with (
        tempfile.TemporaryDirectory(prefix="loss-node-") as folder,
        tempfile.TemporaryDirectory(prefix="loss-") as place,
        running_node(Path(folder), programs) as node,
    ):
        verdict = await endure_chaos(node, trial, Path(place))
        if not verdict.holds:
            keep(node, trial, Path(place))
    print(CHAOS_HEAD)
    print(chaos_row(verdict))
    print(*(f"{count} x {name}" for name, count in sorted(verdict.troubles.items())), sep="\n")
    return verdict.holds


async def compare(systems: Sequence[str], todo: Sequence[Trial]) -> bool:
    programs = scripts()
    if programs is None:
        sys.exit("loss.py needs rabbitmq-server; on Debian: apt install rabbitmq-server")
    print(HEAD)
    await trio.lowlevel.checkpoint()
    kept = True
    with (
        tempfile.TemporaryDirectory(prefix="loss-node-") as folder,
        node_for(systems, Path(folder), programs) as (node, management),
    ):
        for trial in todo:
            for system in systems:
                verdict = await attempt(node, management, system, trial)
                print(row(system, verdict), flush=True)
                kept = kept and (verdict.holds or system == "faststream")
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--terms", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chaos", action="store_true")
    parser.add_argument("--systems", nargs="+", choices=sorted(SYSTEMS), default=["kernel", "faststream"])
    arguments = parser.parse_args()
    if arguments.chaos:
        trial = ChaosTrial(
            messages=arguments.messages, kills=arguments.kills, terms=arguments.terms, seed=arguments.seed
        )
        sys.exit(not trio.run(suffer, trial))
    sys.exit(not trio.run(compare, arguments.systems, trials(arguments)))


if __name__ == "__main__":
    main()
