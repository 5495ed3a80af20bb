"""What holds for every service, whatever its handlers do and whenever it is stopped.

Any number more by `benchmarks/fuzz_services.py`.
"""

from __future__ import annotations

import random
from itertools import count

import pytest

from kernel import Outcome

from ._bugs import BUGS
from ._play import faults, play
from ._world import Parcel

SEEDS = 200
MANY = 2000
"""More than any planted bug needs to be noticed."""


@pytest.mark.slow
def test_every_service_keeps_its_promises() -> None:
    first = random.randrange(1_000_000_000)
    found = {seed: broken for seed in range(first, first + SEEDS) if (broken := faults(seed))}

    assert not found, "".join(
        f"\nuv run python benchmarks/fuzz_services.py --one {seed}: {broken[0]}" for seed, broken in found.items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_noticed(bug: str) -> None:
    first = random.randrange(1_000_000_000)
    with BUGS[bug]():
        seeds = next(played for played in count(1) if played > MANY or faults(first + played))

    assert seeds <= MANY


def test_a_seed_is_played_the_same_again() -> None:
    first, second = (play(21) for _ in range(2))

    assert [(call.number, call.began, call.ended) for call in first.calls] == [
        (call.number, call.began, call.ended) for call in second.calls
    ]
    assert [_told(parcel) for parcel in first.parcels] == [_told(parcel) for parcel in second.parcels]
    assert first.calls


def _told(parcel: Parcel) -> list[tuple[float, type[Outcome]]]:
    """Return what a source was told and when; the ids of replies are always new ones."""
    return [(at, type(outcome)) for at, outcome in parcel.told]
