"""Facts about attempts in which a process died, as brokers count them that only tell that a message comes again."""

from __future__ import annotations

from kernel.abc import COMINGS_HEADER, CRASHES_HEADER, CrashNote, Spared


def copies(times: int, *, is_counted: bool = False) -> list[CrashNote]:
    """What is noted of a message that comes again so many times, which nobody has given back."""
    notes = [CrashNote()]
    for _ in range(times - 1):
        notes.append(notes[-1].next(is_counted=is_counted))
    return notes


def test_what_comes_again_and_again_has_been_in_those_that_died() -> None:
    assert [note.crashes for note in copies(7)] == [0, 0, 0, 0, 2, 3, 4]
    assert [note.comings for note in copies(7)] == [0, 1, 2, 3, 3, 3, 3]


def test_nothing_is_forgiven_where_the_broker_has_counted_to_as_much() -> None:
    assert [note.crashes for note in copies(4, is_counted=True)] == [0, 2, 3, 4]


def test_what_is_given_back_in_order_begins_anew_and_keeps_what_was_counted() -> None:
    assert CrashNote(crashes=2, comings=3).returned() == CrashNote(crashes=2, comings=0)


def test_a_note_is_told_by_headers_of_which_what_is_forgiven_may_be_missing() -> None:
    assert CrashNote(crashes=2, comings=3).headers() == {CRASHES_HEADER: 2, COMINGS_HEADER: 3}
    assert CrashNote().headers() == {CRASHES_HEADER: 0}


def test_what_is_spared_is_spared_once_and_what_nobody_saw_as_often_as_that_can_be() -> None:
    spared = Spared()
    spared.add("q", "m")
    spared.lose("q", 2)
    spared.lose("q", 1)  # a second break takes nothing away, and gives no more

    assert not spared.take("other", "m")
    assert [spared.take("q", "m") for _ in range(4)] == [True, True, True, False]


def test_what_was_given_back_long_ago_is_forgotten() -> None:
    spared = Spared()
    for number in range(20_001):
        spared.add("q", number)

    assert (spared.take("q", 0), spared.take("q", 1)) == (False, True)
