"""A plan as a whole process: signals, the watchdog, the exit status.

SIGTERM and the first SIGINT ask for the stop; a second SIGINT skips the drain; SIGHUP has the manifest read again.
Two SIGINTs at once are one: a Ctrl-C reaches every process of a terminal, and some of them pass it on.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Final, TypeAlias, final

import attrs
import trio

from .._core.crew import ALONE, Crew
from .._core.event import Event
from .._core.events import ComponentFailed, EventHub, LoopBlocked, StopRequested
from .._core.spec import DispatcherSpec, DriverSpec, Plan, StageHook, Zone
from ..errors import UnavailableError
from .kernel import ExitStatus, Kernel, Result
from .leash import AT_ONCE, Leash
from .reload import Again
from .run import serve
from .stages import FAILED, Stages
from .switching import switching_often
from .watchdog import LastWords, Watchdog, write_last_words

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

Beside: TypeAlias = Callable[[Kernel], Awaitable[None]]
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(
    plan: Plan,
    *,
    log: FilteringBoundLogger,
    hub: EventHub | None = None,
    ends_process: bool = False,
    last_words: LastWords = write_last_words,
    beside: Beside | None = None,
    leash: Leash | None = None,
    again: Again | None = None,
    crew: Crew = ALONE,
) -> Result:
    """Run a service as this process until it ends. Call it from the main thread, outside of trio.

    Args:
        plan: What to run.
        log: Where components and the kernel itself log to.
        hub: Where events go; a new one if None.
        ends_process: Whether the process ends next. Then a late signal is ignored, since it would change how the
            process ends, and the grace period bounds that end too; else the handlers of signals are put back.
        beside: Runs beside the service, from before its first component starts; cancelled when it has ended.
        last_words: Writes why the process ends and what still runs; called in a thread.
        leash: Of what is run once; told of signals. It may end the process before the grace period is over.
        again: Where a reload has the plan from; without it, SIGHUP changes nothing.
        crew: The processes of the service, of which this is one.

    Returns:
        How it ended. If the grace period is over before everything has stopped, it does not return: what hangs is
        named and the process ends with status 3.
    """
    hub = EventHub() if hub is None else hub

    def on_stall(seconds: float, place: str) -> None:
        log.warning("the event loop is blocked", seconds=round(seconds, 1), where=place)

    def after_stall(seconds: float, place: str) -> None:
        hub.emit(LoopBlocked(component="kernel", seconds=seconds, where=place))

    watchdog = Watchdog(plan.grace_period, ExitStatus.CUT, on_stall, after_stall, last_words, leash=leash)
    hub.subscribe(lambda _event: watchdog.arm(), StopRequested)
    if again is not None:
        again = _with_grace_period(again, watchdog)
    _preload(plan)
    try:
        with _around_the_loop(plan, hub) as around, switching_often():
            if around.begins:
                around.result = trio.run(
                    _main,
                    partial(serve, plan, log=log, hub=hub, again=again, crew=crew),
                    log,
                    watchdog,
                    beside,
                    ends_process,
                    instruments=[watchdog],
                )
        return around.result
    finally:
        if not ends_process:
            watchdog.stop()


@final
@attrs.define(eq=False, repr=False)
class _Around:
    """What is around the event loop."""

    begins: bool
    """Whether there is to be one."""
    result: Result
    reason: str = FAILED
    """Of the stop."""


@contextmanager
def _around_the_loop(plan: Plan, hub: EventHub) -> Generator[_Around]:
    """Do what is to be done at `init` before, and at `exit` after what is inside; its failures become part of the result."""
    around = _Around(begins=True, result=Result(ExitStatus.FAILED, ()))
    errors: list[BaseException] = []

    def failed(hook: StageHook, error: BaseException) -> None:
        errors.append(error)
        hub.emit(ComponentFailed(component=hook.component, error=error, restart_in=None))

    def note(event: Event) -> None:
        if isinstance(event, StopRequested):
            around.reason = event.reason

    stages = Stages(plan.stages, lambda _zone, hook: [hook.owner], failed)
    if not (stages.has(Zone.PROCESS, rising=True) or stages.has(Zone.PROCESS, rising=False)):
        yield around
        return
    forget = hub.subscribe(note, StopRequested)
    try:
        around.begins = stages.rise_outside()
        yield around
    finally:
        forget()
        stages.fall_outside(around.reason)
    if errors:
        around.result = Result(ExitStatus.FAILED, (*around.result.errors, *errors))


def _with_grace_period(again: Again, watchdog: Watchdog) -> Again:
    def taken(plan: Plan) -> None:
        watchdog.grace_period = plan.grace_period
        again.taken(plan)

    return attrs.evolve(again, taken=taken)


def _preload(plan: Plan) -> None:
    """Let every plugin import what it runs with, while no event loop waits for it."""
    for spec in plan.components.values():
        if isinstance(spec, DriverSpec | DispatcherSpec):
            spec.cls.preload()


async def _main(
    serve_: Callable[..., Awaitable[Result]],
    log: FilteringBoundLogger,
    watchdog: Watchdog,
    beside: Beside | None,
    ends_process: bool,  # noqa: FBT001  trio.run passes no keywords
) -> Result:
    result: list[Result] = []

    async def serve_to_end(task_status: trio.TaskStatus[Kernel]) -> None:
        result.append(await serve_(task_status=task_status))

    watchdog.start()
    inbox = _Signals(log)
    # Before anything starts: a service that is told to stop while it starts must unwind, not die.
    with _handling(inbox, watchdog, ends_process=ends_process):
        async with trio.open_nursery() as around:
            async with trio.open_nursery() as nursery:
                kernel: Kernel = await nursery.start(serve_to_end)
                watchdog.hanging = kernel.hanging
                kernel.on_left = partial(_let_go, watchdog, kernel)
                inbox.pass_on_to(kernel)
                if beside is not None:
                    around.start_soon(beside, kernel)
            around.cancel_scope.cancel()
    return result[0]


def _let_go(watchdog: Watchdog, kernel: Kernel) -> None:
    """End the process within what is left of its stop budget: it has promised to take no longer than that."""
    watchdog.let_go(sum(wait.seconds for wait in kernel.plan.budget.waits if wait.what == "flush"))


@contextmanager
def _handling(inbox: _Signals, watchdog: Watchdog, *, ends_process: bool) -> Generator[None]:
    """Pass signals to the event loop; tell the watchdog, and who looks at the service, at once: the loop may be blocked."""
    token = trio.lowlevel.current_trio_token()

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if number != signal.SIGHUP:
            watchdog.arm()
            if watchdog.leash is not None:
                watchdog.leash.tell(number)
            inbox.foresee(number)
        token.run_sync_soon(inbox.receive, number, time.monotonic())

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            # What was not set by Python cannot be put back by it, and is None.
            signal.signal(number, signal.SIG_IGN if ends_process else handler or signal.SIG_DFL)


@final
@attrs.define(eq=False, repr=False)
class _Signals:
    """What signals mean to a service."""

    _log: FilteringBoundLogger
    _kernel: Kernel | None = attrs.field(default=None, init=False)
    _early: list[tuple[int, float]] = attrs.field(factory=list[tuple[int, float]], init=False)
    _interrupted_at: float = attrs.field(default=math.inf, init=False)
    """When the first SIGINT came, in `time.monotonic()`."""

    def pass_on_to(self, kernel: Kernel) -> None:
        self._kernel = kernel
        for number, at in self._early:
            self.receive(number, at)

    def foresee(self, number: int) -> None:
        """Take note of a signal that ends the service, in its handler."""
        if self._kernel is not None:
            self._kernel.foresee_stop(signal.Signals(number).name)

    def receive(self, number: int, at: float) -> None:
        if self._kernel is None:
            self._early.append((number, at))
        elif number == signal.SIGHUP:
            self._reload(self._kernel)
        elif number == signal.SIGINT and at - self._interrupted_at >= AT_ONCE:
            self._log.warning("SIGINT again: skipping the drain")
            self._kernel.hasten()
        else:
            if number == signal.SIGINT:
                self._interrupted_at = min(at, self._interrupted_at)
            self._kernel.request_stop(signal.Signals(number).name)

    def _reload(self, kernel: Kernel) -> None:
        try:
            kernel.request_reload()
        except (UnavailableError, ValueError) as error:
            self._log.warning(f"SIGHUP changes nothing: {error}")
