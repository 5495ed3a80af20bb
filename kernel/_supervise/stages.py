"""What components do at the stages of a service, on its way up and on its way down.

On the way up the first failure ends the way. On the way down everything goes on, and a component takes part in a stage
if it has done all that it had to do on the way up in the same zone: so what was done is undone, and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, cast, final

import attrs
import trio

from .._core.spec import Direction, StageHook, StageSpec, Zone


@final
@attrs.define(eq=False, repr=False)
class Stages:
    """The stages of one run of a service."""

    specs: Sequence[StageSpec]
    objects: Callable[[Zone, StageHook], Sequence[object]]
    """Returns what a hook is called on in a zone: nothing if its component is not up."""
    failed: Callable[[StageHook, BaseException], None]
    """Is told of everything that is raised, and of what was not over in time."""
    _todo: set[tuple[Zone, str, str, str]] = attrs.field(init=False)
    """Zone, component, stage and method of what is to be done on the way up, and was not yet."""

    def __attrs_post_init__(self) -> None:
        """Everything is still to be done."""
        self._todo = self._rising_of(None)

    def renew(self, specs: Sequence[StageSpec], components: Collection[str]) -> None:
        """Have other stages from now on.

        Args:
            specs: All.
            components: Ids of those that have done nothing yet; the others have done what they have.
        """
        self.specs = specs
        known = {hook.component for spec in specs for hook in spec.hooks}
        left = {one for one in self._todo if one[1] in known and one[1] not in components}
        self._todo = left | self._rising_of(components)

    def _rising_of(self, components: Collection[str] | None) -> set[tuple[Zone, str, str, str]]:
        return {
            (spec.zone, hook.component, spec.name, hook.method)
            for spec in self.specs
            if spec.is_rising
            for hook in spec.hooks
            if components is None or hook.component in components
        }

    def has(self, zone: Zone, *, rising: bool, only: Collection[str] | None = None) -> bool:
        """Return whether anything is to be done in a zone on a way; by some components, if those are named."""
        return any(_of(spec.hooks, only) for spec in self._in(zone, rising=rising))

    async def rise(self, zone: Zone, only: Collection[str] | None = None) -> bool:  # noqa: ASYNC910  there may be nothing to do
        """Do what is to be done in a zone on the way up; return whether it was.

        Args:
            zone: How much of the service there is.
            only: Ids of the components that take part; all if None.

        Cancellation: Ends it; what a cancelled hook was at counts as not done.
        """
        for spec in self._in(zone, rising=True):
            hooks = _of(spec.hooks, only)
            if hooks and not await self._run(spec, hooks, ""):
                return False  # noqa: ASYNC910  as above
        return True  # noqa: ASYNC910  as above

    async def fall(self, zone: Zone, reason: str, only: Collection[str] | None = None) -> None:  # noqa: ASYNC910  as above
        """Do what is to be done in a zone on the way down, for those that have done their part on the way up.

        Args:
            zone: How much of the service there is.
            reason: Of the stop.
            only: Ids of the components that take part, and have to do it on the way up anew; all if None.
        """
        for spec in self._in(zone, rising=False):
            hooks = _of(self._undoing(spec), only)
            if hooks:
                await self._run(spec, hooks, reason)
        if only is not None:
            self._todo |= {one for one in self._rising_of(only) if one[0] is zone}

    def rise_outside(self) -> bool:
        """`rise`, before there is an event loop."""
        return all(
            self._done(spec, hook, self._call_plainly(hook, ""))
            for spec in self._in(Zone.PROCESS, rising=True)
            for hook in spec.hooks
        )

    def fall_outside(self, reason: str) -> None:
        """`fall`, after there was an event loop."""
        for spec in self._in(Zone.PROCESS, rising=False):
            for hook in self._undoing(spec):
                self._call_plainly(hook, reason)

    def _in(self, zone: Zone, *, rising: bool) -> Iterator[StageSpec]:
        return (spec for spec in self.specs if spec.zone is zone and spec.is_rising is rising)

    def _undoing(self, spec: StageSpec) -> list[StageHook]:
        waiting = {component for zone, component, *_ in self._todo if zone is spec.zone}
        return [hook for hook in spec.hooks if hook.component not in waiting]

    async def _run(self, spec: StageSpec, hooks: Sequence[StageHook], reason: str) -> bool:
        """Call hooks within the time of their stage; return whether all went well."""
        results: dict[str, bool] = {}
        with trio.move_on_after(spec.timeout) as scope:
            if spec.direction is Direction.GATHER:
                async with trio.open_nursery() as nursery:
                    for hook in hooks:
                        nursery.start_soon(self._call_and_note, spec, hook, reason, results)
            else:
                for hook in hooks:
                    await self._call_and_note(spec, hook, reason, results)
                    if spec.is_rising and not results[_key(hook)]:
                        return False  # noqa: ASYNC910  the hook has waited
        if scope.cancelled_caught:
            text = f"stage {spec.name} was not over within its timeout = {spec.timeout:g} s"
            late = next((hook for hook in hooks if _key(hook) not in results), hooks[-1])
            self.failed(late, TimeoutError(text))
        return len(results) == len(hooks) and all(results.values())  # noqa: ASYNC910  there may be no hooks

    async def _call_and_note(self, spec: StageSpec, hook: StageHook, reason: str, results: dict[str, bool]) -> None:
        results[_key(hook)] = self._done(spec, hook, await self._call(spec.zone, hook, reason))

    def _done(self, spec: StageSpec, hook: StageHook, is_done: bool) -> bool:  # noqa: FBT001  what a call returned
        if is_done:
            self._todo.discard((spec.zone, hook.component, spec.name, hook.method))
        return is_done

    async def _call(self, zone: Zone, hook: StageHook, reason: str) -> bool:
        for one in self.objects(zone, hook):
            try:
                made = _bound(one, hook, reason)()
                if inspect.isawaitable(made):
                    await made
            except (Exception, SystemExit) as error:  # noqa: BLE001  the boundary of a component: it is reported
                self.failed(hook, error)
                return False  # noqa: ASYNC910  what it called may not have waited, and its way ends
        await trio.lowlevel.checkpoint()
        return True

    def _call_plainly(self, hook: StageHook, reason: str) -> bool:
        try:
            _bound(hook.owner, hook, reason)()
        except (Exception, SystemExit) as error:  # noqa: BLE001  as in `_call`
            self.failed(hook, error)
            return False
        return True


def _of(hooks: Sequence[StageHook], only: Collection[str] | None) -> list[StageHook]:
    return [hook for hook in hooks if only is None or hook.component in only]


def _key(hook: StageHook) -> str:
    return f"{hook.component}.{hook.method}"


def _bound(one: object, hook: StageHook, reason: str) -> Callable[[], object]:
    method = cast("Callable[..., object]", getattr(one, hook.method))
    return (lambda: method(reason)) if hook.takes_reason and reason else method


FAILED: Final = "a stage failed"
"""The reason of a stop."""
