"""Gives the parser of STOMP inputs that are nearly right: no exception but its own, and one verdict however they are cut.

Uses `fuzzing.py` of the plugin's tests. The same seed is the same input: what failed is given again with `--seed`.

    uv run python benchmarks/fuzz_stomp.py [--inputs 1000000] [--seed 0]
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from pathlib import Path
from types import FrameType, ModuleType
from typing import Final

TESTS: Final = Path(__file__).parent.parent / "plugins" / "stomp" / "tests"
HANG: Final = 2.0
"""CPU seconds after which an input counts as one that holds the parser up."""
SHOWN: Final = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first input; the others count up")
    arguments = parser.parse_args()
    sys.exit(not survives(arguments.seed, arguments.inputs))


def survives(first: int, inputs: int) -> bool:
    """Return whether every input had one verdict, in time."""
    fuzzing, failures, began = loaded(), 0, time.perf_counter()
    signal.signal(signal.SIGVTALRM, on_alarm)
    for seed in range(first, first + inputs):
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG)
        try:
            fuzzing.check(seed)
        except Exception as error:  # noqa: BLE001  each is a failure, and the others have their turn
            failures += 1
            if failures <= SHOWN:
                print(f"seed {seed}: {type(error).__name__}: {error}")
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    print(f"{inputs} inputs in {time.perf_counter() - began:.0f} s, {failures} failures")
    return not failures


def loaded() -> ModuleType:
    """Return the harness, which is a part of the package of tests beside it."""
    package = ModuleType("stomp_tests")
    package.__path__ = [str(TESTS)]
    sys.modules["stomp_tests"] = package
    return importlib.import_module("stomp_tests.fuzzing")


def on_alarm(_: int, __: FrameType | None) -> None:
    raise TimeoutError(f"an input took more than {HANG:g} s")


if __name__ == "__main__":
    main()
