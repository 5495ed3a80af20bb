"""Mutates requests and reads them with the core of HTTP/1.1, however they are cut, and with h11.

No exception may leave the core, the verdict may not depend on the cuts nor on what came before, and what both take must
be the same.

Starts from the table of the plugin's tests, `test_http1_core.py`. The same seed is the same input.

    uv run python benchmarks/fuzz_http1.py [--inputs 2000000] [--seed 0] [--first 0]
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "plugins" / "web" / "tests"))

from test_http1_core import assert_independent, mutated, read, read_by_h11, requests

EVERY: int = 10
"""One in so many inputs is compared with h11, which is slow."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first input, to go on from")
    options = parser.parse_args()
    began, ends = time.process_time(), Counter[str]()
    for number in range(options.first, options.first + options.inputs):
        ends[try_one(options.seed, number)] += 1
    seconds = time.process_time() - began
    print(f"{options.inputs} inputs, {seconds:.0f} s of CPU: {dict(ends.most_common())}")


def try_one(seed: int, number: int) -> str:
    """Read one input in several ways; return how it ended."""
    source = random.Random(f"{seed} {number}")
    data = mutated(source)
    whole = read([data])
    places = sorted({0, len(data), *(source.randrange(len(data) + 1) for _ in range(3))})
    if read([data[start:end] for start, end in itertools.pairwise(places)]) != whole:
        raise SystemExit(f"input {number}: the verdict depends on the cuts {places}: {data!r}")
    assert_independent(data)
    if number % EVERY == 0:
        ours, theirs = requests(whole), requests(read_by_h11(data))
        if ours[: len(theirs)] != theirs[: len(ours)]:
            raise SystemExit(f"input {number}: read as {ours}, and by h11 as {theirs}: {data!r}")
    return str(whole[-1]) if whole and not isinstance(whole[-1], tuple) else "served"


if __name__ == "__main__":
    main()
