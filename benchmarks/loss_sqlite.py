"""Kills a process that publishes and consumes, a thousand times by default, and counts what was lost or repeated.

Or loses power at every write and every sync of a scenario of 500 operations. Uses the harnesses of the plugin's tests,
`killing.py` and `power_loss.py` in `plugins/sqlite/tests`. Takes about two seconds for each kill, and some minutes for
the power losses.

    uv run python benchmarks/loss_sqlite.py [--kills 1000] [--concurrency 8] [--seed 1]
    uv run python benchmarks/loss_sqlite.py --power 500 [--seed 1]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "plugins" / "sqlite" / "tests"))

from killing import kill_often
from power_loss import lose_power_everywhere


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--power", type=int, metavar="OPERATIONS", help="lose power instead, at every write and sync")
    arguments = parser.parse_args()
    if arguments.power:
        lose_power(arguments.power, arguments.seed)
    else:
        sys.exit(not survives(arguments))


def lose_power(operations: int, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="loss-") as folder:
        losses = lose_power_everywhere(Path(folder), operations, step=1, seed=seed, synchronous="full", keeps_all=True)
    print(f"{operations} operations, power lost at {losses:,} writes and syncs: 0 confirmed lost, 0 corrupted")


def survives(arguments: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory(prefix="loss-") as folder:
        verdict = kill_often(
            Path(folder) / "queue.db", arguments.kills, concurrency=arguments.concurrency, seed=arguments.seed
        )
    bound = arguments.kills * arguments.concurrency
    print(f"{verdict.kills} kills, {verdict.confirmed:,} confirmed: {verdict.lost} lost", end=", ")
    print(f"{verdict.duplicates} duplicates (at most {bound}), {verdict.wrong_effects} wrong effects", end=", ")
    print(f"integrity {verdict.integrity}")
    return verdict.lost == verdict.wrong_effects == 0 and verdict.integrity == "ok" and verdict.duplicates <= bound


if __name__ == "__main__":
    main()
