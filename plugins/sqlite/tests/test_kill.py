from __future__ import annotations

from pathlib import Path

import pytest

from .killing import kill_often

KILLS = 20
CONCURRENCY = 8


@pytest.mark.slow
def test_kill_9_loses_nothing_and_repeats_no_more_than_was_in_hand(path: Path) -> None:
    """`benchmarks/loss_sqlite.py` does it a thousand times."""
    verdict = kill_often(path, KILLS, concurrency=CONCURRENCY, seed=1)

    assert (verdict.lost, verdict.wrong_effects, verdict.integrity) == (0, 0, "ok")
    assert verdict.duplicates <= KILLS * CONCURRENCY
    assert verdict.confirmed > 0, "every victim was killed before it had begun"
