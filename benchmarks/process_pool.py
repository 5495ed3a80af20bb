"""What a warm call in a process costs through the driver `process_pool`, beside bare trio-parallel; and kills of children.

    uv run python benchmarks/process_pool.py [--calls 2000]
    uv run python benchmarks/process_pool.py --kills 1000

`--kills` kills a child with each call (by its own exit, a segfault, or SIGKILL), and counts zombies and orphans at the
end, and how long it takes until a death is noticed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import tempfile
import time
from pathlib import Path

import trio
import trio_parallel
from kernel_pools import ProcessDiedError, ProcessPoolConfig, ProcessPoolDriver

from kernel.abc import PlainWorker
from kernel.testing import fake_context


def add(one: int, two: int) -> int:
    return one + two


def note(pid: int) -> Path:
    """Return the file in which a child says when it died."""
    return Path(tempfile.gettempdir()) / f"died.{pid}"


def die(how: str) -> None:
    note(os.getppid()).write_text(repr(time.monotonic()))
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGSEGV if how == "segfault" else signal.SIGKILL)


def worker(use: object) -> PlainWorker:
    return PlainWorker(id="worker/w", use=use, is_function=True, arguments={})  # type: ignore[arg-type]


def driver(processes: int) -> ProcessPoolDriver:
    return ProcessPoolDriver(config=ProcessPoolConfig(processes=processes), context=fake_context("driver/pool"))


async def compare(calls: int) -> None:
    adding = worker(add)
    async with driver(1).open() as pool, trio_parallel.open_worker_context() as bare:
        await pool.call(adding, "", [1, 2], {})
        await bare.run_sync(add, 1, 2)
        rounds: dict[str, list[float]] = {"bare trio-parallel": [], "process_pool": []}
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(calls // 5):
                await bare.run_sync(add, 1, 2)
            rounds["bare trio-parallel"].append((time.perf_counter() - began) / (calls // 5))
            began = time.perf_counter()
            for _ in range(calls // 5):
                await pool.call(adding, "", [1, 2], {})
            rounds["process_pool"].append((time.perf_counter() - began) / (calls // 5))
    medians = {name: statistics.median(values) * 1e6 for name, values in rounds.items()}
    for name, value in medians.items():
        print(f"{name:20s} {value:7.0f} us")
    print(f"{medians['process_pool'] / medians['bare trio-parallel']:.2f} times")


async def kill(kills: int) -> None:
    chance, noticed, other = random.Random(1), [0.0], 0
    async with driver(2).open() as pool:
        for _ in range(kills):
            try:
                await pool.call(worker(die), "", [chance.choice(["exit", "segfault", "kill"])], {})
            except ProcessDiedError:
                noticed.append(time.monotonic() - float(note(os.getpid()).read_text()))
            else:
                other += 1
        left = children()
    note(os.getpid()).unlink()
    print(
        f"{kills} kills: {other} not noticed, {left} children (at most 2) while it is open, {children()} after the driver has closed"
    )
    print(f"noticed after {statistics.median(noticed) * 1000:.1f} ms, at most {max(noticed) * 1000:.1f} ms")


def children() -> int:
    """Return how many child processes there are, zombies among them; Python's resource tracker is one."""
    listed = [pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]
    return len(listed) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--kills", type=int)
    arguments = parser.parse_args()
    trio.run(kill, arguments.kills) if arguments.kills else trio.run(compare, arguments.calls)


if __name__ == "__main__":
    main()
