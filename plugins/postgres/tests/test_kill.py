from __future__ import annotations

from pathlib import Path

import pytest

from ._cluster import Cluster
from .killing import kill_often


@pytest.mark.slow
def test_kill_9_and_restarts_leave_every_effect_once_and_everything_published(cluster: Cluster, tmp_path: Path) -> None:
    """`benchmarks/loss_postgres.py` does it two hundred times."""
    cluster.query("DROP TABLE IF EXISTS kernel_outbox, kernel_inbox, effect")
    cluster.query("CREATE TABLE effect (id text)")

    verdict = kill_often(cluster, tmp_path / "queues.db", messages=100, kills=1, restarts=1, seed=1)

    assert (verdict.missing_effects, verdict.doubled_effects) == (0, 0)
    assert (verdict.unpublished, verdict.published_without_effect) == (0, 0)
