"""Who takes much of what its client sent: few in a turn, and each for a moment, whatever the bytes cost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio
from kernel_web.wire import turns
from kernel_web.wire.turns import PIECE_BYTES, PLACES, SECONDS, TURN_BYTES, Pieces, Turns


@pytest.mark.parametrize("many", [1, PLACES, 50])
async def test_however_many_take_much_the_others_wait_for_few(many: int) -> None:
    places, taken, seen = Turns(), 0, list[int]()

    async def takes() -> None:
        nonlocal taken
        for _ in range(5):
            async with places:
                taken += 1

    async with trio.open_nursery() as nursery:
        for _ in range(many):
            nursery.start_soon(takes)
        for _ in range(20 * many):
            await trio.lowlevel.checkpoint()
            seen.append(taken)
            taken = 0

    assert sum(seen) == 5 * many
    assert max(seen) <= 2 * PLACES  # of two turns, if the order in each is so


async def test_a_place_is_free_again_however_its_taker_ended() -> None:
    places = Turns()
    for _ in range(2 * PLACES):
        with trio.CancelScope() as scope:
            async with places:
                scope.cancel()
        with pytest.raises(ValueError, match="broken"):
            async with places:
                raise ValueError("broken")

    with trio.fail_after(1):
        async with places:
            pass


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
    now, pieces, seen = [0.0], Pieces(b"x" * 65000), list[int]()
    monkeypatch.setattr(turns, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def take(piece: bytes) -> None:
        seen.append(len(piece))
        now[0] += cost

    pieces.feed(take)
    once = list(seen)
    while pieces:
        pieces.feed(take)

    assert once == taken
    assert sum(seen) == 65000
