"""What the fuzzers of the dispatcher `web` share: numbered inputs, each of them cut anywhere, and none may take long."""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Final

HANG: Final = 2.0
"""CPU seconds after which an input counts as one that holds us up."""


def cut(source: random.Random, data: bytes) -> list[bytes]:
    """Return the pieces of an input, up to four."""
    places = sorted({0, len(data), *(source.randrange(len(data) + 1) for _ in range(3))})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def run(about: str, try_one: Callable[[int, int], str]) -> None:
    """Try as many inputs as the command line asks for, and print how they ended.

    Args:
        about: What the command line shows as help.
        try_one: Tries the input of a seed and a number, and returns how it ended. Raises `SystemExit` if it is read in
            two ways.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first input, to go on from")
    options = parser.parse_args()
    began, ends = time.process_time(), Counter[str]()
    signal.signal(signal.SIGVTALRM, _on_alarm)
    for number in range(options.first, options.first + options.inputs):
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG)
        ends[try_one(options.seed, number)] += 1
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    seconds = time.process_time() - began
    print(f"{options.inputs} inputs, {seconds:.0f} s of CPU: {dict(ends.most_common())}")


def _on_alarm(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(f"an input took more than {HANG:g} s")
