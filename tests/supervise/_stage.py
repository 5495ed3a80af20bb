"""A supervisor whose children live scripted lives in virtual time, and a record of what happened when."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar, final

import attrs
import trio

from kernel._core.events import ComponentFailed, Event, EventHub, StateChanged, StopTimedOut
from kernel._core.lifecycle import TRANSITIONS, State
from kernel._core.policies import Restart, RestartHistory, RestartPolicy
from kernel._core.spec import Strategy
from kernel._supervise.child import Child, Group
from kernel._supervise.life import Life
from kernel._supervise.supervisor import Supervisor

ALWAYS, ON_FAILURE, NEVER = Restart.ALWAYS, Restart.ON_FAILURE, Restart.NEVER
EventT = TypeVar("EventT", bound=Event)


@final
@attrs.frozen(kw_only=True)
class Script:
    """What one life does."""

    opening: float = 0.0
    """Seconds until it is ready; without end it never is."""
    fails_to_open: BaseException | None = None
    lasts: float = math.inf
    """Seconds from ready to its own end."""
    raises: BaseException | None = None
    """How it ends then; it returns if None."""
    in_flight: float = 0.0
    """Seconds that it drains for, if it may."""
    closing: float = 0.0
    """Seconds between its end and the last of it."""
    stubborn: bool = False
    """Whether cancellation does not interrupt its opening and closing (unless they are without end)."""
    fails_to_close: BaseException | None = None


def fails(after: float = 1.0, error: BaseException | None = None, **more: object) -> Script:
    return Script(lasts=after, raises=error or ValueError("broken"), **more)


def returns(after: float = 1.0) -> Script:
    return Script(lasts=after)


def policy(restart: Restart = ALWAYS, **more: object) -> RestartPolicy:
    """A policy that waits one second and never grows tired, unless told."""
    return RestartPolicy(
        **{"policy": restart, "max_restarts": 1000, "backoff_initial": 1.0, "backoff_factor": 1.0, "jitter": 0.0} | more
    )


@final
@attrs.define(eq=False)
class Stage:
    """Children by id, and what they did."""

    supervisor: Supervisor = attrs.field(init=False)
    hub: EventHub = attrs.field(factory=EventHub)
    events: list[Event] = attrs.field(factory=list)
    timed: list[tuple[float, Event]] = attrs.field(factory=list)
    diary: list[tuple[float, str]] = attrs.field(factory=list)
    """`+id` when a child is ready, `-id` when the last of a life that had been is gone; with the time."""
    given_up: list[str] = attrs.field(factory=list)
    """Ids that `on_failure` was called with."""
    finished: trio.Event = attrs.field(factory=trio.Event)
    ready_at: list[float] = attrs.field(factory=list)
    """Whenever `on_ready` was called."""
    scripts: dict[str, list[Script]] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.supervisor = Supervisor(
            self.hub, lambda child: self.given_up.append(child.id), self.finished.set, self._ready
        )
        self.hub.subscribe(self._record)

    def _ready(self) -> None:
        self.ready_at.append(trio.current_time())

    def _record(self, event: Event) -> None:
        self.events.append(event)
        self.timed.append((trio.current_time(), event))
        if isinstance(event, StateChanged):
            assert event.new in TRANSITIONS[event.old]
            assert self.supervisor.children[event.component].state is event.new

    def add(
        self,
        name: str,
        *lives: Script,
        uses: Iterable[Child] = (),
        after: Iterable[Child] = (),
        restart: RestartPolicy | None = None,
        **more: object,
    ) -> Child:
        """Add a child that lives these lives, and then the last one again and again."""
        restart = restart or policy()
        self.scripts[name] = list(lives or (Script(),))
        child = Child(
            id=name,
            body=lambda life: self._live(name, life),
            policy=restart,
            history=RestartHistory(restart, lambda: 0.0),
            **more,
        )
        child.depends_on(uses=uses, after=after)
        return self.supervisor.add(child)

    def add_group(
        self, strategy: Strategy, *names: str, restart: RestartPolicy | None = None, **lives: Script | list[Script]
    ) -> list[Child]:
        """Add a group whose members start in the order of the names, as the plan has it."""
        group = Group(strategy, RestartHistory(restart or policy(), lambda: 0.0))
        for name in names:
            scripts = lives.get(name, Script())
            lives_of = scripts if isinstance(scripts, list) else [scripts]
            self.add(name, *lives_of, after=group.members[-1:], group=group)
        return group.members

    @asynccontextmanager
    async def running(self, *, drain: float = 0.0) -> AsyncGenerator[Supervisor]:
        """Run the children while inside, then stop them with so many seconds to drain."""
        async with trio.open_nursery() as nursery:
            self.supervisor.start(nursery)
            yield self.supervisor
            await self.supervisor.stop(drain_until=trio.current_time() + drain)
            nursery.cancel_scope.cancel()

    @property
    def log(self) -> str:
        """What became ready and ended, in order, such as `+db +web -web -db`."""
        return " ".join(entry for _, entry in self.diary)

    def log_of(self, *names: str) -> str:
        """Return the log without other children than these."""
        return " ".join(entry for _, entry in self.diary if entry[1:] in names)

    def at(self, entry: str) -> list[float]:
        """Return the times of an entry of the diary."""
        return [time for time, one in self.diary if one == entry]

    def states(self, name: str) -> list[State]:
        return [event.new for event in self.of(StateChanged) if event.component == name]

    def failures(self, name: str) -> list[BaseException]:
        return [event.error for event in self.of(ComponentFailed) if event.component == name]

    def left_behind(self) -> list[str]:
        return [event.component for event in self.of(StopTimedOut)]

    def of(self, kind: type[EventT]) -> list[EventT]:
        return [event for event in self.events if isinstance(event, kind)]

    def _note(self, entry: str) -> None:
        self.diary.append((trio.current_time(), entry))

    async def _live(self, name: str, life: Life) -> None:
        scripts = self.scripts[name]
        script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
        with trio.CancelScope(shield=script.stubborn and script.opening < math.inf):
            await trio.sleep(script.opening)
        if script.fails_to_open is not None:
            raise script.fails_to_open
        life.started(name)
        self._note(f"+{name}")
        try:
            await self._work(name, script, life)
        finally:
            try:
                with trio.CancelScope(shield=script.stubborn and script.closing < math.inf):
                    await trio.sleep(script.closing)
            finally:
                self._note(f"-{name}")
            if script.fails_to_close is not None:
                raise script.fails_to_close

    async def _work(self, name: str, script: Script, life: Life) -> None:
        try:
            with life.inner:
                await self._last(script)
            if self.supervisor.children[name].accepts:
                with life.drain:
                    await trio.sleep(script.in_flight)
                life.cut = life.drain.cancelled_caught and script.in_flight > 0
        except BaseException as error:
            life.note(error)
            raise
        finally:
            await self._before_closing(name, life)
            life.drained()

    async def _before_closing(self, name: str, life: Life) -> None:
        """Do what a kind of component does when it has ended, and before it closes."""

    async def _last(self, script: Script) -> None:
        await trio.sleep(script.lasts)
        if script.raises is not None:
            raise script.raises
