"""Kills or stops a service again and again while it works, and counts what became of each message.

A trial fills a queue with numbered messages, each confirmed by the broker. The service appends the number of a
message to a file as the last thing that its handler does: one system call, so what is in the file has happened. The
service is ended when it has done its share of the work, at a random instant of a handler, and is started again. When
every number is in the file, or none has come for long, what is missing was lost and what is there twice was run twice.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import trio

from kernel import Envelope
from kernel.abc import Broker

LINE = 10
"""Bytes of one effect: nine digits and the end of the line."""
STALLED = 120.0
"""Seconds without an effect after which nothing more is expected; more than a service needs to start and to connect.

Where thirty others want the two cores, one has taken 32 s: a trial that is given up by then looks like a loss of all.
"""
_SENDERS = 50
_LAST_WORDS = 20_000
"""Characters of the log of a service that has not done what it should."""


@attrs.frozen(kw_only=True)
class Trial:
    """What is done to a service, and with how much work."""

    messages: int
    seconds: float
    """How long a handler takes."""
    signal: signal.Signals
    """SIGKILL, or SIGTERM for an orderly stop."""
    times: int
    """How often."""
    concurrency: int
    """Messages in hand at a time."""
    grace: float
    """Seconds that the service has for an orderly stop."""
    seed: int = 0

    @property
    def allowed_twice(self) -> int:
        """Messages that may be run twice: what was in hand at a kill, and none after an orderly stop."""
        return self.times * self.concurrency if self.signal == signal.SIGKILL else 0


@attrs.frozen(kw_only=True)
class Verdict:
    """What became of it."""

    trial: Trial
    lost: int
    """Confirmed by the broker, and never done."""
    twice: int
    """Effects of messages that had had theirs."""
    left: int
    """Messages in the queue after the last orderly stop, when all were done."""
    ended: int
    """How often it was ended: less than `trial.times` where nothing came for too long, or nothing was left."""
    exits: Sequence[float]
    """Seconds from each signal to the end of the process."""
    statuses: Counter[int]
    """Exit statuses after a SIGTERM; -9 is a service that had to be killed."""
    seconds: float
    """How long it all took."""

    @property
    def slowest_exit(self) -> float:
        return max(self.exits, default=0.0)

    @property
    def holds(self) -> bool:
        """Whether nothing was lost or left, no more was run twice than may be, and every exit was in time.

        A trial in which the service was ended less often than was asked for has measured nothing.
        """
        is_tried = self.ended == self.trial.times and self.slowest_exit <= self.trial.grace
        return self.lost == self.left == 0 and self.twice <= self.trial.allowed_twice and is_tried


def judge(messages: int, effects: bytes) -> tuple[int, int]:
    """Return how many messages of so many were lost, and how many effects there are too many."""
    done = Counter(map(int, effects.split()))
    return len(set(range(messages)) - set(done)), sum(done.values()) - len(done)


async def fill(broker: Broker, queue: str, trial: Trial) -> None:
    """Send all messages of a trial; returns when the broker has confirmed each."""
    numbers = iter(range(trial.messages))

    async def send() -> None:
        for number in numbers:
            body = json.dumps({"id": number, "seconds": trial.seconds}).encode()
            envelope = Envelope(subject=queue, body=body, content_type="application/json")
            await broker.send(envelope, exchange="", mandatory=True)

    async with trio.open_nursery() as nursery:
        for _ in range(_SENDERS):
            nursery.start_soon(send)


def manifest(address: str, queue: str, trial: Trial, effects: Path, *, broker: str = 'plugin = "amqp"') -> str:
    """Return the service that a trial is for; `broker` is what its driver's table says besides the address.

    It tries a message more often than there are kills. By default a message is put aside with which three processes
    have died, as is promised, and what is in hand together stays together: three kills that hit the same messages look
    like a loss of all of them.
    """
    return f"""
[kernel]
name = "loss"
grace_period = {trial.grace}
drain_timeout = {trial.grace - 6.0}
[drivers.queue]
{broker}
hosts = ["{address}"]
stop_timeout = 1.5
[dispatchers.work]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "{queue}"
dead_letters = ""
concurrency = {trial.concurrency}
stop_timeout = 1.5
[workers.work]
use = "tests.amqp._loss_worker:Work"
dispatcher = "work"
config = {{ effects = "{effects}" }}
retry = {{ attempts = {trial.times + 1} }}
stop_timeout = 1.0
"""


@attrs.define(eq=False)
class Effects:
    """The file of what was done."""

    path: Path
    patience: float = STALLED
    """Seconds without an effect after which nothing more is expected."""

    def count(self) -> int:
        """Return how many there are, those that are there twice included."""
        return self.path.stat().st_size // LINE if self.path.exists() else 0

    def read(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    async def wait_count(self, count: int) -> bool:
        """Wait until there are so many; returns whether they came, or none did for too long."""
        seen, since = -1, trio.current_time()
        while (size := self.count()) < count:
            if size != seen:
                seen, since = size, trio.current_time()
            elif trio.current_time() - since > self.patience:
                return False
            await trio.sleep(0.002)
        return True

    async def wait_all(self, messages: int) -> bool:
        """Wait until each message has been done, however often others were; returns whether it was."""
        wanted = messages
        while await self.wait_count(wanted):
            lost, twice = judge(messages, self.read())
            if not lost:
                return True
            wanted = messages + twice
        return False


@attrs.define(eq=False)
class Runner:
    """Starts and ends the service."""

    command: Sequence[str]
    folder: Path
    log: Path
    exits: list[float] = attrs.field(factory=list[float], init=False)
    statuses: Counter[int] = attrs.field(factory=Counter[int], init=False)
    _process: subprocess.Popen[bytes] | None = attrs.field(default=None, init=False)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def end(self, number: signal.Signals, grace: float) -> None:
        """Send a signal and wait for the end of the process; whatever is still there long after its time is killed."""
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(number)
        while self._process.poll() is None:
            if time.monotonic() - began > grace + 10:
                self._process.kill()
            await trio.sleep(0.002)
        self.exits.append(time.monotonic() - began)
        if number == signal.SIGTERM:
            self.statuses[self._process.returncode] += 1

    def last_words(self) -> str:
        """Return the end of what the service has logged."""
        return self.log.read_text(errors="replace")[-_LAST_WORDS:] if self.log.exists() else "nothing"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


async def endure(trial: Trial, runner: Runner, effects: Effects, remaining: Callable[[], int]) -> Verdict:
    """Do a trial with a service whose queue is filled; `remaining` tells how much is in the queue."""
    began, chance = trio.current_time(), random.Random(trial.seed)
    try:
        runner.start()
        for number in range(trial.times):
            share = (number + 1) * trial.messages // (trial.times + 1)
            if not await effects.wait_count(max(share, effects.count() + 1)):
                break  # there is nothing more to come
            await trio.sleep(chance.uniform(0, trial.seconds))
            await runner.end(trial.signal, trial.grace)
            runner.start()
        await effects.wait_all(trial.messages)
        await runner.end(signal.SIGTERM, trial.grace)
    finally:
        runner.kill()
    lost, twice = judge(trial.messages, effects.read())
    if lost:
        sys.stderr.write(f"{lost} were not done; the service had said last:\n{runner.last_words()}\n")  # of a failure
    return Verdict(
        trial=trial,
        lost=lost,
        twice=twice,
        left=remaining(),
        ended=len(runner.exits) - 1,
        exits=runner.exits if trial.signal == signal.SIGTERM else runner.exits[-1:],
        statuses=runner.statuses,
        seconds=trio.current_time() - began,
    )
