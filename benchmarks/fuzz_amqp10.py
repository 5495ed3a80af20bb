"""Plays mutated conversations and messages to the plugin amqp10: no exception may leave it, and no input hold it up.

Uses the harness of the plugin's tests, `fuzzing.py` in `plugins/amqp10/tests`. The same seed is the same input. Needs the
engine: `uv sync --group engine`.

    uv run python benchmarks/fuzz_amqp10.py [--inputs 1000000] [--seed 0]
    uv run python benchmarks/fuzz_amqp10.py --one 4711
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent / "plugins" / "amqp10" / "tests"))

from fuzzing import messages, play, record
from kernel_amqp10.link.proton import load

HANG: Final = 2.0
"""CPU seconds after which an input counts as one that holds us up."""
SHOWN: Final = 5


class HangError(Exception):
    """An input took too long."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first input; the others count up")
    parser.add_argument("--one", type=int, metavar="SEED", help="play only this input")
    arguments = parser.parse_args()
    if arguments.one is None:
        sys.exit(not survives(arguments.seed, arguments.inputs))
    proton = load()
    print(play(proton, arguments.one, record(proton), messages(proton)))


def survives(first: int, inputs: int) -> bool:
    proton = load()
    said, letters, outcomes, failures = record(proton), messages(proton), Counter[str](), 0
    signal.signal(signal.SIGVTALRM, on_alarm)
    slowest, began = (0.0, first), time.perf_counter()
    for seed in range(first, first + inputs):
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG)
        start = time.process_time()
        try:
            outcomes[play(proton, seed, said, letters)] += 1
        except Exception as error:  # noqa: BLE001  whatever it is: it is what is looked for
            failures += 1
            outcomes["HANG" if isinstance(error, HangError) else f"EXCEPTION {type(error).__name__}"] += 1
            if failures <= SHOWN:
                print(f"input {seed}:", traceback.format_exc(), sep="\n", file=sys.stderr)
        slowest = max(slowest, (time.process_time() - start, seed))
        if (seed - first + 1) % 50_000 == 0:
            print(f"{seed - first + 1:,} inputs, {failures} failures, {megabytes():.0f} MB", file=sys.stderr)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    seconds = time.perf_counter() - began
    print(f"{inputs:,} inputs in {seconds:.0f} s; the slowest, {slowest[1]}, took {slowest[0] * 1000:.1f} ms of CPU")
    print(f"{megabytes():.0f} MB of memory at most")
    for name, count in outcomes.most_common():
        print(f"{count:>12,}  {name}")
    return failures == 0


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def on_alarm(number: int, frame: FrameType | None) -> None:
    raise HangError


if __name__ == "__main__":
    main()
