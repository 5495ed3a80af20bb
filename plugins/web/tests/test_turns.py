"""Who takes much of what its client sent: few in a turn, and each for a moment, whatever the bytes cost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio
from kernel_web.wire import turns
from kernel_web.wire.turns import MUCH, PIECE_BYTES, PLACES, SECONDS, TURN_BYTES, Pieces, Turns

JUST_MUCH = MUCH * 1.001
"""What sums of floats do not make a little less than that."""


class Time:
    """A clock that stands still, but for what costs something."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: float) -> None:
        self.now = 0.0
        self.cost = cost
        self.taken: list[int] = []
        monkeypatch.setattr(turns, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def take(self, piece: bytes) -> None:
        self.taken.append(len(piece))
        self.now += self.cost


@pytest.mark.parametrize(("cost", "most"), [(JUST_MUCH, 2 * PLACES), (SECONDS, 2 * PLACES), (0.0, 100)])
async def test_however_many_take_much_the_others_wait_for_few(
    monkeypatch: pytest.MonkeyPatch, cost: float, most: int
) -> None:
    places, time, seen, before = Turns(), Time(monkeypatch, cost), list[int](), 0

    async def takes() -> None:
        for _ in range(5):
            await places.take(Pieces(b"x" * PIECE_BYTES), time.take)

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(takes)
        for _ in range(1000):
            await trio.lowlevel.checkpoint()
            seen.append(len(time.taken) - before)
            before = len(time.taken)

    assert sum(seen) == 250
    assert max(seen) <= most  # of two turns, if the order in each is so
    assert max(seen) * 6 >= 250 or cost > 0  # all in five turns, of which this task sees six parts


async def test_a_place_is_free_again_however_its_taker_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    places, time = Turns(), Time(monkeypatch, SECONDS)

    def breaks(_: bytes) -> None:
        raise ValueError("broken")

    for _ in range(2 * PLACES):
        with trio.CancelScope() as scope:
            await places.take(Pieces(b"x"), lambda _: scope.cancel())
        with pytest.raises(ValueError, match="broken"):
            await places.take(Pieces(b"x"), breaks)

    with trio.fail_after(4):
        await places.take(Pieces(b"x"), time.take)


@pytest.mark.parametrize(
    ("cost", "taken"),
    [
        (0.0, [PIECE_BYTES, TURN_BYTES - PIECE_BYTES]),
        (SECONDS / 20, [PIECE_BYTES, TURN_BYTES - PIECE_BYTES]),
        (SECONDS / 4, [PIECE_BYTES] * 4),
        (SECONDS * 5, [PIECE_BYTES]),
    ],
    ids=["nothing", "little", "much", "very much"],
)
def test_what_costs_much_is_taken_in_small_pieces(
    monkeypatch: pytest.MonkeyPatch, cost: float, taken: list[int]
) -> None:
    pieces, time = Pieces(b"x" * 65000), Time(monkeypatch, cost)

    took = pieces.feed(time.take)
    once = list(time.taken)
    while pieces:
        pieces.feed(time.take)

    assert once == taken
    assert took == pytest.approx(cost * len(taken))
    assert sum(time.taken) == 65000
