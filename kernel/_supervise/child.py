"""What the supervisor knows of one child, and what follows from that alone.

Nothing here moves a child or ends a life: `supervisor` does.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias, assert_never, cast, final

import attrs
import trio

from .._core.lifecycle import ALIVE, FINAL, USABLE, State
from .._core.policies import Ending, RestartHistory, RestartPolicy
from .._core.spec import Strategy
from .._delivery.failure import Mask, describe
from .._delivery.judge import passing
from ..errors import DependencyError, LeftBehindError, RestartLimitError, StartupError
from .life import Life
from .unit import Unit

Body: TypeAlias = Callable[[Life], Awaitable[None]]
"""Lives one life: opens, calls `life.started(value)`, does its work inside `life.inner`, closes."""


@final
@attrs.define(eq=False, repr=False)
class Group:
    """Children that belong together."""

    strategy: Strategy
    history: RestartHistory
    members: list[Child] = attrs.field(factory=list["Child"], init=False)
    """In start order; each comes `after` the one before it."""
    failed: bool = attrs.field(default=False, init=False)
    """Whether its members were restarted too often, so that none starts again."""

    def followers(self, child: Child) -> list[Child]:
        """Return the members that restart with `child`."""
        match self.strategy:
            case Strategy.ONE_FOR_ONE:
                return []
            case Strategy.ONE_FOR_ALL:
                return [member for member in self.members if member is not child]
            case Strategy.REST_FOR_ONE:
                return self.members[self.members.index(child) + 1 :]
            case _:
                assert_never(self.strategy)


@final
@attrs.define(eq=False, repr=False)
class Child:
    """One supervised component."""

    id: str
    body: Body
    policy: RestartPolicy
    history: RestartHistory
    essential: bool = True
    start_timeout: float = 30.0
    stop_timeout: float = 2.0
    accepts: bool = False
    """Whether its `inner` brings in work from outside, and so is the first thing that a stop cancels."""
    resident: bool = False
    """Whether it is there for others only, so that the service has ended when all that are not have."""
    withhold: Callable[[object], Awaitable[None] | None] | None = None
    """Has the object that lives it given no new work; returns what waits until that has finished what it has, if it has
    any."""
    mask: Mask = str
    """Takes the secrets of the manifest out of a text, before it is cut."""
    group: Group | None = None
    units: tuple[Unit[Child], ...] = ()
    """The services inside the service that it belongs to, from the innermost out."""
    uses: list[Child] = attrs.field(factory=list["Child"], init=False)
    after: list[Child] = attrs.field(factory=list["Child"], init=False)
    users: list[Child] = attrs.field(factory=list["Child"], init=False)
    followers: list[Child] = attrs.field(factory=list["Child"], init=False)
    """Those that use it or come after it."""
    state: State = attrs.field(default=State.CREATED, init=False)
    value: object = attrs.field(default=None, init=False)
    """What `started` was given."""
    life: Life | None = attrs.field(default=None, init=False)
    task: trio.lowlevel.Task | None = attrs.field(default=None, init=False)
    retired: bool = attrs.field(default=False, init=False)
    """Whether it must not start again."""
    held: int = attrs.field(default=0, init=False)
    """How many restarts and stops of others are under way that it must not start in."""
    left_behind: bool = attrs.field(default=False, init=False)
    degraded: str | None = attrs.field(default=None, init=False)
    """Why it is degraded from the moment it is ready on; None if it is not."""
    starts_at: float = attrs.field(default=-math.inf, init=False)
    """Until when it waits to be started again."""
    hurried: bool = attrs.field(default=False, init=False)
    """Whether somebody asked for it to start at once."""
    ready_for: float = attrs.field(default=0.0, init=False)
    """Seconds that its last life was ready."""
    reason: str = attrs.field(default="", init=False)
    """Why it is in its state."""
    moved_at: float = attrs.field(
        factory=lambda: trio.current_time() if trio.lowlevel.in_trio_run() else 0.0, init=False
    )
    lives: int = attrs.field(default=0, init=False)
    error: BaseException | None = attrs.field(default=None, init=False)
    """What its last life that failed ended in."""
    changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def __repr__(self) -> str:
        return f"<Child {self.id}: {self.state.value}>"

    @property
    def is_given_up(self) -> bool:
        """Whether its group has failed, or the service inside that it belongs to."""
        return (self.group is not None and self.group.failed) or any(unit.failed for unit in self.units)

    @property
    def escalates(self) -> bool:
        """Whether its failure is the failure of the service. A group fails as a whole."""
        return self.essential or (
            self.group is not None and self.group.failed and any(one.essential for one in self.group.members)
        )

    @property
    def is_down(self) -> bool:
        """Whether it holds nothing, or nobody waits for it any more."""
        return self.life is None or self.left_behind

    def depends_on(self, *, uses: Iterable[Child] = (), after: Iterable[Child] = ()) -> None:
        """Say what must be up before it starts; both ways of depending give an order, only `uses` a restart."""
        self.uses.extend(uses)
        self.after.extend(after)
        for other in self.uses:
            other.users.append(self)
        for other in (*self.uses, *self.after):
            other.followers.append(self)

    def detach(self) -> None:
        """Forget what it depends on and what depends on it, to be told anew; whoever waits for that goes on waiting."""
        # New lists: a keeper may be looking through those that there were.
        self.uses, self.after, self.users, self.followers = [], [], [], []

    def forget_restarts(self) -> None:
        """Begin a new row of restarts, also of its group."""
        self.history.forget()
        if self.group is not None:
            self.group.history.forget()

    def retire(self) -> None:
        """Keep it from starting again."""
        self.retired = True
        self.changed.unpark_all()


def serves(child: Child) -> bool:
    """Whether others may use the child, or need not because its work is done."""
    return child.state in USABLE or child.state is State.STOPPED


def is_free_to_start(child: Child) -> bool:
    """Whether all that the child waits for is up, and nobody holds it down."""
    return child.held == 0 and next(obstacles(child), None) is None


def obstacles(child: Child) -> Iterator[Child]:
    """Yield what the child waits for, one at a time, each as often as it is asked for while it is not up.

    So a child that comes after thousands is not compared with all of them whenever one gets ready. Those passed
    are not looked at again, and may have gone down since. It is at its end, too, when the child was told anew what
    it depends on: what had failed for good, and was replaced by a reload, is never up again.
    """
    uses, after = child.uses, child.after
    for other in uses:
        while child.uses is uses and not serves(other):
            yield other
    for other in _comes_after(child):
        while child.after is after and other.state not in USABLE and other.state not in FINAL:
            yield other


def obstacles_of(child: Child) -> Iterator[Child]:
    """Yield what a child waits for directly: to start, or to close."""
    if child.state in {State.CREATED, State.BACKOFF} and not child.retired:
        yield from (one for one in child.uses if not serves(one))
        yield from (one for one in child.after if not serves(one) and one.state not in FINAL)
    elif child.state in ALIVE and child.life is not None and child.life.recalled:
        yield from (one for one in child.followers if not one.is_down)


def _comes_after(child: Child) -> list[Child]:
    """Return what has to be up before it; one that has ended for good leaves its place to those before it."""
    return _reach(child, child.after, lambda one: (*one.uses, *one.after) if one.state in FINAL else ())


def standing_on(child: Child) -> list[Child]:
    """Return the children that stop before `child`: those that use it or come after it, and theirs in turn."""
    return _reach(child, [child], lambda one: one.followers)


def affected(child: Child) -> list[Child]:
    """Return the children that restart with `child`, besides it: its users and its group's, and theirs in turn."""
    return _reach(child, [child], lambda one: (*one.users, *(() if one.group is None else one.group.followers(one))))


