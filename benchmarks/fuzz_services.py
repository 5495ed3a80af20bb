"""Plays random services in virtual time, each stopped at a random time: every promise of the delivery must hold.

Uses the harness of the tests in `tests/services`. The same seed is the same service: what failed is played again with
`--one`. With `--planted`, bugs are planted one by one, and what counts is in how many runs of 200 seeds each is noticed.

    uv run python benchmarks/fuzz_services.py [--seeds 2000] [--first 0]
    uv run python benchmarks/fuzz_services.py --one 4711
    uv run python benchmarks/fuzz_services.py --planted [--runs 10]
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.services._bugs import BUGS
from tests.services._facts import broken
from tests.services._play import faults, play

SLICE: Final = 200
"""Seeds of a run with a planted bug: as many as a run of the tests plays."""
SHOWN: Final = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="the first seed; the others count up")
    parser.add_argument("--one", type=int, metavar="SEED", help="play only this one, and show what happened")
    parser.add_argument("--planted", action="store_true", help="play with bugs that must be noticed")
    parser.add_argument("--runs", type=int, default=10, help="of 200 seeds, for each planted bug")
    arguments = parser.parse_args()
    if arguments.one is not None:
        show(arguments.one)
    elif arguments.planted:
        sys.exit(not notices(arguments.first, arguments.runs))
    else:
        sys.exit(not holds(arguments.first, arguments.seeds))


def holds(first: int, seeds: int) -> bool:
    failed, began = 0, time.process_time()
    for seed in range(first, first + seeds):
        found = faults(seed)
        failed += bool(found)
        if found and failed <= SHOWN:
            print(f"seed {seed}:", *found, sep="\n    ")
    print(f"{seeds:,} services in {time.process_time() - began:.0f} s of CPU: {failed} broke a promise")
    return not failed


def notices(first: int, runs: int) -> bool:
    """Plant each bug; return whether each was noticed in at least nine tenths of the runs."""
    worst, chance = runs, random.Random(first)
    for bug, plant in BUGS.items():
        with plant():
            played = [_until_noticed(chance.randrange(1_000_000_000)) for _ in range(runs)]
        noticed = [seeds for seeds in played if seeds is not None]
        worst = min(worst, len(noticed))
        print(
            f"{len(noticed):>3} of {runs}, after {sum(noticed) / max(1, len(noticed)):>5.1f} seeds  {bug}", flush=True
        )
    return worst >= 0.9 * runs


def _until_noticed(first: int) -> int | None:
    """Return how many services were played until a promise was broken; None if none was."""
    return next((played for played in range(1, SLICE + 1) if faults(first + played)), None)


def show(seed: int) -> None:
    world = play(seed)
    print(*world.draw.sources, *world.draw.hands, sep="\n")
    print(f"stopped at {world.stop_at - world.began:.4f}, hastened at {world.hastened_at - world.began:.4f}")
    for event in world.events:
        print(f"{world.heard_at[id(event)] - world.began:9.4f}", str(event)[:200])
    for call in world.calls:
        when = f"{call.began - world.began:9.4f} {call.ended - world.began:9.4f}"
        print(when, f"{call.hand.name} {call.how} with {call.number}: {call.act}")
    for parcel in world.parcels:
        told = [f"{at - world.began:.4f} {outcome}" for at, outcome in parcel.told]
        print(f"{parcel.taken_at - world.began:9.4f} {parcel.task.number}: {told}")
    print(*broken(world), sep="\n")


if __name__ == "__main__":
    main()
