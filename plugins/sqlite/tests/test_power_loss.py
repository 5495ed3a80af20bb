from __future__ import annotations

import random
from pathlib import Path

import pytest

from .power_loss import Disk, Sync, Write, lose_power_everywhere, play, recovered


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_power_loss_takes_nothing_that_was_confirmed(tmp_path: Path, seed: int) -> None:
    """`benchmarks/loss_sqlite.py --power` does it at every write and sync, here it is a sample of them."""
    losses = lose_power_everywhere(tmp_path, 500, step=37, seed=seed, synchronous="full", keeps_all=True)

    assert losses > 100


@pytest.mark.slow
def test_with_normal_power_loss_takes_only_the_last_of_it(tmp_path: Path) -> None:
    losses = lose_power_everywhere(tmp_path, 300, step=29, seed=3, synchronous="normal", keeps_all=False)

    assert losses > 30


def test_with_normal_something_confirmed_is_lost(tmp_path: Path) -> None:
    """So `full` is needed, and the test of it can fail."""
    with pytest.raises(AssertionError, match="after note"):
        lose_power_everywhere(tmp_path, 100, step=5, seed=4, synchronous="normal", keeps_all=True)


def test_the_disk_of_these_tests_loses_what_was_not_synced(tmp_path: Path) -> None:
    """Without the syncs, what was confirmed is gone: the tests above could fail."""
    before, notes = play(tmp_path, 20, seed=1, synchronous="full")
    disk = Disk({"db": bytearray(before), "wal": bytearray()})
    for note in notes:
        if not isinstance(note, Sync):
            disk.add(note)
    disk.pending = {"db": [], "wal": []}

    assert any(isinstance(note, Write) for note in notes)
    assert recovered(tmp_path, disk.lose_power(random.Random(1))) == frozenset()
