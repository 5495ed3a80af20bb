"""A worker's own transaction: its writes, its sends and the ids that it has handled, all or nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar, final

import attrs
import trio
from typing_extensions import override

from kernel import Envelope
from kernel.abc import Transaction
from kernel.errors import UnavailableError

from ._guard import GUEST_MARK, Guard
from ._hold import Hold
from ._letter import write_letter
from ._operation import Action
from ._store import Store
from ._thread import StoreThread

ResultT = TypeVar("ResultT")


@final
@attrs.define(eq=False)
class SqliteTransaction(Transaction):
    """The file, for one task at a time."""

    _thread: StoreThread
    _guard: Guard
    _hold: Hold

    @override
    async def execute(
        self, statement: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> list[tuple[object, ...]]:
        return await self._perform(lambda store: self._execute(store, statement, parameters))

    @override
    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = True) -> None:
        letter = write_letter(envelope, now=self._thread.clock.wall())
        await self._perform(lambda store: store.send(letter, exchange=exchange, mandatory=mandatory))

    @override
    async def once(self, message_id: str, *, scope: str = "") -> bool:
        return await self._perform(lambda store: store.once(message_id, scope))

    async def commit(self) -> None:
        """Make it last."""
        await self._perform(_nothing, is_last=True)

    def give_up(self) -> None:
        """Undo it, if it is not over; nobody has to wait for that."""
        if self._hold.is_open:
            self._hold.last = Action(_nothing)
            self._hold.commits = False
            with suppress(UnavailableError):  # it has just had its time
                self._thread.post(self._hold, self._hold.last)

    def _execute(
        self, store: Store, statement: str, parameters: Sequence[object] | Mapping[str, object]
    ) -> list[tuple[object, ...]]:
        with self._guard.guest():
            return store.execute(f"{GUEST_MARK}{statement}", parameters)

    async def _perform(self, action: Callable[[Store], ResultT], *, is_last: bool = False) -> ResultT:
        await trio.lowlevel.checkpoint_if_cancelled()
        operation = Action(action)
        operation.task = trio.lowlevel.current_task()
        if is_last:
            self._hold.last, self._hold.commits = operation, True
        self._thread.post(self._hold, operation)
        await self._thread.wait(operation, partial(self._thread.take_back_from, self._hold))
        return operation.outcome()


def _nothing(_: Store) -> None:
    pass


@asynccontextmanager
async def open_transaction(thread: StoreThread, guard: Guard) -> AsyncGenerator[Transaction]:
    """Take the file for the calling task; commits when left without an error."""
    thread.check_task()
    await trio.lowlevel.checkpoint_if_cancelled()
    hold = Hold(trio.lowlevel.current_task())
    transaction = SqliteTransaction(thread, guard, hold)
    try:
        thread.submit(hold)
        await thread.wait(hold, thread.take_back)
        if hold.error is not None:
            raise hold.error
        with thread.held_by_task(hold):
            yield transaction
            await transaction.commit()
    finally:
        transaction.give_up()
