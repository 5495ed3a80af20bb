"""A service in trouble of every kind at once, and an account of what became of each message.

Every message has a cause of its own, drawn by chance from `CAUSES`, so that as many are in hand at a time as there are
slots; meanwhile a `Storm` is over the broker, and the service is killed and stopped again and again. Dead letters, and
what was sent on, are taken by the harness and count as ends: what has no end was lost. See `_loss.py` for the rest.
"""

from __future__ import annotations

import json
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio
from kernel_amqp import AmqpBroker, AmqpConfig, AmqpDriver
from kernel_amqp._errors import ChannelClosedError, LinkLostError
from kernel_amqp.core import Delivered, Settings, TooLarge
from kernel_amqp.link.channel import LinkChannel
from kernel_amqp.link.connect import LinkSettings
from kernel_amqp.link.link import open_link

from kernel.errors import KernelError
from kernel.testing import fake_context

from ._chaos_causes import Place, drawn, fill
from ._chaos_storm import BREAK, USER, Storm
from ._loss import Effects, Runner, judge
from ._node import Node

ATTEMPTS: Final = 3
PATIENCE: Final = 400.0
"""Seconds without an end after which nothing more is expected: the broker offers again what was refused every 180 s."""
ROOT: Final = Path(__file__).parent.parent.parent


@attrs.frozen(kw_only=True)
class ChaosTrial:
    """How much is done, and how often the service is ended."""

    messages: int
    kills: int
    terms: int
    concurrency: int = 20
    seconds: float = 0.02
    """How long a handler takes at least."""
    grace: float = 20.0
    seed: int = 0

    @property
    def signals(self) -> list[signal.Signals]:
        """How the service is ended, in an order of chance."""
        endings = [signal.SIGKILL] * self.kills + [signal.SIGTERM] * self.terms
        random.Random(self.seed).shuffle(endings)
        return endings


@attrs.frozen(kw_only=True)
class ChaosVerdict:
    """What became of it."""

    trial: ChaosTrial
    lost: int
    """Confirmed by the broker, and neither done nor put aside."""
    twice: int
    """Ends of messages that had had one."""
    runs: int
    """Of handlers."""
    worst: int
    """Runs of the message that was run most often."""
    beyond: int
    """Runs that are more than a message has attempts."""
    left: int
    troubles: Counter[str]
    slowest_stop: float
    seconds: float

    @property
    def allowed(self) -> int:
        """Runs and ends that there may be besides: of what was in hand at each end and each break."""
        return (self.trial.kills + self.trial.terms + self.troubles[BREAK]) * self.trial.concurrency

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, and handlers ran as often as attempts and what was in hand allow."""
        is_bounded = self.beyond <= self.allowed and self.twice <= self.allowed and self.worst <= 3 * ATTEMPTS
        return self.lost == self.left == 0 and is_bounded and self.slowest_stop <= self.trial.grace


def manifest(address: str, place: Place, folder: Path, trial: ChaosTrial) -> str:
    """Return the service."""
    return f"""