def lost_with(child: Child) -> list[Child]:
    """Return the children that end when `child` has failed, besides it: its users, and what it is of that failed."""
    roots = child.group.members if child.group is not None and child.group.failed else [child]
    for unit in child.units:
        roots = unit.members if unit.failed else roots
    return _reach(child, roots, lambda one: one.users)


def _reach(child: Child, roots: Iterable[Child], following: Callable[[Child], Iterable[Child]]) -> list[Child]:
    found = dict.fromkeys(roots)
    todo = list(found)
    while todo:
        new = [other for other in following(todo.pop()) if other not in found]
        found |= dict.fromkeys(new)
        todo += new
    return [one for one in found if one is not child]


def failing_with(child: Child, *, with_group: bool) -> Iterator[Unit[Child]]:
    """Yield the units that fail if a child does for good, from the innermost out, up to one that is not essential.

    Args:
        child: Which.
        with_group: Whether its group fails with it.
    """
    failing = child.group.members if with_group and child.group is not None else [child]
    for unit in child.units:
        if unit.vital.isdisjoint(failing):
            return
        yield unit
        if not unit.essential:
            return


def ending(child: Child, life: Life, error: BaseException | None) -> Ending:
    """Say how a life that is over ended."""
    if child.retired:
        return Ending.RETIRED
    if life.recalled:
        return Ending.RECALLED
    if error is not None:
        return Ending.REFUSED if is_final(error) else Ending.RAISED
    if life.whole.cancelled_caught:
        return Ending.RAISED if life.is_ready or life.whole.deadline < life.start.deadline else Ending.NOT_READY
    return Ending.RETURNED


