"""What is called at the end of a turn of the scheduler."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from kernel import at_turn_end


async def test_it_is_called_once_when_all_others_had_their_turn() -> None:
    seen: list[str] = []

    async def run(name: str) -> None:
        seen.append(name)
        await trio.lowlevel.checkpoint()
        seen.append(f"{name} again")

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(run, name)
        await trio.lowlevel.checkpoint()
        at_turn_end(lambda: seen.append("end"))

    assert set(seen[:3]) == {"a", "b", "c"}
    assert seen[3] == "end"
    assert seen.count("end") == 1


async def test_it_is_called_before_trio_waits(autojump_clock: MockClock) -> None:
    called_at: list[float] = []
    clock = trio.lowlevel.current_clock()
    at_turn_end(lambda: called_at.append(clock.current_time()))
    before = trio.current_time()
    await trio.sleep(60)

    assert called_at == [before]


async def test_what_is_called_may_ask_for_another_call() -> None:
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        at_turn_end(lambda: seen.append("second"))

    at_turn_end(first)
    await trio.lowlevel.checkpoint()
    assert seen == ["first", "second"]


async def test_each_run_has_its_own() -> None:
    """A run within a thread, as if the first were over."""
    seen: list[str] = []

    async def other() -> None:
        at_turn_end(lambda: seen.append("other"))
        await trio.lowlevel.checkpoint()

    at_turn_end(lambda: seen.append("this"))
    await trio.to_thread.run_sync(trio.run, other)
    assert sorted(seen) == ["other", "this"]


def test_an_error_ends_the_run_and_takes_no_other_call_with_it() -> None:
    seen: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        at_turn_end(fail)
        at_turn_end(lambda: seen.append("after"))
        await trio.sleep_forever()

    with pytest.raises(trio.TrioInternalError) as raised:
        trio.run(main)

    assert seen == ["after"]
    assert isinstance(raised.value.__cause__, BaseExceptionGroup)
    assert raised.value.__cause__.subgroup(ZeroDivisionError) is not None


def test_outside_of_trio_there_are_no_turns() -> None:
    with pytest.raises(RuntimeError):
        at_turn_end(lambda: None)
