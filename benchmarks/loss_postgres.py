"""Kills a process with an inbox and an outbox 200 times, restarts its PostgreSQL 20 times, and counts effects.

Uses the harness of the plugin's tests, `killing.py` in `plugins/postgres/tests`, and a server of its own. Takes some
two seconds for each kill.

    uv run python benchmarks/loss_postgres.py [--kills 200] [--restarts 20] [--messages 20000] [--seed 1]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "plugins" / "postgres" / "tests"))

from _cluster import open_cluster, programs
from killing import kill_often


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    binaries = programs()
    if binaries is None:
        sys.exit("needs PostgreSQL")
    with tempfile.TemporaryDirectory() as folder, open_cluster(Path(folder), binaries) as cluster:
        cluster.query("CREATE TABLE effect (id text)")
        with tempfile.TemporaryDirectory() as other:
            verdict = kill_often(cluster, Path(other) / "queues.db", **vars(arguments))
    print(verdict)
    sys.exit(
        any((verdict.missing_effects, verdict.doubled_effects, verdict.unpublished, verdict.published_without_effect))
    )


if __name__ == "__main__":
    main()
