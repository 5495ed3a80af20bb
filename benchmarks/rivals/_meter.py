"""Counts what a consumer handles and measures its own process: the same ruler for every side."""

from __future__ import annotations

import json
import time
from pathlib import Path


class Meter:
    """From the start of the first handler to the end of the last: wall and CPU seconds of this process."""

    def __init__(self, count: int, *, every: int = 0) -> None:
        self.left = self.count = count
        self.every = every or count
        self._wall = self._cpu = 0.0

    def tick(self) -> bool:
        """Count one; return whether it was the last. Prints the figures then, and after `every` so many before."""
        if self.left == self.count:
            self.begin()
        self.left -= 1
        if self.left % self.every == 0:
            self.report()
        return self.left == 0

    def begin(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def finish(self) -> None:
        self.left = 0
        self.report()

    def report(self) -> None:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        print(json.dumps({"count": self.count - self.left, "wall": wall, "cpu": cpu, "rss": rss()}), flush=True)


def rss() -> int:
    """Return the resident memory of this process in kB."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.split("VmRSS:")[1].split()[0])
