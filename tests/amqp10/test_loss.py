"""A real `kernel run` over AMQP 1.0 that is killed and stopped while it works: nothing is lost, a stop repeats nothing.

The number of kills and stops can be raised for a longer trial: `AMQP10_TIMES=50 pytest tests/amqp10/test_loss.py`. The
same trials, with many more messages: `benchmarks/loss.py --systems amqp10`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from kernel.abc import Queue, Topology

from ..amqp._loss import Effects, Runner, Trial, Verdict, endure, fill, manifest
from ..amqp._node import scripts
from ._node import Amqp10Node, running

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
TIMES = int(os.environ.get("AMQP10_TIMES", "3"))
SHORT = Trial(messages=200 * TIMES, seconds=0.05, signal=signal.SIGTERM, times=TIMES, concurrency=20, grace=20.0)
LONG = Trial(messages=150, seconds=3.0, signal=signal.SIGTERM, times=2, concurrency=25, grace=20.0)


@pytest.fixture(scope="module")
def rabbit(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Amqp10Node]:
    """A node that gives nobody up who is slow for a second: whoever it gives up gets again what he has in hand."""
    programs = scripts()
    if programs is None:
        pytest.skip("needs rabbitmq-server")
    with running(tmp_path_factory.mktemp("node"), programs, heartbeat=30) as node:
        yield node


async def attempt(rabbit: Amqp10Node, trial: Trial, folder: Path) -> Verdict:
    queue = f"loss.{trial.signal.name}.{trial.seconds}"
    effects = Effects(folder / "effects")
    path = folder / "kernel.toml"
    broker = f'plugin = "amqp10"\nmanagement = "{rabbit.management}"'
    path.write_text(manifest(rabbit.node.address, queue, trial, effects.path, broker=broker))
    async with rabbit.open() as opened:
        await opened.declare(Topology(queues=[Queue(name=queue)]))
        await fill(opened, queue, trial)
    runner = Runner([sys.executable, "-m", "kernel", "run", str(path)], ROOT, folder / "log")
    return await endure(trial, runner, effects, lambda: rabbit.node.waiting(queue))


@pytest.mark.timeout(max(600, 60 * TIMES))
@pytest.mark.parametrize("work", [SHORT, LONG], ids=["50 ms", "3 s"])
async def test_kills_lose_nothing_and_repeat_no_more_than_was_in_hand(
    work: Trial, rabbit: Amqp10Node, tmp_path: Path
) -> None:
    trial = attrs.evolve(work, signal=signal.SIGKILL)

    verdict = await attempt(rabbit, trial, tmp_path)

    assert (verdict.lost, verdict.left) == (0, 0)
    assert verdict.twice <= trial.allowed_twice


@pytest.mark.timeout(max(600, 60 * TIMES))
@pytest.mark.parametrize("work", [SHORT, LONG], ids=["50 ms", "3 s"])
async def test_stops_lose_nothing_repeat_nothing_and_end_in_time(
    work: Trial, rabbit: Amqp10Node, tmp_path: Path
) -> None:
    verdict = await attempt(rabbit, work, tmp_path)

    assert (verdict.lost, verdict.left, verdict.twice) == (0, 0, 0)
    assert verdict.slowest_exit < work.grace
    assert verdict.statuses == Counter({0: work.times + 1})
