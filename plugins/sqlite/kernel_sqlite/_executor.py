"""Transactions for others: many operations in one of them, told when it is over. Used by one thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, final

import attrs

from kernel.errors import KernelError

from ._access import Access
from ._failure import breaks_connection, is_full
from ._operation import Action, Operation
from ._shelves import Effects
from ._store import Store
from ._teller import Teller

_RETRY_WAIT: Final = 1.0
"""Seconds before what must be done is tried again on a file that took nothing."""


@final
@attrs.define(eq=False, repr=False)
class Executor:
    """Runs batches of operations, and keeps what the file did not take and must."""

    _access: Access
    _teller: Teller
    _is_stopping: Callable[[], bool]
    _persistent: list[Operation[Any]] = attrs.field(factory=list[Operation[Any]], init=False)
    """What the file did not take, and must."""
    retry_at: float = attrs.field(default=math.inf, init=False)
    """When to `retry`, on the monotonic clock."""

    def retry(self) -> None:
        """Try once more what the file must take."""
        again, self._persistent, self.retry_at = self._persistent, [], math.inf
        self.execute([Action(Store.probe), *again])

    def execute(self, batch: Sequence[Operation[Any]]) -> None:
        """Run a batch in one transaction; if that fails, each operation in one of its own."""
        try:
            effects = self._transact(batch)
        except Exception as error:  # noqa: BLE001  whatever it is, those who wait must hear of it
            self.undo(error)
            if len(batch) > 1 and not self._access.is_unsure:
                for operation in batch:
                    self.execute([operation])
            else:
                self.fail(batch, error)
        else:
            self.tell_done(batch, effects)

    def undo(self, error: BaseException) -> None:
        """End a transaction that failed, and with it the connection if that is of no use any more."""
        self._access.rollback()
        if breaks_connection(error):
            self._access.drop()
        elif is_full(error):
            self._access.empty_log()

    def fail(self, batch: Sequence[Operation[Any]], cause: Exception) -> None:
        """Tell those who waited why nothing was done; what must be done is kept for `retry`."""
        error = self._access.translate(cause)
        for operation in batch:
            operation.error = error
        if isinstance(error, KernelError):
            self._persistent += [operation for operation in batch if operation.is_persistent]
            self.retry_at = self._access.clock.monotonic() + _RETRY_WAIT
            self._teller.report(str(error))
        told = [operation for operation in batch if not (operation.is_persistent and isinstance(error, KernelError))]
        self._teller.tell_all(told, Effects())

    def tell_done(self, batch: Sequence[Operation[Any]], effects: Effects) -> None:
        """Tell those who waited that it is in the file."""
        if effects.has_written:
            self._teller.report(self._access.complaint())
            if self._persistent:
                self.retry_at = -math.inf
        self._teller.tell_all(batch, effects)

    def _transact(self, batch: Sequence[Operation[Any]]) -> Effects:
        store = self._access.begin(self._is_stopping)
        for operation in batch:
            operation.error = None
            try:
                operation.run(store)
            except KernelError as error:  # refused; it has changed nothing
                operation.error = error
        return self._access.commit()
