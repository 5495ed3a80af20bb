from __future__ import annotations

import random

import pytest
from kernel_amqp.core import Closed, Delivered, Returned, TooLarge

from .fuzzing import Segments, load, meaning, outcome, pack, play, try_one, unpack

CONVERSATIONS = load()
INPUTS = 5000


@pytest.mark.parametrize("segments", CONVERSATIONS, ids=range(len(CONVERSATIONS)))
def test_a_recorded_conversation_is_understood_to_its_end(segments: Segments) -> None:
    """What is mutated is worth it: all messages arrive, everything is confirmed."""
    client = play(random.Random(0), segments)

    kinds = [type(event) for event in client.told]
    assert (kinds.count(Delivered), kinds.count(TooLarge), kinds.count(Returned)) == (6, 2, 2)
    assert client.told[-1] == Closed(200, "")
    assert client.waiting[client.channels[0].number] == set()


@pytest.mark.parametrize("segments", CONVERSATIONS, ids=range(len(CONVERSATIONS)))
def test_a_recorded_conversation_means_the_same_however_it_is_cut(segments: Segments) -> None:
    whole = meaning(play(random.Random(0), segments))

    assert all(meaning(play(random.Random(seed), segments)) == whole for seed in range(1, 30))


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1_000_000_000])
def test_mutated_conversations_never_break_the_core(first: int) -> None:
    """Any number of more by `benchmarks/fuzz_amqp.py`; the seed of one that fails is in the message."""
    outcomes = set()
    for seed in range(first, first + INPUTS // 2):
        try:
            outcomes.add(outcome(try_one(seed, CONVERSATIONS)))
        except Exception as error:
            raise AssertionError(f"uv run python benchmarks/fuzz_amqp.py --one {seed}") from error

    assert {"violation", "closed by us"} <= outcomes


def test_a_conversation_is_kept_as_it_was() -> None:
    assert unpack(pack(CONVERSATIONS[0])) == CONVERSATIONS[0]
