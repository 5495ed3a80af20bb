"""One attempt to hand a message over, and a look at one that nobody has taken."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final, final

import attrs
import trio
from typing_extensions import override

from kernel import Ack, Envelope, Outcome
from kernel.abc import Delivery
from kernel.errors import SettledError

from ._letter import Claim, read_letter, write_letter
from ._operation import Action, Operation
from ._store import Store
from ._thread import StoreThread

_OF_THE_MESSAGE: Final = (TypeError, ValueError, LookupError, AttributeError, sqlite3.InterfaceError)
"""What settling raises if it fails for what is in the message, such as headers that are no headers."""


@attrs.define(eq=False, repr=False)
class _Claimed(Delivery):
    """What is known of a message in its queue."""

    _claim: Claim
    _envelope: Envelope

    @property
    @override
    def envelope(self) -> Envelope:
        return self._envelope

    @property
    @override
    def attempt(self) -> int:
        return self._claim.attempt

    @property
    @override
    def redelivered(self) -> bool:
        return self._claim.redelivered


@final
@attrs.define(eq=False, repr=False)
class SqliteDelivery(_Claimed):
    """A claim on its way to a handler.

    Settling returns when the outcome is in the file. If it is cancelled before that began, the delivery can be
    settled again; later, the outcome may or may not be in the file. What the file did not take is delivered again as
    soon as it takes something.
    """

    _thread: StoreThread
    _freed: Callable[[], None]
    """Called when the delivery is not under way any more."""
    _reply_exchange: str
    _settled: bool = attrs.field(default=False, init=False)

    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        operation = Action(self._settling(outcome), self._heard, is_persistent=True)
        operation.task = trio.lowlevel.current_task()
        self._thread.submit(operation)
        self._settled = True
        try:
            await self._thread.wait(operation, self._thread.take_back)
        finally:
            self._settled = not operation.is_taken_back
        operation.outcome()

    def _settling(self, outcome: Outcome) -> Callable[[Store], None]:
        if self._settled:
            raise SettledError(f"delivery {self._claim.letter.id} was settled twice")
        reply = None
        if isinstance(outcome, Ack) and outcome.reply is not None:
            reply = write_letter(outcome.reply, now=self._thread.clock.wall())
        return lambda store: store.settle(self._claim, outcome, reply, self._reply_exchange)

    def _heard(self, operation: Operation[None]) -> None:
        error = operation.error
        if error is None:
            self._freed()
        elif isinstance(error, _OF_THE_MESSAGE):  # it would come again for ever
            self._tidy_up(lambda store: store.discard(self._claim, f"it cannot be settled: {error!r}"))
        else:
            self._tidy_up(lambda store: store.recover(self._claim))

    def _tidy_up(self, action: Callable[[Store], None]) -> None:
        self._thread.submit_last(Action(action, heard=self._recovered, is_persistent=True))

    def _recovered(self, _: object) -> None:
        self._freed()


@final
@attrs.define(eq=False, repr=False)
class PeekedDelivery(_Claimed):
    """A message that somebody looks at in its queue."""

    @classmethod
    def of(cls, claim: Claim, *, now: float) -> PeekedDelivery:
        """Return a look at what could be claimed."""
        return cls(claim, read_letter(claim.letter, now=now))

    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint()
        raise SettledError(f"delivery {self._claim.letter.id} was only looked at: it is still in its queue")
