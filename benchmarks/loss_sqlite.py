"""Kills a process that publishes and consumes, a thousand times by default, and counts what was lost or repeated.

Uses the harness of the plugin's tests, `plugins/sqlite/tests/killing.py`. Takes about a second for each kill.

    uv run python benchmarks/loss_sqlite.py [--kills 1000] [--concurrency 8] [--seed 1]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "plugins" / "sqlite" / "tests"))

from killing import kill_often


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loss-") as folder:
        verdict = kill_often(
            Path(folder) / "queue.db", arguments.kills, concurrency=arguments.concurrency, seed=arguments.seed
        )
    bound = arguments.kills * arguments.concurrency
    print(f"{verdict.kills} kills, {verdict.confirmed:,} confirmed: {verdict.lost} lost", end=", ")
    print(f"{verdict.duplicates} duplicates (at most {bound}), {verdict.wrong_effects} wrong effects", end=", ")
    print(f"integrity {verdict.integrity}")
    sound = verdict.lost == verdict.wrong_effects == 0 and verdict.integrity == "ok" and verdict.duplicates <= bound
    sys.exit(not sound)


if __name__ == "__main__":
    main()
