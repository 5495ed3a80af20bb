"""What starting costs: `kernel check` against bare imports, and services of thousands of idle workers.

    uv run python benchmarks/start.py [--rounds 5]

Every figure is taken in a process of its own, and the processes of one round follow each other, so that a machine
that gets slower meets all of them. Modules are compiled before the first round, into a folder of their own. CPU
seconds (user and system, of the process alone) are what to judge by: they hold on a machine that is busy with other
things, where wall time does not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

ROOT: Final = Path(__file__).parent.parent
REFERENCE: Final = "import trio, attrs, cattrs"
MANIFEST_HEAD: Final = """
[kernel]
name = "crowd"
[drivers.queue]
plugin = "memory"
[dispatchers.consumer]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "crowd"
bindings = ["#"]
"""
CROWD: Final = """
from kernel import handles

def _worker(number):
    class Idle:
        @handles(f"subject.{number}")
        async def handle(self, payload: dict) -> None:
            pass

    return Idle

# As many as the manifests with one table each name; all processes import the same, so that it cancels out.
globals().update({f"Worker{number}": _worker(number) for number in range(5000)})
"""
PROBE: Final = """
import os, sys
import trio, structlog
from kernel import discover, load, resolve, serve

async def main():
    async with trio.open_nursery() as nursery:
        kernel = await nursery.start(serve_one)
        await kernel.wait_ready()
        print(open("/proc/self/statm").read().split()[1], flush=True)
        os._exit(0)

async def serve_one(task_status):
    await serve(plan, log=structlog.get_logger(), task_status=task_status)

plan = resolve(load(sys.argv[1], environ={}), discover())
trio.run(main)
"""
"""Starts a service, prints its resident pages when it is ready, and ends without a stop, which is not measured."""


@attrs.frozen
class Cost:
    """What one process cost."""

    wall: float
    """Seconds from its start to its end."""
    cpu: float
    """Seconds, user and system."""
    resident: int = 0
    """Bytes that it said were resident."""


def run(arguments: Sequence[str], *, cwd: Path) -> Cost:
    """Run Python to the end; it must succeed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, stdout=subprocess.PIPE, check=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    pages = done.stdout.split()[-1:] if arguments[0] == "probe.py" else []
    return Cost(wall, cpu, int(pages[0]) * resource.getpagesize() if pages else 0)


def tables(count: int) -> str:
    """Return a manifest with a table for each worker."""
    workers = (
        f'[workers.w{number}]\nuse = "crowd:Worker{number}"\ndispatcher = "consumer"\n' for number in range(count)
    )
    return MANIFEST_HEAD + "".join(workers)


def instances(count: int) -> str:
    """Return a manifest with one worker of many instances."""
    return f'{MANIFEST_HEAD}[workers.w]\nuse = "crowd:Worker0"\ndispatcher = "consumer"\ninstances = {count}\n'


SERVICES: Final[Mapping[str, str]] = {
    "1 worker": tables(1),
    "1,000 tables": tables(1000),
    "5,000 tables": tables(5000),
    "instances = 1000": instances(1000),
    "instances = 5000": instances(5000),
}


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """Yield a folder with the manifests, where Python also keeps what it compiles."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "crowd.py").write_text(CROWD, encoding="utf-8")
        (folder / "probe.py").write_text(PROBE, encoding="utf-8")
        for service, text in SERVICES.items():
            (folder / f"{service}.toml").write_text(text, encoding="utf-8")
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        yield folder


def measure(rounds: int) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {"reference": [], "check": [], **{service: [] for service in SERVICES}}
    with workshop() as folder:
        for number in range(rounds + 1):
            costs["reference"].append(run(["-c", REFERENCE], cwd=ROOT))
            costs["check"].append(run(["-m", "kernel", "check"], cwd=ROOT))
            for service in SERVICES:
                costs[service].append(run(["probe.py", f"{service}.toml"], cwd=folder))
            print(f"round {number} of {rounds}{'' if number else ', which compiles and is not counted'}", flush=True)
    return {name: taken[1:] for name, taken in costs.items()}


def median(costs: Sequence[Cost], field: str) -> float:
    return statistics.median(getattr(cost, field) for cost in costs)


def report(costs: Mapping[str, Sequence[Cost]]) -> None:
    print(f"\n{'median of ' + str(len(costs['check'])):24}{'wall s':>8}{'CPU s':>8}{'kB a worker':>13}")
    alone = median(costs["1 worker"], "resident")
    for name, taken in costs.items():
        count = next((count for count in (1000, 5000) if str(count) in name.replace(",", "")), 0)
        size = f"{(median(taken, 'resident') - alone) / 1000 / count:.1f}" if count else ""
        print(f"{name:24}{median(taken, 'wall'):8.2f}{median(taken, 'cpu'):8.2f}{size:>13}")
    pairs = list(zip(costs["check"], costs["reference"], strict=True))
    print(f"\nkernel check / {REFERENCE}: at most 2")
    for field in ("cpu", "wall"):
        ratio = statistics.median(getattr(check, field) / getattr(bare, field) for check, bare in pairs)
        print(f"  {field:22}{ratio:8.2f}")
    print("CPU of 5,000 workers / of 1,000, less that of 1: 5 is as the work grows")
    base = median(costs["1 worker"], "cpu")
    for few, many in (("1,000 tables", "5,000 tables"), ("instances = 1000", "instances = 5000")):
        growth = (median(costs[many], "cpu") - base) / (median(costs[few], "cpu") - base)
        print(f"  {few:22}{growth:8.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    report(measure(parser.parse_args().rounds))
