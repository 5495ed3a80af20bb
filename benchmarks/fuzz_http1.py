"""Mutates requests and reads them with the core of HTTP/1.1, however they are cut, and with h11.

No exception may leave the core, the verdict may not depend on the cuts nor on what came before, and what both take must
be the same.

Starts from the table of the plugin's tests, `test_http1_core.py`. The same seed is the same input.

    uv run python benchmarks/fuzz_http1.py [--inputs 2000000] [--seed 0] [--first 0]
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from fuzz_web import cut, run

sys.path.insert(0, str(Path(__file__).parent.parent / "plugins" / "web" / "tests"))

from test_http1_core import assert_independent, mutated, read, read_by_h11, requests

EVERY: int = 10
"""One in so many inputs is compared with h11, which is slow."""


def try_one(seed: int, number: int) -> str:
    """Read one input in several ways; return how it ended."""
    source = random.Random(f"{seed} {number}")
    data = mutated(source)
    whole = read([data])
    pieces = cut(source, data)
    if read(pieces) != whole:
        raise SystemExit(f"input {number}: the verdict depends on how it is cut: {pieces}")
    assert_independent(data)
    if number % EVERY == 0:
        ours, theirs = requests(whole), requests(read_by_h11(data))
        if ours[: len(theirs)] != theirs[: len(ours)]:
            raise SystemExit(f"input {number}: read as {ours}, and by h11 as {theirs}: {data!r}")
    return str(whole[-1]) if whole and not isinstance(whole[-1], tuple) else "served"


if __name__ == "__main__":
    run(__doc__ or "", try_one)
