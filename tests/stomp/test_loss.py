"""A real `kernel run` over STOMP that is killed and stopped while it works: nothing is lost, a stop runs nothing twice.

The number of kills and stops can be raised for a longer trial: `STOMP_TIMES=50 pytest tests/stomp/test_loss.py`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import attrs
import pytest
import trio
from kernel_stomp import StompDriver

from kernel import Ack
from kernel.abc import Broker, Queue, Subscription, Topology
from kernel.testing import fake_context

from ..amqp._loss import Effects, Runner, Trial, Verdict, endure, fill, manifest
from .conftest import Server
from .test_conformance import config_of

ROOT = Path(__file__).parents[2]
TIMES = int(os.environ.get("STOMP_TIMES", "3"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(max(900, 60 * TIMES))]
WORK = Trial(messages=400 * TIMES, seconds=0.05, signal=signal.SIGTERM, times=TIMES, concurrency=20, grace=20.0)


async def attempt(server: Server, trial: Trial, folder: Path) -> Verdict:
    queue = f"loss.{trial.signal.name}"
    effects = Effects(folder / "effects")
    path = folder / "kernel.toml"
    broker = f'plugin = "stomp"\nserver = "{server.kind}"\ndelays = {str(server.kind == "activemq").lower()}'
    path.write_text(manifest(f"127.0.0.1:{server.port}", queue, trial, effects.path, broker=broker))
    driver = StompDriver(config=config_of(server), context=fake_context("driver/queue"))
    async with driver.open() as opened:
        await opened.declare(Topology(queues=[Queue(name=queue)]))
        await fill(opened, queue, trial)
        runner = Runner([sys.executable, "-m", "kernel", "run", str(path)], ROOT, folder / "log")
        verdict = await endure(trial, runner, effects, lambda: 0)
        left = await _left(opened, queue)
    return attrs.evolve(verdict, left=left)


async def _left(broker: Broker, queue: str) -> int:
    """Return how many messages are in the queue."""
    count = 0
    async with broker.subscribe(Subscription(queue=queue, prefetch=10)) as deliveries:
        with trio.move_on_after(1.0):
            async for delivery in deliveries:
                await delivery.settle(Ack())
                count += 1
    return count


async def test_kills_lose_nothing_and_repeat_no_more_than_was_in_hand(server: Server, tmp_path: Path) -> None:
    trial = attrs.evolve(WORK, signal=signal.SIGKILL)

    verdict = await attempt(server, trial, tmp_path)

    assert (verdict.lost, verdict.left) == (0, 0)
    assert verdict.twice <= trial.allowed_twice


async def test_stops_lose_nothing_repeat_nothing_and_end_in_time(server: Server, tmp_path: Path) -> None:
    verdict = await attempt(server, WORK, tmp_path)

    assert (verdict.lost, verdict.left, verdict.twice) == (0, 0, 0)
    assert verdict.slowest_exit < WORK.grace
    assert set(verdict.statuses) == {0}
