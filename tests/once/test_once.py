"""A timer with `once` in several real processes: each tick begins once, whatever is killed or stands still."""

from __future__ import annotations

from pathlib import Path

import pytest

from ._places import PLACES
from ._processes import Cluster, gaps, moments, open_cluster, times_begun

pytestmark = pytest.mark.slow
INTERVAL = 0.2


@pytest.mark.parametrize("kind", PLACES)
def test_each_tick_begins_once_where_what_is_missed_is_skipped(tmp_path: Path, kind: str) -> None:
    with PLACES[kind](tmp_path) as place, open_cluster(Cluster(tmp_path, place.table, INTERVAL, "skip")) as cluster:
        cluster.run(processes=4, ticks=60, seed=1, kills=4, pauses=2)
        cluster.stop()

    assert set(times_begun(cluster.notes()).values()) == {1}


@pytest.mark.parametrize("kind", PLACES)
def test_no_tick_is_lost_where_what_is_missed_is_made_up_for(tmp_path: Path, kind: str) -> None:
    """A tick begins again only if its process was killed or stood still; where the place has transactions, its effect
    is there once even then. The stop may give the last one back, which nobody is left to make up for."""
    with (
        PLACES[kind](tmp_path) as place,
        open_cluster(Cluster(tmp_path, place.table, INTERVAL, "all", place.effect)) as cluster,
    ):
        cluster.run(processes=4, ticks=60, seed=2, kills=4, pauses=2)
        cluster.stop()
        effects = place.effects()

    begun = times_begun(cluster.notes())
    assert gaps(moments(cluster.notes()), INTERVAL) == []
    assert sum(begun.values()) - len(begun) <= cluster.faults
    cut_by_the_stop = sorted(set(begun) - {note.id for note in cluster.notes() if note.what == "end"})
    assert cut_by_the_stop in ([], [max(begun)])
    assert sorted(effects) in ([sorted(begun), sorted(set(begun) - {*cut_by_the_stop})] if place.effect else [[]])


def test_steps_of_the_clock_double_nothing_and_silence_nobody(tmp_path: Path) -> None:
    with (
        PLACES["sqlite"](tmp_path) as place,
        open_cluster(Cluster(tmp_path, place.table, INTERVAL, "skip")) as cluster,
    ):
        cluster.run(processes=3, ticks=60, seed=3, kills=2, pauses=0, steps=8)
        cluster.stop()

    assert set(times_begun(cluster.notes()).values()) == {1}
