"""What holds for every tree, whatever fails and whenever it is stopped."""

from __future__ import annotations

import math

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from kernel._core.lifecycle import FINAL, USABLE
from kernel._core.policies import Restart, RestartHistory, RestartPolicy
from kernel._core.spec import ComponentSpec, Strategy
from kernel._plan.graph import stop_budget
from kernel._supervise.child import Child, Group
from kernel._supervise.life import Life
from kernel.errors import StartupError

from ._stage import Script, Stage


@attrs.frozen
class Part:
    """One child of a drawn tree, by its number."""

    uses: frozenset[int]
    after: frozenset[int]
    group: int | None
    lives: tuple[Script, ...]
    restart: RestartPolicy
    essential: bool
    accepts: bool
    stop_timeout: float


@attrs.define(eq=False)
class Forest(Stage):
    """A stage that watches, at each start and end of a life, what must hold."""

    inside: set[str] = attrs.field(factory=set)
    broken: list[str] = attrs.field(factory=list)

    async def _live(self, name: str, life: Life) -> None:
        child = self.supervisor.children[name]
        self._expect(child, not child.retired, "started after it was retired")
        for other in below(child):
            self._expect(child, other.state in USABLE, f"started while {other.id} was {other.state.value}")
            self._expect(child, other.value == other.id, f"started without what {other.id} offers")
        self.inside.add(name)
        try:
            await super()._live(name, life)
        finally:
            for user in child.users:
                self._expect(child, user.is_down, f"gone before {user.id}, which uses it")
            self.inside.discard(name)

    async def _before_closing(self, name: str, life: Life) -> None:
        if not life.stopping:  # as a driver does that breaks by itself: its users go first
            with trio.CancelScope(shield=True):
                await self.supervisor.stop_users(self.supervisor.children[name])

    def _expect(self, child: Child, holds: bool, otherwise: str) -> None:
        if not holds:
            self.broken.append(f"{child.id} {otherwise} at {trio.current_time()}")


def below(child: Child) -> list[Child]:
    """What a child uses, directly or not, and has not ended for good."""
    found: dict[Child, None] = {}
    todo = [child]
    while todo:
        new = [other for other in todo.pop().uses if other.state not in FINAL]
        found |= dict.fromkeys(new)
        todo += new
    return list(found)


seconds = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 7.0])
# Most lives are of a kind that lets those above them live as well.
scripts = st.builds(
    Script,
    opening=st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.25, 1.0, math.inf]),
    fails_to_open=st.sampled_from([None] * 12 + [ValueError("open"), StartupError("config")]),
    lasts=st.just(math.inf) | seconds,
    raises=st.sampled_from([ValueError("work"), ValueError("work"), None]),
    in_flight=seconds,
    closing=st.sampled_from([0.0, 0.0, 0.25, 1.0, 60.0]),
    stubborn=st.booleans(),
    fails_to_close=st.sampled_from([None, None, None, ValueError("close")]),
)
policies = st.builds(
    RestartPolicy,
    policy=st.sampled_from([Restart.ALWAYS, *Restart]),
    max_restarts=st.sampled_from([0, 2, 4, 100]),
    window=st.sampled_from([1.0, 5.0, 30.0]),
    backoff_initial=seconds,
    backoff_max=st.just(4.0),
)


@st.composite
def parts(draw: st.DrawFn) -> list[Part]:
    size = draw(st.integers(1, 4) | st.integers(4, 7))
    found: list[Part] = []
    for number in range(size):
        before = st.sets(st.integers(0, number - 1), max_size=3) if number else st.just(set())
        # Drivers are in no group, and workers, which may be, are used by nobody: the manifest knows no other way.
        grouped = draw(st.sampled_from([None, None, None, None, None, 0, 1]))
        ungrouped = {one for one in range(number) if found[one].group is None}
        found.append(
            Part(
                uses=frozenset(draw(before | st.just({number - 1} - {-1}))) & ungrouped,
                after=frozenset(draw(before)),
                group=grouped,
                lives=tuple(draw(st.lists(scripts, min_size=1, max_size=3))),
                restart=draw(policies),
                essential=draw(st.booleans()),
                accepts=draw(st.booleans()),
                stop_timeout=draw(st.sampled_from([0.5, 1.0, 4.0])),
            )
        )
    return found


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(
    drawn=parts(),
    strategies=st.tuples(st.sampled_from(Strategy), st.sampled_from(Strategy)),
    limit=policies,
    stop_at=st.sampled_from([0.0, 0.6, 1.0, 1.7, 3.1, 5.0, 12.0, 30.0]),
    drain=seconds,
)
def test_every_tree_keeps_its_promises(
    drawn: list[Part], strategies: tuple[Strategy, Strategy], limit: RestartPolicy, stop_at: float, drain: float
) -> None:
    forest, bound = plant(drawn, strategies, limit, drain)

    took = trio.run(live_and_stop, forest, stop_at, drain, clock=MockClock(autojump_threshold=0))

    assert forest.broken == []
    assert took <= bound + 1e-6
    assert [child.id for child in forest.supervisor.children.values() if child.state not in FINAL] == []
    assert forest.inside == set()
    assert all(
        child.life is None and child.task is None and child.held == 0 for child in forest.supervisor.children.values()
    )


def plant(
    drawn: list[Part], strategies: tuple[Strategy, Strategy], limit: RestartPolicy, drain: float
) -> tuple[Forest, float]:
    """Build the children, and return with them the seconds that a stop may take."""
    forest = Forest()
    groups = [Group(strategy, RestartHistory(limit, lambda: 0.0)) for strategy in strategies]
    children: list[Child] = []
    specs: dict[str, ComponentSpec] = {}
    for number, part in enumerate(drawn):
        group = None if part.group is None else groups[part.group]
        after = [children[one] for one in part.after] + ([] if group is None else group.members[-1:])
        uses = [children[one] for one in part.uses]
        children.append(
            forest.add(
                f"c{number}",
                *part.lives,
                uses=uses,
                after=after,
                restart=part.restart,
                group=group,
                start_timeout=2.5,
                essential=part.essential,
                accepts=part.accepts,
                stop_timeout=part.stop_timeout,
            )
        )
        specs[f"c{number}"] = ComponentSpec(
            id=f"c{number}",
            name="",
            where="",
            stop_timeout=part.stop_timeout,
            uses=tuple(one.id for one in uses),
            after=tuple(one.id for one in after),
        )
    budget = stop_budget(specs, drain_timeout=drain, grace_period=1e9)
    return forest, budget.seconds - budget.waits[-1].seconds


async def live_and_stop(forest: Forest, stop_at: float, drain: float) -> float:
    """Run until the time, or until an essential child fails; return how long the stop took."""
    stop = trio.Event()
    forest.supervisor.on_failure = lambda child: stop.set()
    async with trio.open_nursery() as nursery:
        forest.supervisor.start(nursery)
        with trio.move_on_after(stop_at):
            await stop.wait()
        began = trio.current_time()
        with trio.fail_after(1000):
            await forest.supervisor.stop(drain_until=began + drain)
        return trio.current_time() - began
