"""What holds for three services inside one, whatever their handlers do and whenever it is stopped: what holds for one."""

from __future__ import annotations

import random

import pytest

from kernel._core.events import StateChanged
from kernel._core.lifecycle import FINAL

from ._inside import faults_inside, play_inside

SEEDS = 500


@pytest.mark.slow
def test_three_services_inside_one_keep_the_promises_of_one() -> None:
    first = random.randrange(1_000_000_000)
    found = {seed: broken for seed in range(first, first + SEEDS) if (broken := faults_inside(seed))}

    assert not found, "".join(f"\n{seed}: {broken[:3]}" for seed, broken in found.items())


def test_what_is_played_inside_are_three_services_that_end() -> None:
    worlds = play_inside(7)

    assert all(world.calls for world in worlds)
    ended = [
        {event.component for event in world.events if isinstance(event, StateChanged) and event.new in FINAL}
        for world in worlds
    ]
    assert all("driver/base" in one and len(one) > 2 for one in ended)
