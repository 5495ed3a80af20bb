from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest
from kernel_amqp10._errors import EndClosedError

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


@pytest.mark.parametrize("name", [b"amqp:not-found", b"amqp:not-foun\xff"])
@pytest.mark.parametrize("text", [b"there is none", b"there is non\xff"])
def test_a_reason_that_is_no_text_ends_the_link_and_not_the_connection(
    name: bytes, text: bytes, proton: Proton
) -> None:
    ours = Ours(proton)
    ours.take_all()
    ours.hear(*(_changed(data, name, text) for data in [*record(proton, ends=True)]))

    assert ours.engine.over is None
    assert ours.seen["lost"] == 1
    assert isinstance(ours.lost[0], EndClosedError)
    is_text = b"\xff" not in name + text
    assert str(ours.lost[0]).endswith("amqp:not-found there is none" if is_text else "it is no UTF-8")


def _changed(data: bytes, name: bytes, text: bytes) -> bytes:
    return data.replace(b"amqp:not-found", name).replace(b"there is none", text)


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
