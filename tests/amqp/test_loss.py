"""A real `kernel run` that is killed and stopped while it works: nothing is lost, and a stop runs nothing twice.

The same trials with many more messages, and with another framework beside: `benchmarks/loss.py`.
"""

from __future__ import annotations

import signal
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from kernel_amqp import AmqpConfig, AmqpDriver

from kernel.abc import Queue, Topology
from kernel.testing import fake_context

from ._loss import Effects, Runner, Trial, Verdict, endure, fill, judge, manifest
from ._node import Node, running_node, scripts

ROOT = Path(__file__).parent.parent.parent
SHORT = Trial(messages=800, seconds=0.05, signal=signal.SIGTERM, times=3, concurrency=20, grace=20.0)
LONG = Trial(messages=300, seconds=3.0, signal=signal.SIGTERM, times=2, concurrency=50, grace=20.0)


@pytest.fixture(scope="module")
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    programs = scripts()
    if programs is None:
        pytest.skip("needs rabbitmq-server")
    with running_node(tmp_path_factory.mktemp("node"), programs) as node:
        yield node


async def attempt(node: Node, trial: Trial, folder: Path) -> Verdict:
    queue = f"loss.{trial.signal.name}.{trial.seconds}"
    effects = Effects(folder / "effects")
    path = folder / "kernel.toml"
    path.write_text(manifest(node.address, queue, trial, effects.path))
    driver = AmqpDriver(config=AmqpConfig(hosts=(node.address,)), context=fake_context("driver/queue"))
    async with driver.open() as broker:
        await broker.declare(Topology(queues=[Queue(name=queue)]))
        await fill(broker, queue, trial)
    runner = Runner([sys.executable, "-m", "kernel", "run", str(path)], ROOT, folder / "log")
    return await endure(trial, runner, effects, lambda: node.waiting(queue))


def test_what_is_missing_is_lost_and_what_is_there_twice_was_run_twice() -> None:
    assert judge(4, b"000000000\n000000003\n000000003\n000000003\n") == (2, 2)


@pytest.mark.parametrize("times", [1, 3, 50])
def test_what_every_kill_hits_is_not_put_aside(times: int) -> None:
    service = tomllib.loads(manifest("127.0.0.1:1", "q", attrs.evolve(SHORT, times=times), Path("effects")))

    assert service["workers"]["work"]["retry"]["attempts"] > times


@pytest.mark.slow
@pytest.mark.parametrize("work", [SHORT, LONG], ids=["50 ms", "3 s"])
async def test_kills_lose_nothing_and_repeat_no_more_than_was_in_hand(
    work: Trial, own_node: Node, tmp_path: Path
) -> None:
    trial = attrs.evolve(work, signal=signal.SIGKILL)

    verdict = await attempt(own_node, trial, tmp_path)

    assert (verdict.lost, verdict.left) == (0, 0)
    assert verdict.twice <= trial.allowed_twice


@pytest.mark.slow
@pytest.mark.parametrize("work", [SHORT, LONG], ids=["50 ms", "3 s"])
async def test_stops_lose_nothing_repeat_nothing_and_end_in_time(work: Trial, own_node: Node, tmp_path: Path) -> None:
    verdict = await attempt(own_node, work, tmp_path)

    assert (verdict.lost, verdict.left, verdict.twice) == (0, 0, 0)
    assert verdict.slowest_exit < work.grace
    assert verdict.statuses == Counter({0: work.times + 1})