def parted(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Return what of an exception is a component's own, and what ends its task or the program."""
    passes = passing(error)
    if not passes:
        return error, None
    if not isinstance(error, BaseExceptionGroup):
        return None, error
    group = cast("BaseExceptionGroup[BaseException]", error)
    others, own = group.split(lambda leaf: any(leaf is one for one in passes))
    return own, others


def is_final(error: BaseException) -> bool:
    """Whether an error says itself that another life would end as this one did, or cannot be."""
    kinds = (StartupError, DependencyError, LeftBehindError)
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).subgroup(kinds) is not None
    return isinstance(error, kinds)


def cause(child: Child, how: Ending) -> BaseException:
    """Return the error that an ending is if the component raised none."""
    match how:
        case Ending.NOT_READY:
            why = f": {child.degraded}" if child.degraded else ""
            return TimeoutError(f"{child.id} was not ready within start_timeout = {child.start_timeout:g} s{why}")
        case Ending.RAISED:
            return TimeoutError(f"{child.id} did not close within stop_timeout = {child.stop_timeout:g} s")
        case _:
            policy = f"its restart policy is {child.policy.policy.value}"
            advice = 'write restart.policy = "on_failure" if it may, oneshot or main = true if it is done once'
            return RuntimeError(f"{child.id} returned, and {policy}: {advice}")


def healthy_for(child: Child) -> float:
    """Return for how many seconds a child that has just ended was ready, and with it all that belong to its group."""
    now, others = trio.current_time(), [] if child.group is None else child.group.members
    lives = [other.life for other in others if other is not child and other.state not in FINAL]
    return min([child.ready_for, *(0.0 if life is None else max(0.0, now - life.ready_at) for life in lives)])


def worn_out(child: Child, limit: RestartPolicy, last: BaseException) -> RestartLimitError:
    """Return the error that it is for a component to have been restarted too often."""
    error = RestartLimitError(
        child.id, max_restarts=limit.max_restarts, window=limit.window, last=describe(last, child.mask)
    )
    error.__cause__ = last
    return error


def left_behind(child: Child, life: Life, place: str) -> LeftBehindError:
    """Return the error that it is for a component to be left behind at a place while others go on."""
    last = "" if life.error is None else describe(life.error, child.mask)
    error = LeftBehindError(child.id, stop_timeout=child.stop_timeout, where=place, last=last)
    error.__cause__ = life.error
    return error


@contextmanager
def holding(children: Collection[Child]) -> Generator[None]:
    """Keep children that are down from starting."""
    for child in children:
        child.held += 1
    try:
        yield
    finally:
        for child in children:
            child.held -= 1
            child.changed.unpark_all()


async def sleep_unless_retired(child: Child, seconds: float) -> None:
    """Wait, but not when the child must not start again, or somebody asked for it to start at once.

    Cancellation: Is a checkpoint.
    """
    await trio.lowlevel.checkpoint()
    child.starts_at, child.hurried = trio.current_time() + seconds, False
    with trio.move_on_at(child.starts_at):
        while not (child.retired or child.hurried):
            await child.changed.park()
    child.starts_at = -math.inf


def restarted_whole(child: Child, error: BaseException, *, with_group: bool) -> tuple[Unit[Child], float] | None:
    """Return which service inside is started again in place of a child's failure for good, and after how many seconds."""
    if not child.units or child.retired or child.left_behind or is_final(error):
        return None
    for unit in failing_with(child, with_group=with_group):
        wait = 0.0 if unit.restarting else unit.next_wait()
        if wait is not None:
            return unit, wait
    return None
