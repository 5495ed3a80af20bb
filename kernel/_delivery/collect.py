"""Many deliveries, one call: collects what goes to one handler until it is a batch, and calls the handler with it.

Each delivery keeps its slot, its attempt and its settlement: it waits in `join` for the verdict on it alone.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import cast, final

import attrs
import trio
from typing_extensions import override

from .._core.broker import Batch, Delivery
from .._core.envelope import Return
from .._core.executor import UNTIMED
from .._core.interceptors import Incoming
from .._core.policies import BatchPolicy
from ..errors import SettledError
from .attempt import Route, Verdict, Work
from .judge import OUTCOMES, only_passing, passing
from .leash import CallTime, Collecting
from .pipeline import Call, Pipeline
from .pool import Instance
from .telling import tell_of


@final
@attrs.define(eq=False, repr=False)
class _Item:
    """One delivery of a batch."""

    work: Work
    verdict: Verdict | None = None
    is_left: bool = False
    """Whether nobody waits for the verdict any more: it was revoked."""
    is_called: bool = False
    """Whether the handler was given it."""
    ended: trio.Event = attrs.field(factory=trio.Event)

    def end(self, verdict: Verdict) -> None:
        """Say what becomes of it; the first word counts."""
        if self.verdict is None:
            self.verdict = verdict
            self.ended.set()


@final
@attrs.define(eq=False, repr=False)
class _Group:
    """What has been collected for one handler."""

    route: Route
    items: list[_Item] = attrs.field(factory=list[_Item])
    full: trio.Event = attrs.field(factory=trio.Event)
    """Or complete for another reason."""


@final
@attrs.define(eq=False, repr=False)
class Collector(Collecting):
    """Collects the deliveries of one life of a dispatcher."""

    policy: BatchPolicy
    pipeline: Pipeline
    nursery: trio.Nursery
    """In which handlers are called; it holds those who wait in `join`, too."""
    began: Callable[[Delivery], None]
    """Told, in the task that calls the handler, of each delivery that the handler is given."""
    _open: dict[int, _Group] = attrs.field(factory=dict[int, _Group], init=False)
    """Those that take more, by the identity of their handler, which lives as long as the plan."""
    _closing: bool = attrs.field(default=False, init=False)

    @override
    async def join(self, work: Work) -> Verdict:
        key = id(work.route.handler)
        group = self._open.get(key)
        if group is None:
            group = self._open[key] = _Group(work.route)
            self.nursery.start_soon(self._run, group, key, name=work.route.pool.spec.id)
        item = _Item(work)
        group.items.append(item)
        if len(group.items) >= self.policy.size:
            self._complete(key)
        try:
            return await self._verdict_on(item)
        except trio.Cancelled:
            item.is_left = True
            raise

    async def _verdict_on(self, item: _Item) -> Verdict:
        """Wait for the verdict; until the deadline of the delivery, if the handler was not given it by then."""
        delivery, pool = item.work.delivery, item.work.route.pool
        deadline = delivery.envelope.deadline
        with nullcontext() if deadline == math.inf else trio.move_on_at(deadline):
            await item.ended.wait()
        if item.verdict is None and not item.is_called:
            item.end(self.pipeline.judge.late(delivery, pool))
        if item.verdict is None:
            await item.ended.wait()
        assert item.verdict is not None  # which is what the event says
        return item.verdict

    @override
    def close(self) -> None:
        self._closing = True
        for key in list(self._open):
            self._complete(key)

    def _complete(self, key: int) -> None:
        self._open.pop(key).full.set()

    async def _run(self, group: _Group, key: int) -> None:
        """Wait until a batch is complete, and have it handled."""
        with trio.move_on_after(0 if self._closing else self.policy.wait):
            await group.full.wait()
        if self._open.get(key) is group:
            self._complete(key)
        try:
            await self._handle(group)
        except BaseException as error:  # noqa: BLE001  what a handler raised while it was cut is not the dispatcher's
            raise only_passing(error) from None

    async def _handle(self, group: _Group) -> None:
        switch = group.route.pool.switch
        if switch is None:
            await self._call(group)
            return
        latest = max(item.work.delivery.envelope.deadline for item in group.items)
        is_probe = await self.pipeline.hold.enter(switch, deadline=latest)
        if is_probe is None:
            for item in group.items:
                item.end(self.pipeline.kept_out(item.work.delivery, Verdict(Return(), group.route.pool)))
            return
        failed: bool | None = None
        try:
            failed = await self._call(group)
        finally:
            switch.leave(is_probe=is_probe, failed=failed)

    async def _call(self, group: _Group) -> bool | None:
        """Call the handler; return whether it failed, or None if it was cut or not called."""
        pool = group.route.pool
        instance = pool.take_nowait() or await pool.take()
        if instance is None:
            for item in group.items:
                item.end(self.pipeline.judge.gone(item.work))
            return None  # noqa: ASYNC910  only `take` returns it, and that is a checkpoint
        if not group.route.is_current:  # what was converted for another worker is converted anew when it comes again
            pool.give_back(instance, trio.CancelScope())
            for item in group.items:
                item.end(Verdict(Return(), pool))
            return None  # noqa: ASYNC910  the worker has become another one: it has waited
        items = [item for item in group.items if self._is_wanted(item)]
        scope = trio.CancelScope()
        instance.calls[scope] = group.items[0].work.delivery
        try:
            if not items:
                return None  # noqa: ASYNC910  every item has ended: there is nothing to wait for
            return await self._call_within(scope, instance, items)
        finally:
            pool.give_back(instance, scope)

    async def _call_within(self, scope: trio.CancelScope, instance: Instance, items: Sequence[_Item]) -> bool | None:
        spec = items[0].work.route.pool.spec
        latest = max(item.work.delivery.envelope.deadline for item in items)
        scope.deadline = min(latest, trio.current_time() + spec.timeout)
        if spec.runs_in is not None:
            UNTIMED.set(CallTime(partial(setattr, scope, "deadline"), latest, spec.timeout).stopped)
        for item in items:
            item.is_called = True
            self.began(item.work.delivery)
        try:
            with scope:
                self._answer(items, await self._noted(instance, items))
                return False  # noqa: ASYNC910  whether the user's code waits is the user's to say
        except BaseException as error:  # noqa: ASYNC103  the boundary of the user's code; becomes the verdicts
            if passing(error):
                raise
            self._fail(items, error)
            return True  # noqa: ASYNC910
        for item in items:
            item.end(self.pipeline.judge.cut(item.work, instance))
        return None if instance.leaving else True  # noqa: ASYNC910  only reached when the scope was cancelled

    async def _noted(self, instance: Instance, items: Sequence[_Item]) -> object:
        """Call the handler; note where it is when it is cut."""
        try:
            return await self._called(instance, items)
        except trio.Cancelled as cut:
            for item in items:
                item.work.stood = cut.__traceback__
            raise

    def _called(self, instance: Instance, items: Sequence[_Item]) -> Awaitable[object]:
        call: Call = partial(_call_handler, instance, items, self._settle_early(items))
        hub, work, around = self.pipeline.hub, items[0].work, self.pipeline.around
        method, deliveries = work.route.handler.method, [item.work.delivery for item in items]
        if around is not None:
            incoming = Incoming(work.worker, method, [item.work.payload for item in items], deliveries)
            call = partial(around, incoming, call)
        return tell_of(hub, work.worker, method, deliveries, call)

    def _is_wanted(self, item: _Item) -> bool:
        """Return whether an item is still to be handled; if its time is over, that is what becomes of it."""
        if item.is_left or item.verdict is not None:
            return False
        refusal = self.pipeline.judge.refusal(item.work.delivery, item.work.route.pool)
        if refusal is not None:
            item.end(refusal)
        return refusal is None

    def _settle_early(self, items: Sequence[_Item]) -> Callable[[int, object], None]:
        def settle(index: int, result: object) -> None:
            item = items[index]
            if item.verdict is not None:
                raise SettledError(f"delivery {item.work.delivery.envelope.id} was settled already")
            item.end(self.pipeline.judge.returned(item.work, result))

        return settle

    def _answer(self, items: Sequence[_Item], result: object) -> None:
        """Give each item what the handler returned for it."""
        for item, one in zip(items, _results(result, len(items)), strict=True):
            if item.verdict is None:
                item.end(self.pipeline.judge.returned(item.work, one))

    def _fail(self, items: Sequence[_Item], error: BaseException) -> None:
        left = [item for item in items if item.verdict is None]
        note = f"in {items[0].work.route.pool.spec.id}, a batch of {len(items)}, {len(left)} not settled"
        for item in left:
            item.end(self.pipeline.judge.raised(item.work, error, note))


def _results(result: object, count: int) -> Sequence[object]:
    if result is None or isinstance(result, OUTCOMES):
        return [result] * count
    results = cast("Sequence[object]", result) if isinstance(result, list | tuple) else None
    if results is not None and len(results) == count:
        return results
    got = "something else" if results is None else f"a list of {len(results)}"
    raise TypeError(
        f"a handler of batches returns None, an outcome, or a list of one result for each of {count}: {got}"
    )


async def _call_handler(instance: Instance, items: Sequence[_Item], settle: Callable[[int, object], None]) -> object:
    handler = items[0].work.route.handler
    call = cast("Call", getattr(instance.worker, handler.method) if handler.method else instance.worker)
    extra: Mapping[str, object] = {}
    if handler.batch_parameter is not None:
        extra = {handler.batch_parameter: Batch([item.work.delivery for item in items], settle)}
    return await call([item.work.payload for item in items], **extra)
