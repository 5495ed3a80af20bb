"""Calls handlers in processes."""

from __future__ import annotations

import functools
import logging
import math
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, cast, final

import attrs
import trio
import trio_parallel  # pyright: ignore[reportMissingTypeStubs]  it has none
from typing_extensions import override

from kernel import Envelope, Return
from kernel.abc import Context, Executor, PlainWorker
from kernel.errors import DeliveryError

from . import _child
from ._errors import NotSerializableError, ProcessDiedError
from ._places import Places
from ._telling import note_deadline, told


@final
@attrs.define(eq=False, repr=False)
class ProcessPool(Executor):
    """Processes of this machine: for what takes the CPU, or may crash. A call that is cancelled is killed with its process.

    An object of a worker's class is made in each process when it is first called there, from the worker's `config`.
    """

    crosses_processes: ClassVar[bool] = True

    _context: Context
    _places: Places
    _processes: Any
    """A context of trio-parallel, which has no types."""
    _unbounded: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(math.inf), init=False)
    """For a library that wants a limit of its own, where places are the limit."""

    @override
    async def call(
        self, worker: PlainWorker, method: str, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> object:
        since = trio.current_time()
        if not await self._places.take(worker.id):
            return Return()
        try:
            with told(self._context, worker.id, since=since):
                return self._read(worker, await self._send(worker, method, args, kwargs))
        finally:
            self._places.leave()

    async def _send(
        self, worker: PlainWorker, method: str, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> _child.Answer:
        order: _child.Order = (
            worker.use,
            worker.is_function,
            worker.arguments,
            method,
            [_plain(value) for value in args],
            {name: _plain(value) for name, value in kwargs.items()},
            note_deadline(),
        )
        try:
            data = pickle.dumps(order, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise NotSerializableError(
                f"{worker.id} cannot be given what is for it in another process: {error}"
            ) from error
        return cast("_child.Answer", pickle.loads(await self._exchange(worker, data)))  # a process of ours wrote it

    async def _exchange(self, worker: PlainWorker, data: bytes) -> bytes:
        try:
            return cast(
                "bytes",
                await self._processes.run_sync(_child.perform, data, kill_on_cancel=True, limiter=self._unbounded),
            )
        except trio_parallel.BrokenWorkerError as error:
            how = _how(error)
        # Not inside `except`: the error would keep the process and its pipes for as long as somebody keeps this one.
        raise ProcessDiedError(f"the process died that called {worker.id}: {how}")

    def _read(self, worker: PlainWorker, answer: _child.Answer) -> object:
        for name, level, text in answer.records:
            logging.getLogger(name).log(level, "%s", text)
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


def _plain(value: object) -> object:
    """Return what can be pickled in place of an envelope, whose headers are shared and cannot be changed."""
    return attrs.evolve(value, headers=dict(value.headers)) if isinstance(value, Envelope) else value


def _how(error: BaseException) -> str:
    """Return how a process has ended, as far as is known."""
    process = error.args[-1] if error.args else None
    code = getattr(process, "exitcode", None)
    if code is None:
        return "it is not known how"
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


open_processes: Final = functools.partial(cast("Any", trio_parallel).open_worker_context)
