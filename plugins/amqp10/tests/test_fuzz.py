from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from .fuzzing import Ours, messages, play, record

if TYPE_CHECKING:
    from kernel_amqp10.link.proton import Proton

INPUTS = 400


def test_the_conversation_is_understood_to_its_end(proton: Proton) -> None:
    """What is mutated is worth it."""
    ours = Ours(proton)
    ours.take_all()
    ours.hear(*record(proton))

    assert len(ours.arrived) == 4
    assert ours.seen == {"too large": 1, "unreadable": 1}
    assert ours.engine.over is None


def test_the_conversation_means_the_same_byte_by_byte(proton: Proton) -> None:
    ours = Ours(proton)
    ours.take_all()
    for data in record(proton):
        ours.hear(*(bytes([byte]) for byte in data))

    assert len(ours.arrived) == 4


def test_an_address_that_is_no_text_ends_the_connection_and_raises_nothing(proton: Proton) -> None:
    ours = Ours(proton)
    ours.take_all()
    ours.hear(*(data.replace(b"/amq/queue/in", b"/amq/\xffueue/in") for data in record(proton)))

    assert "cannot be read" in (ours.engine.over or "")


def test_a_connection_that_is_over_leaves_nothing_behind(proton: Proton) -> None:
    ours = Ours(proton)
    ours.take_all()
    ours.hear(*record(proton))
    ours.engine.close()
    left = [weakref.ref(one) for one in (ours.engine, ours.sender, ours.receiver)]
    del ours
    gc.collect()

    assert [one() for one in left] == [None, None, None]


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1_000_000_000])
def test_what_the_far_side_says_never_breaks_ours(first: int, proton: Proton) -> None:
    """Any number of more by `benchmarks/fuzz_amqp10.py`; the seed of one that fails is in the message."""
    said, letters = record(proton), messages(proton)
    outcomes = set()
    for seed in range(first, first + INPUTS):
        try:
            outcomes.add(play(proton, seed, said, letters))
        except Exception as error:
            raise AssertionError(f"uv run python benchmarks/fuzz_amqp10.py --one {seed}") from error

    assert outcomes == {"message read", "message refused", "conversation ended", "conversation heard to its end"}
