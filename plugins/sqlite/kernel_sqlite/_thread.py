"""The thread that owns the file. What waits is done in one transaction, with one sync of the disk for all of it.

Waiting is in the nature of a disk: while one transaction is written, the operations of other tasks gather for the
next. So the more tasks there are, the less each of them costs, and nobody waits for company.

Longer than most files: who asks, who is done and who is told when the thread breaks or the file is closed have to
agree on one lock, and are read together.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final, TypeVar, final

import attrs
import trio

from kernel import at_turn_end
from kernel.errors import UnavailableError

from ._access import Access
from ._clock import Clock
from ._executor import Executor
from ._failure import is_interrupted
from ._hold import Hold
from ._operation import Action, Operation
from ._shelves import Effects
from ._store import Store
from ._teller import Teller

ResultT = TypeVar("ResultT")
WaitedT = TypeVar("WaitedT", bound="Operation[Any] | Hold")

_HOLD: Final[ContextVar[tuple[StoreThread, Hold] | None]] = ContextVar("hold", default=None)
"""Which task has which file for itself."""
_LARGEST: Final = 1000
"""Operations in one transaction, so that the first of them is told before the last has been forgotten."""


@final
@attrs.define(eq=False, repr=False)
class StoreThread:
    """Runs operations on the file; all methods are for the event loop, those with an underscore for the thread."""

    _access: Access
    _teller: Teller
    _poll_interval: float
    _transaction_timeout: float
    _lock: threading.Condition = attrs.field(factory=threading.Condition, init=False)
    _gathered: list[Operation[Any] | Hold] = attrs.field(factory=list[Operation[Any] | Hold], init=False)
    """What was asked for in this turn of the event loop. The thread does not see it, so it needs no lock."""
    _waiting: list[Operation[Any] | Hold] = attrs.field(factory=list[Operation[Any] | Hold], init=False)
    _executor: Executor = attrs.field(
        init=False,
        default=attrs.Factory(lambda self: Executor(self._access, self._teller, self._is_stopping), takes_self=True),
    )
    _is_idle: bool = attrs.field(default=False, init=False)
    _is_closing: bool = attrs.field(default=False, init=False)
    _is_hungry: bool = attrs.field(default=False, init=False)
    """Whether somebody waits for messages, from other processes too."""
    _under_way: list[Operation[Any]] | Hold = attrs.field(factory=list[Operation[Any]], init=False)
    failure: UnavailableError | None = attrs.field(default=None, init=False)
    """Why the thread ended by itself."""
    ended: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def clock(self) -> Clock:
        """What time it is for the file."""
        return self._access.clock

    def start(self) -> None:
        """Start the thread. It holds no process: a disk that hangs must not."""
        threading.Thread(target=self._run, name=f"sqlite {self._access.path.name}", daemon=True).start()

    async def perform(self, action: Callable[[Store], ResultT]) -> ResultT:
        """Run an action in the next transaction; returns its result once that is committed.

        Raises, Cancellation: as `complete`.
        """
        return await self.complete(Action(action))

    async def complete(self, operation: Operation[ResultT]) -> ResultT:
        """Do something in the next transaction; returns its result once that is committed.

        Raises:
            StorageFullError: if there is no space.
            StorageError: if the file took nothing for any other reason.
            UnknownOutcomeError: if it cannot be known whether the file took it.
            UnavailableError: if the file is closed.
            KernelError: what the action refuses with.

        Cancellation: Is a checkpoint. If cancelled before the transaction began, nothing was done; later, it may or
            may not be done.
        """
        if self._is_closing or _HOLD.get() is not None:  # a cancellation comes before what raises at once
            await trio.lowlevel.checkpoint_if_cancelled()
            self.check_task()
            self._check_open()
        operation.task = trio.lowlevel.current_task()
        if not self._gathered:
            at_turn_end(self._hand_over)
        self._gathered.append(operation)

        def abort(_: object) -> trio.lowlevel.Abort:  # as in `wait`, without calls of its own for each message
            self.take_back(operation)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        return operation.outcome()

    def wait(self, operation: WaitedT, take_back: Callable[[WaitedT], object]) -> Awaitable[object]:
        """Wait for what was submitted by this task.

        Cancellation: Is a checkpoint. If cancelled, it is taken back if it has not begun.
        """

        def abort(_: object) -> trio.lowlevel.Abort:
            take_back(operation)
            return trio.lowlevel.Abort.SUCCEEDED

        return trio.lowlevel.wait_task_rescheduled(abort)  # noqa: ASYNC105  awaited by the caller

    def submit(self, operation: Operation[Any] | Hold) -> None:
        """Have something done, together with what tasks ask for that have just been told.

        Raises:
            UnavailableError: if the file is closed.
        """
        self._check_open()
        if not self._gathered:
            if self._is_idle:  # it would begin at once, without what those tasks ask for in the next turn
                self._teller.tell(self._hand_over_soon)
            else:
                self._hand_over_soon()
        self._gathered.append(operation)

    def _check_open(self) -> None:
        if self._is_closing:
            raise UnavailableError(f'"{self._access.path}" is closed')

    def _hand_over_soon(self) -> None:
        at_turn_end(self._hand_over)

    def _hand_over(self) -> None:
        """Give the thread what was gathered.

        Tasks that were told together ask together, and the thread gets all of it at once: it takes the lock and is
        woken once for all of them, and spends no sync on the first of them.
        """
        gathered, self._gathered = self._gathered, []
        with self._lock:
            if self.failure is None:
                self._waiting += gathered
                if self._is_idle:
                    self._lock.notify()
                return
        self._refuse(gathered)

    def submit_last(self, operation: Operation[Any]) -> None:
        """Have something done that tidies up; a file that is closed has been tidied up."""
        with suppress(UnavailableError):
            self.submit(operation)

    def check_task(self) -> None:
        """Raise RuntimeError if the calling task would wait for itself."""
        hold = _HOLD.get()
        if hold is not None and hold[0] is self and hold[1].is_open:
            raise RuntimeError("a transaction is open in this task, and would be waited for: use the transaction")

    @contextmanager
    def held_by_task(self, hold: Hold) -> Generator[None]:
        """Remember that the calling task has the file."""
        before = _HOLD.set((self, hold))
        try:
            yield
        finally:
            _HOLD.reset(before)

    def poll(self, is_hungry: bool) -> None:  # noqa: FBT001  a callback has no keywords
        """Look for what other processes wrote, or do not."""
        self._is_hungry = is_hungry
        with self._lock:
            if self._is_idle:
                self._lock.notify()

    def take_back(self, operation: Operation[Any] | Hold) -> bool:
        """Have nobody wait for it; return whether it was not begun, and is not going to be."""
        operation.task = None
        with self._lock:
            for untouched in (self._gathered, self._waiting):
                if operation in untouched:
                    untouched.remove(operation)
                    operation.is_taken_back = True
                    return True
        return False

    def post(self, hold: Hold, operation: Operation[Any]) -> None:
        """Have something done in a hold that was granted, or told that the hold is over."""
        with self._lock:
            hold.post(operation)
            self._lock.notify()

    def take_back_from(self, hold: Hold, operation: Operation[Any]) -> None:
        """Have nobody wait for what was posted, and take it back if it was not begun."""
        operation.task = None
        with self._lock:
            if operation in hold.waiting:
                hold.waiting.remove(operation)
                operation.is_taken_back = True

    async def aclose(self) -> None:
        """Finish what was submitted, give back what is claimed, and close the file.

        Cancellation: Is a checkpoint. If cancelled, the thread does the rest by itself.
        """
        self._hand_over()
        with self._lock:
            self._is_closing = True
            self._lock.notify()
        await self.ended.wait()

    # --- in the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (batch := self._take()) is not None:
                self._under_way = batch
                self._do(batch)
                self._under_way = []
            self._executor.execute([Action(Store.close)])
            self._access.close()
        except BaseException as error:  # noqa: ASYNC103, BLE001  there is nobody above: who waits would wait for ever
            self._break(error)
        self._teller.tell(self.ended.set)

    def _do(self, batch: list[Operation[Any]] | Hold) -> None:
        match batch:
            case Hold():
                self._serve(batch)
            case []:
                self._look()
            case _:
                self._executor.execute(batch)

    def _break(self, cause: BaseException) -> None:
        """Tell all who wait, and whoever comes, that nothing is done any more."""
        self.failure = UnavailableError(f'the thread of "{self._access.path}" has broken: {cause!r}')
        self.failure.__cause__ = cause
        with self._lock:
            self._is_closing = True
            left, self._waiting = self._waiting, []
        left += [self._under_way] if isinstance(self._under_way, Hold) else self._under_way
        self._refuse(left)
        with suppress(Exception):
            self._access.drop()

    def _refuse(self, left: list[Operation[Any] | Hold]) -> None:
        """Tell those who wait that the thread has broken. In the thread or the event loop."""
        for one in left:
            if isinstance(one, Hold):
                self._close(one, self.failure)
            else:
                one.error = self.failure
            self._teller.tell(one.tell)

    def _take(self) -> list[Operation[Any]] | Hold | None:
        """Wait for something to do; an empty list is time to look around, and None is the end."""
        with self._lock:
            if not self._waiting and not self._is_closing:
                self._is_idle = True
                self.clock.wait(self._lock, self._patience(), poll=self._poll_interval if self._is_hungry else math.inf)
                self._is_idle = False
            if not self._waiting:
                return None if self._is_closing else []
            return self._next_batch()

    def _next_batch(self) -> list[Operation[Any]] | Hold:
        batch: list[Operation[Any]] = []
        for operation in self._waiting[:_LARGEST]:
            if isinstance(operation, Hold):
                break
            batch.append(operation)
        if not batch:
            return self._waiting.pop(0)  # type: ignore[return-value]  # what stopped the loop at once is a Hold
        del self._waiting[: len(batch)]
        if self.clock.wall() >= self._access.next_time():
            batch.append(Action(Store.upkeep))
        return batch

    def _patience(self) -> float:
        """Return the seconds until there is something to do; the wall clock only says what is due on it."""
        retry = self._executor.retry_at - self.clock.monotonic()
        return max(0.0, min(self._access.next_time() - self.clock.wall(), retry))

    def _look(self) -> None:
        """Do what time asks for, and see whether another process wrote."""
        if self.clock.monotonic() >= self._executor.retry_at:
            self._executor.retry()
        elif self.clock.wall() >= self._access.next_time():
            self._executor.execute([Action(Store.upkeep)])
        elif self._is_hungry and self._access.has_changed():
            self._teller.tell(self._teller.listener.on_foreign)

    def _is_stopping(self) -> bool:
        return self._is_closing

    # --- a hold ---------------------------------------------------------------------------------------------------

    def _serve(self, hold: Hold) -> None:
        """Do what one task asks for, and nothing else, until it commits, gives up, or has had its time."""
        try:
            store = self._access.begin(self._is_stopping)
        except Exception as error:  # noqa: BLE001  whatever it is, the task must hear of it
            self._executor.undo(error)
            hold.error = self._access.translate(error)
            hold.is_open = False
            self._teller.tell(hold.tell)
            return
        self._teller.tell(hold.tell)
        until = self.clock.monotonic() + self._transaction_timeout
        with self._access.limited(self._transaction_timeout, self._is_stopping):
            while (operation := self._next_of(hold, until)) is not None:
                self._run_held(hold, operation, store)
        if hold.is_open:
            self._access.rollback()
            self._close(hold, self._too_long())

    def _too_long(self) -> UnavailableError:
        return UnavailableError(f"the transaction took over {self._transaction_timeout:g} s: undone")

    def _next_of(self, hold: Hold, until: float) -> Operation[Any] | None:
        with self._lock:
            while hold.is_open and not hold.waiting:
                if self.clock.monotonic() >= until:
                    return None
                self.clock.wait(self._lock, until - self.clock.monotonic())
            return hold.waiting.pop(0) if hold.is_open else None

    def _run_held(self, hold: Hold, operation: Operation[Any], store: Store) -> None:
        if operation is hold.last:
            self._finish(hold, operation)
            return
        try:
            store.flush()
        except Exception as error:  # noqa: BLE001  what was sent is not in the file: the rest must not be either
            self._doom(hold, operation, error)
            return
        try:
            operation.run(store)
        except Exception as error:  # noqa: BLE001  it is the task's own statement: the task hears of it
            if is_interrupted(error):
                self._doom(hold, operation, self._too_long())
                return
            operation.error = error
        if not store.is_open:
            self._doom(hold, operation, operation.error or UnavailableError("the transaction was ended"))
            return
        self._teller.tell(operation.tell)

    def _doom(self, hold: Hold, operation: Operation[Any], error: BaseException) -> None:
        """End a hold whose transaction is lost."""
        cause = self._access.translate(error) if isinstance(error, Exception) else error
        self._executor.undo(error)
        self._close(hold, cause)
        operation.error = cause
        self._teller.tell(operation.tell)

    def _finish(self, hold: Hold, operation: Operation[Any]) -> None:
        self._close(hold, None)
        if not hold.commits:
            self._access.rollback()
            self._teller.tell(operation.tell)
            return
        try:
            effects = self._access.commit()
        except Exception as error:  # noqa: BLE001  as above
            self._executor.undo(error)
            self._executor.fail([operation], error)
        else:
            self._executor.tell_done([operation], effects)

    def _close(self, hold: Hold, error: BaseException | None) -> None:
        with self._lock:
            left = hold.close(error)
        self._teller.tell_all(left, Effects())