[kernel]
name = "chaos"
grace_period = {trial.grace}
drain_timeout = {trial.grace - 8.0}
[drivers.queue]
plugin = "amqp"
hosts = ["{address}"]
username = "{USER}"
password = {{ file = "{folder / "password"}" }}
max_message_bytes = 65536
backoff_max = 1.0
stop_timeout = 1.5
[drivers.queue.queues."{place.grave}"]
type = "classic"
[protocols.json]
[drivers.targets]
plugin = "publisher"
driver = "queue"
protocol = "json"
exchange = "{place.queue}"
[drivers.straight]
plugin = "publisher"
driver = "queue"
protocol = "json"
exchange = ""
[dispatchers.work]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "{place.queue}"
concurrency = {trial.concurrency}
options = {{ type = "quorum" }}
stop_timeout = 1.5
[workers.work]
use = "tests.amqp._chaos_worker:Chaos"
dispatcher = "work"
config = {{ effects = "{folder / "effects"}", runs = "{folder / "runs"}" }}
retry = {{ attempts = {ATTEMPTS}, backoff_initial = 0.1 }}
stop_timeout = 1.0
"""


@attrs.define(eq=False)
class Gatherer:
    """Takes what was put aside or sent on, whatever is done to the queues, and writes down that it has an end."""

    settings: LinkSettings
    path: Path

    async def run(self, queue: str) -> None:
        while True:
            try:
                async with open_link(self.settings) as link, link.open_channel() as channel:
                    await self._take(queue, channel)
            except (ChannelClosedError, LinkLostError, KernelError, OSError):
                await trio.sleep(0.2)  # it is gone for a time

    async def _take(self, queue: str, channel: LinkChannel) -> None:
        gone = trio.Event()
        await channel.consume(
            queue,
            consumer_tag="gatherer",
            on_delivery=partial(self._note, channel),
            on_cancel=lambda _: gone.set(),
        )
        while not gone.is_set() and channel.closed is None:
            with trio.move_on_after(0.2):
                await gone.wait()

    def _note(self, channel: LinkChannel, message: Delivered | TooLarge) -> None:
        """Write it down at once: its queue may be deleted while it is in hand."""
        assert isinstance(message, Delivered)
        said = json.loads(message.body)
        with self.path.open("ab") as file:
            file.write(b"%09d\n" % (said["id"] if isinstance(said, dict) else said))
        channel.ack(message.delivery_tag)


def settings_of(node: Node) -> LinkSettings:
    """Return how the harness connects: as guest, who may do everything."""
    return LinkSettings(hosts=(("127.0.0.1", node.port),), core=Settings(response="\0guest\0guest"))


@asynccontextmanager
async def surroundings(node: Node, place: Place, trial: ChaosTrial, path: Path) -> AsyncGenerator[Storm]:
    """A queue full of trouble, those who gather what comes out, and a storm that has not begun."""
    config = AmqpConfig(hosts=(node.address,), backoff_max=1.0)
    gatherer = Gatherer(settings_of(node), path)
    async with AmqpDriver(config=config, context=fake_context("driver/harness")).open() as broker:
        await _prepare(node, place, trial, broker)
        async with trio.open_nursery() as nursery:
            for queue in place.sources:
                nursery.start_soon(gatherer.run, queue)
            yield Storm(node, place, broker, random.Random(trial.seed))
            nursery.cancel_scope.cancel()


async def _prepare(node: Node, place: Place, trial: ChaosTrial, broker: AmqpBroker) -> None:
    await broker.declare(place.topology())
    causes = drawn(random.Random(trial.seed), trial.messages)
    await fill(settings_of(node), place, causes, trial.seconds)


async def endure(node: Node, trial: ChaosTrial, folder: Path) -> ChaosVerdict:
    """Do a trial in a folder of its own, on a node of its own."""
    began, place, effects = trio.current_time(), Place("chaos"), Effects(folder / "effects", patience=PATIENCE)
    (folder / "kernel.toml").write_text(manifest(node.address, place, folder, trial))
    (folder / "password").write_text(USER)
    runner = Runner([sys.executable, "-m", "kernel", "run", str(folder / "kernel.toml")], ROOT, folder / "log")
    async with surroundings(node, place, trial, effects.path) as storm, trio.open_nursery() as nursery:
        await trio.to_thread.run_sync(storm.prepare)
        calm = await nursery.start(storm.run)
        try:
            await _end_again_and_again(trial, runner, effects)
            calm.cancel()
            await effects.wait_all(trial.messages)
            await runner.end(signal.SIGTERM, trial.grace)
        finally:
            calm.cancel()
            runner.kill()
    runs = Counter(Effects(folder / "runs").read().split())
    lost, twice = judge(trial.messages, effects.read())
    return ChaosVerdict(
        trial=trial,
        lost=lost,
        twice=twice,
        runs=runs.total(),
        worst=max(runs.values(), default=0),
        beyond=sum(max(0, count - ATTEMPTS) for count in runs.values()),
        left=await _left(node, place.queue),
        troubles=storm.seen,
        slowest_stop=max(_stops(trial, runner.exits), default=0.0),
        seconds=trio.current_time() - began,
    )


async def _left(node: Node, queue: str) -> int:
    """Return how much is in a queue; a quorum queue tells its length every 5 s."""
    for _ in range(10):
        if not (left := await trio.to_thread.run_sync(node.waiting, queue)):
            break
        await trio.sleep(1.0)
    return left


def _stops(trial: ChaosTrial, exits: Sequence[float]) -> list[float]:
    """Return how long each orderly stop took; the last exit is one."""
    signals = [*trial.signals[: len(exits) - 1], signal.SIGTERM]
    return [seconds for seconds, number in zip(exits, signals, strict=True) if number == signal.SIGTERM]


async def _end_again_and_again(trial: ChaosTrial, runner: Runner, effects: Effects) -> None:
    """Start the service, and end it each time when it has done its share."""
    chance, signals = random.Random(trial.seed), trial.signals
    runner.start()
    for number, how in enumerate(signals, 1):
        share = number * trial.messages // (len(signals) + 1)
        if not await effects.wait_count(max(share, effects.count() + 1)):
            return  # there is nothing more to come
        await trio.sleep(chance.uniform(0, 0.2))
        await runner.end(how, trial.grace)
        runner.start()
