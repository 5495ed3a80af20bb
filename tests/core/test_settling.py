"""Facts about outcomes for which a broker has to send something, over a broker that does what a test wants."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kernel import Outcome, Retry, Return
from kernel.abc import Settlement, Settlements, Settler, Settling
from kernel.errors import UnknownOutcomeError

RETRY = Retry(after=1.0)


class Copy(Settlement[trio.Event]):
    """One that the broker takes when its event is set."""

    async def is_taken(self) -> bool:
        if self.receipt is not None:
            await self.receipt.wait()
        return self.receipt is not None


@attrs.define(eq=False)
class Desk(Settler[str, Copy]):
    """What a plugin would do; a delivery is its name."""

    fails: int = 0
    """Sends that fail, from the first on."""
    hopeless: bool = False
    waits: float = 0.0
    """Seconds until something can be written."""
    answer: trio.Event = attrs.field(factory=trio.Event)
    here: bool = True
    sent: list[str] = attrs.field(factory=list)
    told: list[str] = attrs.field(factory=list)
    settlements: Settlements = attrs.field(factory=Settlements)

    def is_here(self, delivery: str) -> bool:
        return self.here

    async def send(self, delivery: str, outcome: Outcome, settlement: Copy) -> None:
        await self._send(type(outcome).__name__, settlement)

    async def send_note(self, delivery: str, settlement: Copy) -> None:
        await self._send("note", settlement)

    async def _send(self, what: str, settlement: Copy) -> None:
        await trio.sleep(self.waits)
        self.sent.append(what)
        if len(self.sent) <= self.fails:
            raise ConnectionError("no way")
        settlement.written(self.answer)
        await self.answer.wait()

    def acknowledge(self, delivery: str, settlement: Copy) -> None:
        self.told.append("acknowledged")

    def give_up(self, delivery: str, outcome: Outcome, error: Exception) -> bool:
        if self.hopeless:
            self.told.append(f"put aside: {error}")
        return self.hopeless

    def put_back(self, delivery: str, error: Exception | None) -> None:
        self.told.append(f"handed out: {error}")

    def forget(self, delivery: str) -> UnknownOutcomeError:
        self.told.append("forgotten")
        return UnknownOutcomeError("it comes again")


@asynccontextmanager
async def settling(desk: Desk) -> AsyncGenerator[Settling[str, Copy]]:
    """What settles, for as long as a driver lives."""
    async with trio.open_nursery() as nursery:
        yield Settling(desk, desk.settlements, nursery.start_soon, Copy)
        await desk.settlements.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("fails", [0, 1, 4])
async def test_an_outcome_is_sent_until_the_broker_has_taken_it(fails: int, autojump_clock: MockClock) -> None:
    desk = Desk(fails=fails)
    desk.answer.set()
    async with settling(desk) as all_of_it:
        await all_of_it.settle("d", RETRY)
        await trio.sleep(60)

    assert desk.sent == ["Retry"] * (fails + 1)
    assert desk.told == ["acknowledged"]


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_what_the_broker_may_have_is_not_sent_again_however_long_it_takes(
    is_cancelled: bool, autojump_clock: MockClock
) -> None:
    """Whoever settles waits for four seconds at most; its cancellation does not end it."""
    desk = Desk()
    async with settling(desk) as all_of_it:
        began = trio.current_time()
        with trio.move_on_after(1.0 if is_cancelled else 100.0):
            await all_of_it.settle("d", RETRY)
        assert trio.current_time() - began == (1.0 if is_cancelled else 4.0)
        await trio.sleep(600)
        assert desk.told == []
        desk.answer.set()
        await wait_all_tasks_blocked()

    assert (desk.sent, desk.told) == (["Retry"], ["acknowledged"])


async def test_what_never_can_be_sent_is_put_aside_at_once(autojump_clock: MockClock) -> None:
    desk = Desk(fails=1, hopeless=True)
    async with settling(desk) as all_of_it:
        await all_of_it.settle("d", RETRY)

    assert (desk.sent, desk.told) == (["Retry"], ["put aside: no way"])


async def test_whoever_settles_what_comes_again_is_told(autojump_clock: MockClock) -> None:
    desk = Desk(here=False)
    async with settling(desk) as all_of_it:
        with pytest.raises(UnknownOutcomeError):
            await all_of_it.settle("d", RETRY)

    assert (desk.sent, desk.told) == ([], ["forgotten"])


async def test_nothing_is_sent_any_more_for_what_comes_again(autojump_clock: MockClock) -> None:
    desk = Desk(fails=100)
    async with settling(desk) as all_of_it:
        await all_of_it.settle("d", RETRY)
        await trio.sleep(1)
        sent, desk.here = len(desk.sent), False
        all_of_it.lose()
        await trio.sleep(60)

    assert (len(desk.sent), desk.told) == (sent, ["forgotten"])


@pytest.mark.parametrize(
    ("fails", "waits", "told"),
    [(0, 3.0, "acknowledged"), (1, 3.0, "handed out: no way"), (0, 5.0, "handed out: None")],
)
async def test_what_cannot_be_noted_in_four_seconds_is_handed_out_as_it_is(
    fails: int, waits: float, told: str, autojump_clock: MockClock
) -> None:
    desk = Desk(fails=fails, waits=waits)
    async with settling(desk) as all_of_it:
        all_of_it.note("d")
        await trio.sleep(60)  # the answer to what was written may take its time
        desk.answer.set()
        await wait_all_tasks_blocked()

    assert desk.told == [told]


async def test_what_is_given_back_by_a_copy_goes_back_though_the_driver_ends_at_once(autojump_clock: MockClock) -> None:
    desk = Desk(waits=1.0)
    desk.answer.set()
    async with settling(desk) as all_of_it:
        all_of_it.give_back("d")

    assert (desk.sent, desk.told) == ([Return.__name__], ["acknowledged"])
