"""A function that is run once with the part of a service that it needs: opened before, closed after, whatever happens."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import cast, final

import attrs
import trio

from .._core.events import EventHub, StopRequested
from .._core.lifecycle import exit_status
from .._core.spec import Plan
from .._plan.part import free_id, part_of
from .._plan.script import Script
from .._supervise.kernel import ExitStatus, Result
from .._supervise.leash import OF_SIGNALS, Leash
from .guest import STOP_TIMEOUT, guest


@final
@attrs.define(eq=False, repr=False)
class ScriptRun:
    """One run of a script; `plan` is what has to be served for it."""

    script: Script
    values: Mapping[str, object]
    """Name -> argument."""
    deadline: float
    """Seconds; infinite for none."""
    plan: Plan = attrs.field(init=False)
    overran: bool = attrs.field(default=False, init=False)
    """Whether it was cancelled at its deadline."""
    leash: Leash = attrs.field(factory=lambda: Leash(STOP_TIMEOUT, ExitStatus.CUT), init=False)
    """What ends the process if it does not end after it was cancelled; for `run`."""
    _status: int | None = attrs.field(default=None, init=False)
    _reason: str = attrs.field(default="", init=False)

    @classmethod
    def of(cls, plan: Plan, script: Script, values: Mapping[str, object], *, deadline: float) -> ScriptRun:
        """Return a run of a script in the part of a plan that its parameters name."""
        self = cls(script, values, deadline)
        id_ = free_id(plan, script.name)
        worker = guest(plan, id_, self._call, drivers=script.drivers, clients=script.clients, asked=script.asked)
        self.plan = part_of(plan, script.drivers.values(), user=worker)
        return self

    def listen(self, hub: EventHub) -> None:
        """Take note of why the service stops."""
        hub.subscribe(self._note, StopRequested)

    def _note(self, event: object) -> None:
        if isinstance(event, StopRequested):
            self._reason = event.reason

    def status(self, result: Result) -> int:
        """Return the exit status, when the service has ended with a result."""
        if result.status is ExitStatus.FAILED:
            return int(result.status)
        if self.overran:
            return int(ExitStatus.CUT)
        if self._status is None:
            return OF_SIGNALS.get(self._reason, int(ExitStatus.FAILED))
        # Of what was told to end and came to its end by chance nobody may think that it was not told.
        return self._status or self.leash.status or int(result.status)

    async def _call(self, **given: object) -> None:  # noqa: ASYNC910  what it calls may be one
        args, kwargs = self.script.bound({**self.values, **given})
        call = functools.partial(self.script.function, *args, **kwargs)
        self.leash.begin(self.deadline)
        try:
            with trio.move_on_after(self.deadline) as scope:
                self._status = exit_status(await _called(call))
            self.overran = scope.cancel_called and not self.leash.told_by
        except SystemExit as error:
            self._status = exit_status(error.code) if error.code is None or isinstance(error.code, int) else 1
            if isinstance(error.code, str):
                raise
        finally:
            self.leash.end()


async def _called(call: Callable[[], object]) -> object:
    if inspect.iscoroutinefunction(inspect.unwrap(cast("functools.partial[object]", call).func)):
        return await cast("Callable[[], Awaitable[object]]", call)()
    # In a thread, so that its drivers live on; one that does not heed its end is left to end with the process.
    return await trio.to_thread.run_sync(call, abandon_on_cancel=True)
