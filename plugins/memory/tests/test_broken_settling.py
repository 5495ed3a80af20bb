"""The check itself: a broker that settles well when it may wait, and badly when it may not, must fail."""

from __future__ import annotations

import re
from typing import Any, final

import pytest
import trio
from kernel_memory import MemoryDriver

from kernel import Ack, DeadLetter, Outcome, Retry, Return
from kernel.errors import SettledError
from kernel.testing import check_broker

from .passing import Passed, open_passing


class Direct(Passed):
    """Settles without waiting."""

    def settle_nowait(self, outcome: Outcome) -> bool:
        return self.inner.settle_nowait(outcome)


@final
class NeverWaits(Direct):
    """Keeps every promise: what takes no waiting is done at once."""


@final
class WaitsForRetries(Direct):
    """Keeps every promise: leaves to `settle` what is not done at once."""

    def settle_nowait(self, outcome: Outcome) -> bool:
        return not isinstance(outcome, Retry | DeadLetter) and super().settle_nowait(outcome)


@final
class SaysYesAndForgets(Direct):
    def settle_nowait(self, outcome: Outcome) -> bool:
        return outcome == Ack() or super().settle_nowait(outcome)


@final
class SettlesAndSaysNo(Direct):
    def settle_nowait(self, outcome: Outcome) -> bool:
        super().settle_nowait(outcome)
        return False


@final
class DropsReplies(Direct):
    def settle_nowait(self, outcome: Outcome) -> bool:
        return super().settle_nowait(Ack() if isinstance(outcome, Ack) else outcome)


@final
class CountsReturns(Direct):
    def settle_nowait(self, outcome: Outcome) -> bool:
        return super().settle_nowait(Retry() if outcome == Return() else outcome)


@final
class ReturnsInstead(Direct):
    def settle_nowait(self, outcome: Outcome) -> bool:
        return super().settle_nowait(Return() if outcome == Retry() else outcome)


@final
class RetriesAtOnce(Direct):
    def settle_nowait(self, outcome: Outcome) -> bool:
        return super().settle_nowait(Retry() if isinstance(outcome, Retry) else outcome)


@final
class ForgetsReason(Direct):
    def settle_nowait(self, outcome: Outcome) -> bool:
        return super().settle_nowait(DeadLetter("") if isinstance(outcome, DeadLetter) else outcome)


@final
class AgreesTwice(Direct):
    """Says yes to a second outcome, which comes to nothing."""

    def settle_nowait(self, outcome: Outcome) -> bool:
        try:
            return super().settle_nowait(outcome)
        except SettledError:
            return True


@final
class WaitsForTheSecond(Direct):
    """Takes a second outcome, which comes to nothing, if the first took no waiting."""

    has_agreed = False

    async def settle(self, outcome: Outcome) -> None:
        try:
            await super().settle(outcome)
        except SettledError:
            if not self.has_agreed:
                raise

    def settle_nowait(self, outcome: Outcome) -> bool:
        self.has_agreed = super().settle_nowait(outcome)
        return self.has_agreed


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (SaysYesAndForgets, "Ack that does not wait removes the message"),
        (SettlesAndSaysNo, "Ack that does not wait removes the message"),
        (DropsReplies, "Ack that does not wait sends the reply"),
        (CountsReturns, "Return that does not wait gives the message back at once, its attempt not counted"),
        (ReturnsInstead, "Retry that does not wait delivers again, attempt + 1"),
        (RetriesAtOnce, "Retry that does not wait has its delay"),
        (ForgetsReason, "DeadLetter that does not wait puts the message aside"),
        (AgreesTwice, "a delivery is settled once by whichever method"),
        (WaitsForTheSecond, "a delivery is settled once by whichever method"),
    ],
)
async def test_a_broken_promise_is_named(
    broken: type[Any], promise: str, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(AssertionError, match=f"^{re.escape(promise)}: "):
        await check_broker(lambda: open_passing(broken), capabilities=MemoryDriver.capabilities)


@pytest.mark.parametrize("kept", [NeverWaits, WaitsForRetries])
async def test_what_is_done_without_waiting_and_what_is_left_keeps_every_promise(
    kept: type[Any], autojump_clock: trio.testing.MockClock
) -> None:
    await check_broker(lambda: open_passing(kept), capabilities=MemoryDriver.capabilities)
