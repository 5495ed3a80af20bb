"""A real `kernel run` in trouble of every kind at once: nothing is lost, and no handler runs more often than it may.

The same with many more messages: `benchmarks/loss.py --chaos`.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ._chaos import ChaosTrial, endure
from ._chaos_causes import CAUSES, drawn
from ._node import running_node, scripts

TRIAL = ChaosTrial(messages=600, kills=2, terms=2, seed=5)


def test_every_cause_is_drawn() -> None:
    assert {id(cause) for cause in drawn(random.Random(1), 200_000)} == {id(cause) for cause in CAUSES.values()}


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_nothing_is_lost_and_runs_are_bounded(tmp_path: Path) -> None:
    programs = scripts()
    if programs is None:
        pytest.skip("needs rabbitmq-server")
    folder = tmp_path / "node"
    folder.mkdir()
    with running_node(folder, programs) as node:
        verdict = await endure(node, TRIAL, tmp_path)

    assert (verdict.lost, verdict.left) == (0, 0)
    assert verdict.holds, verdict
