"""A function that is run once with the part of a service that it needs: opened before, closed after, whatever happens."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, cast, final

import attrs
import trio

from .._core.events import EventHub, StopRequested
from .._core.lifecycle import exit_status
from .._core.spec import Plan
from .._plan.part import free_id, part_of
from .._plan.script import Script
from .._supervise.run import ExitStatus, Result
from .guest import guest

OF_SIGNALS: Final[Mapping[str, int]] = {"SIGINT": 130, "SIGTERM": 143}
"""Why a service stops -> the exit status, as shells have it."""


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
    _status: int | None = attrs.field(default=None, init=False)
    _reason: str = attrs.field(default="", init=False)

    @classmethod
    def of(cls, plan: Plan, script: Script, values: Mapping[str, object], *, deadline: float) -> ScriptRun:
        """Return a run of a script in the part of a plan that its parameters name."""
        self = cls(script, values, deadline)
        id_ = free_id(plan, script.name)
        worker = guest(plan, id_, self._call, drivers=script.drivers, asked=script.asked)
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
        return self._status or int(result.status)

    async def _call(self, **given: object) -> None:  # noqa: ASYNC910  what it calls may be one
        args, kwargs = self.script.bound({**self.values, **given})
        call = functools.partial(self.script.function, *args, **kwargs)
        try:
            with trio.move_on_after(self.deadline) as scope:
                self._status = exit_status(await _called(call))
            self.overran = scope.cancelled_caught
        except SystemExit as error:
            self._status = exit_status(error.code) if error.code is None or isinstance(error.code, int) else 1
            if isinstance(error.code, str):
                raise


async def _called(call: Callable[[], object]) -> object:
    if inspect.iscoroutinefunction(inspect.unwrap(cast("functools.partial[object]", call).func)):
        return await cast("Callable[[], Awaitable[object]]", call)()
    # In a thread, so that its drivers live on; one that does not heed its end is left to end with the process.
    return await trio.to_thread.run_sync(call, abandon_on_cancel=True)
