"""Processes of one service whose timer fires once in all of them: killed, paused, started anew; and what they noted."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import attrs

LEASE = 1.5
"""Seconds."""
PAUSE = 2.2
"""Seconds for which a process is stopped: longer than its lease."""
PATIENCE = 90.0
"""Seconds after which a test has failed that waits for ticks: machines may be busy."""

_WORKER = """
import os
import time

def shifted(real=time.time):
    try:
        with open("clock") as file:
            return real() + float(file.read())
    except FileNotFoundError:
        return real()

time.time = shifted  # the clock of the machine, which a test sets

from kernel import Envelope, current_delivery
from kernel_timer import Tick
import trio

async def note(tick: Tick, envelope: Envelope, place: object):
    attempt = current_delivery().attempt
    write(f"begin {tick.scheduled.timestamp()!r} {attempt} {os.getpid()} {envelope.id}")
    if EFFECT:
        async with place.transaction() as transaction:
            if await transaction.once(envelope.id):
                await transaction.execute(EFFECT, [envelope.id])
    await trio.sleep(0.01)
    write(f"end {tick.scheduled.timestamp()!r} {attempt} {os.getpid()} {envelope.id}")

def write(line):
    file = os.open("notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, (line + "\\n").encode())
    os.close(file)
"""


@attrs.frozen
class Note:
    """One line that a handler has written."""

    what: str
    moment: float
    attempt: int
    pid: int
    id: str


@attrs.define(eq=False)
class Cluster:
    """A service in several processes, in a folder."""

    folder: Path
    driver: str
    """The table of the driver `place`."""
    interval: float
    missed: str
    effect: str = ""
    """The statement that is the effect of a tick, where the place has transactions; with the id as its parameter."""
    running: list[subprocess.Popen[bytes]] = attrs.field(factory=list)
    faults: int = 0

    def write(self) -> None:
        (self.folder / "workers.py").write_text(f"EFFECT = {self.effect!r}\n{_WORKER}")
        (self.folder / "kernel.toml").write_text(
            textwrap.dedent(f"""
                [kernel]
                name = "cluster"
                grace_period = 10.0
                drain_timeout = 2.0
                [drivers.place]
                {{driver}}
                [dispatchers.clock]
                plugin = "timer"
                driver = "place"
                interval = {self.interval}
                once = true
                lease = {LEASE}
                missed = "{self.missed}"
                max_missed = 10000
                [workers.noter]
                use = "workers:note"
                dispatcher = "clock"
            """).format(driver=self.driver)
        )

    def start(self) -> None:
        command = [sys.executable, "-m", "kernel", "run", "--log-format", "json"]
        with (self.folder / "log").open("ab") as log:
            self.running.append(subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log))

    def kill(self, at: int) -> None:
        process = self.running.pop(at)
        process.kill()
        process.wait(10)
        self.faults += 1

    def set_clock(self, ahead: float) -> None:
        """Have the clock of the machine be so many seconds ahead, for all processes at once."""
        draft = self.folder / "draft"
        draft.write_text(str(ahead))
        draft.replace(self.folder / "clock")

    @contextmanager
    def paused(self, at: int) -> Iterator[None]:
        process = self.running[at]
        process.send_signal(signal.SIGSTOP)
        self.faults += 1
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def stop(self) -> list[int]:
        """Stop all in order; return their statuses."""
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        return [process.wait(30) for process in self.running]

    def notes(self) -> list[Note]:
        path = self.folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [line.split(" ") for line in lines]
        return [Note(what, float(moment), int(attempt), int(pid), id_) for what, moment, attempt, pid, id_ in found]

    def begun(self) -> list[Note]:
        return [note for note in self.notes() if note.what == "begin"]

    def wait_ticks(self, count: int) -> None:
        """Wait until so many ticks have begun, or fail."""
        until = time.monotonic() + PATIENCE
        while len({note.id for note in self.begun()}) < count:
            assert time.monotonic() < until, (self.folder / "log").read_text()[-5000:]
            time.sleep(0.02)

    def run(self, *, processes: int, ticks: int, seed: int, kills: int, pauses: int, steps: int = 0) -> None:
        """Run until so many ticks have begun, with faults in between; then let what is under way be done."""
        chance = random.Random(seed)
        self.write()
        for _ in range(processes):
            self.start()
        faults = ["kill"] * kills + ["pause"] * pauses + ["step"] * steps
        chance.shuffle(faults)
        for number, fault in enumerate(faults, start=1):
            self.wait_ticks(number * ticks // (len(faults) + 1))
            time.sleep(chance.uniform(0, self.interval))
            if fault == "kill":
                self.kill(self._busy(chance))
                self.start()
            elif fault == "step":
                self.set_clock(chance.choice((-7200, -90, -2, 2, 90, 7200)))
            else:
                with self.paused(self._busy(chance)):
                    time.sleep(PAUSE)
        self.wait_ticks(ticks)

    def _busy(self, chance: random.Random) -> int:
        """Return which process has begun the last tick, mostly; that is where faults hurt."""
        pids = [process.pid for process in self.running]
        last = self.begun()[-1].pid
        return pids.index(last) if last in pids and chance.random() < 0.7 else chance.randrange(len(pids))


@contextmanager
def open_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """Leave nothing behind."""
    try:
        yield cluster
    finally:
        for process in cluster.running:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(10)


def moments(notes: list[Note]) -> list[float]:
    """Return what ticks stand for, each once, in order."""
    return sorted({note.moment for note in notes})


def gaps(found: list[float], interval: float) -> list[float]:
    """Return which of them are not followed by the next scheduled one."""
    return [one for one, other in pairwise(found) if abs(other - one - interval) > interval / 10]


def times_begun(notes: list[Note]) -> Counter[str]:
    """Return how often each tick began."""
    return Counter(note.id for note in notes if note.what == "begin")
