"""Calls handlers in processes."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeAlias, final

import attrs
import trio
from typing_extensions import override

from kernel import Envelope, Return
from kernel.abc import Context, Executor, PlainWorker, untimed
from kernel.errors import DeliveryError

from . import _child, _crossing
from ._answers import answer_of
from ._children import Children
from ._errors import NotSerializableError, ProcessDiedError
from ._places import Places
from ._process import DiedError, EndedError, Process
from ._telling import note_deadline, told

_Call: TypeAlias = tuple[str, Sequence[object], Mapping[str, object]]
"""The method, and what it is given by position and by name."""


@final
@attrs.define(eq=False, repr=False)
class ProcessPool(Executor):
    """Processes of this machine: for what takes the CPU, or may crash. A call that is cancelled is killed with its process.

    An object of a worker's class is made in each process before it is first called there, from the worker's `config`.
    """

    crosses_processes: ClassVar[bool] = True

    _context: Context
    _places: Places
    _children: Children

    @classmethod
    @override
    def refusal(cls, worker: PlainWorker) -> str:
        where = "cannot go to another process, where runs_in calls its handlers"
        if why := _crossing.refusal(worker.use):
            return f"{where}: {why}"
        why = _crossing.refusal(dict(worker.arguments))
        return f"has a config that {where}: {why}" if why else ""

    @override
    async def call(
        self, worker: PlainWorker, method: str, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> object:
        since = trio.current_time()
        with untimed():
            if not await self._places.take(worker.id):
                return Return()
        try:
            process = await self._ready(worker)
            if process is None:
                return Return()
            with told(self._context, worker.id, since=since):
                answer = await self._ask(process, worker, (method, args, kwargs))
                return Return() if answer is None else self._read(worker, answer)
        finally:
            self._places.leave()

    async def _ready(self, worker: PlainWorker) -> Process | None:
        """Wait for a process that is ready; that is no time of the handler's."""
        with untimed():
            return await self._children.take(worker)

    async def _ask(self, process: Process | None, worker: PlainWorker, call: _Call) -> _child.Answer | None:
        """Make a call; None if it was not begun, since no process is ready any more."""
        while process is not None:
            try:
                data = await process.ask(_child.perform, _order(worker, *call))
                process.calls += 1
                return answer_of(data)
            except DiedError as died:
                raise ProcessDiedError(f"the process died that called {worker.id}: {died}") from None
            except EndedError:  # while it was idle
                pass
            finally:
                self._children.give_back(process)
            process = await self._ready(worker)
        return None  # noqa: ASYNC910  it has waited

    def _read(self, worker: PlainWorker, answer: _child.Answer) -> object:
        if answer.unwritable and answer.trace:
            raise DeliveryError(f"{worker.id} raised what cannot leave its process: {answer.unwritable}")
        if answer.unwritable:
            raise NotSerializableError(f"what {worker.id} returned cannot leave its process: {answer.unwritable}")
        if answer.error is not None:
            answer.error.add_note(f"in a process of {self._context.id}:\n{answer.trace}")
            raise answer.error
        return answer.result

    @override
    def drain(self, worker: str) -> None:
        self._places.drain(worker)

    @override
    def resume(self, worker: str) -> None:
        self._places.resume(worker)


def _order(worker: PlainWorker, method: str, args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
    """Return a call as bytes.

    Raises:
        NotSerializableError: if what is given cannot be.
    """
    order: _child.Order = (
        worker.id,
        method,
        [_plain(value) for value in args],
        {name: _plain(value) for name, value in kwargs.items()},
        note_deadline(),
    )
    try:
        return pickle.dumps(order, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        text = f"{worker.id} cannot be given what is for it in another process: {error}"
        raise NotSerializableError(text) from error


def _plain(value: object) -> object:
    """Return what can be pickled in place of an envelope, whose headers are shared and cannot be changed."""
    return attrs.evolve(value, headers=dict(value.headers)) if isinstance(value, Envelope) else value
