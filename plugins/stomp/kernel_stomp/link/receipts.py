"""Questions that the server answers with a receipt, each with who waits for it."""

from __future__ import annotations

from typing import Final, final

import attrs
import trio

from .._errors import LateError, LinkLostError

LONGEST: Final = 30.0
"""Seconds that a receipt may take, besides those of a connection that breaks."""


@final
@attrs.define(eq=False, repr=False)
class Receipt:
    """One answer that is waited for."""

    asked: float
    """When it was asked for, in `trio.current_time()`."""
    is_patient: bool = False
    """Whether it is waited for however long it takes."""
    error: LinkLostError | LateError | None = attrs.field(default=None, init=False)
    _come: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def wait(self) -> None:
        """Wait for the answer.

        Raises:
            LinkLostError: if the connection went before it; `written` is true.
            LateError: if it took too long.

        Cancellation: Is a checkpoint.
        """
        await self._come.wait()
        if isinstance(self.error, LinkLostError):
            raise self.error.again(written=True)
        if self.error is not None:
            raise self.error

    def end(self, error: LinkLostError | LateError | None = None) -> None:
        """Say that the answer came, or why it will not."""
        if not self._come.is_set():
            self.error = error
            self._come.set()


@final
@attrs.define(eq=False, repr=False)
class Receipts:
    """The answers that one connection waits for, in the order of the questions."""

    _waiting: dict[str, Receipt] = attrs.field(factory=dict[str, Receipt], init=False)
    _last: int = attrs.field(default=0, init=False)

    def ask(self, *, is_patient: bool = False) -> tuple[str, Receipt]:
        """Return a new id, and what tells when its answer has come."""
        self._last += 1
        receipt = self._waiting[str(self._last)] = Receipt(trio.current_time(), is_patient)
        return str(self._last), receipt

    def take(self, id_: str) -> None:
        """Take an answer; one that nobody waits for any more means nothing."""
        receipt = self._waiting.pop(id_, None)
        if receipt is not None:
            receipt.end()

    def forget(self, id_: str) -> None:
        """Wait for an answer no more."""
        self._waiting.pop(id_, None)

    def sweep(self) -> None:
        """End those that took too long."""
        limit = trio.current_time() - LONGEST
        for id_, receipt in list(self._waiting.items()):
            if receipt.asked > limit:
                return
            if not receipt.is_patient:
                self.forget(id_)
                receipt.end(LateError(LONGEST))

    def lose(self, error: LinkLostError) -> None:
        """End all: the connection is gone."""
        for receipt in self._waiting.values():
            receipt.end(error)
        self._waiting.clear()
