"""The pipeline: delivery -> decode -> route -> convert -> call -> encode -> verdict.

Read `Pipeline.attempt` top to bottom. Only calling the user's code waits; `judge` decides what follows. `intake` says
when an attempt runs and settles what comes of it; this module knows no source and no slot.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, final

import attrs
import trio
from typing_extensions import override

from .._core.broker import CURRENT, Delivery
from .._core.envelope import Ack, Arguments, DeadLetter, Envelope, Message, Return
from .._core.events import EventHub
from .._core.executor import UNTIMED
from .._core.interceptors import Around, Incoming
from .._core.router import Router
from .._core.spans import HandlerCalled, HandlerDone, carry_in
from .._core.spec import Filter
from .attempt import Route, Unanswered, Verdict, Work
from .failure import Failure
from .hold import Hold
from .judge import Judge, is_late
from .leash import Attempting, CallTime, Collecting, Leash
from .pool import Instance
from .telling import tell_of

Call: TypeAlias = Callable[..., Awaitable[object]]


@final
@attrs.define(eq=False, repr=False)
class Pipeline(Attempting):
    """Handles deliveries with the one worker that each is for."""

    router: Router[Route]
    judge: Judge
    last_resorts: Mapping[str, Route]
    """Name of a worker -> its failure worker."""
    hold: Hold
    """Shared by the pipelines of a dispatcher."""
    hub: EventHub = attrs.field(factory=EventHub)
    """Is told of calls, where somebody hears that."""
    around: Around[Incoming] | None = None
    """What each call of a handler is made within."""
    called: Callable[[Instance, Work], Awaitable[object]] = attrs.field(init=False)
    """Calls a handler. Chosen here, so that a delivery need not ask for interceptors where there are none."""
    collecting: Collecting | None = attrs.field(default=None, init=False)
    """Calls the handlers with batches; None calls them with one payload at a time."""

    def __attrs_post_init__(self) -> None:
        self.called = _called if self.around is None else _calling_within(self.around)

    @override
    def close(self) -> None:
        self.hold.close()
        if self.collecting is not None:
            self.collecting.close()

    @override
    def attempt(self, delivery: Delivery, leash: Leash | None = None) -> Awaitable[Verdict]:
        work = self._prepare(delivery)
        if leash is not None:
            if isinstance(work, Work) and (instance := self._take_for(work)) is not None:
                return self._call_on(leash, instance, work)
            leash.loosen()
        return self._finish(delivery, work)

    async def _finish(self, delivery: Delivery, work: Work | Verdict) -> Verdict:
        """Go on with what `_prepare` has returned."""
        if not isinstance(work, Work):
            verdict = work
        elif self.collecting is not None:
            verdict = await self.collecting.join(work)
        else:
            verdict = await self._handled(work)
        if verdict.pool is not None and verdict.pool.closed and isinstance(verdict.outcome, Return):
            await self.hold.keep(delivery)
            verdict = self.kept_out(delivery, verdict)
        if verdict.pool is not None and isinstance(verdict.outcome, DeadLetter):
            last_resort = self.last_resorts.get(verdict.pool.name)
            if last_resort is not None:
                return await self._bury(verdict, verdict.outcome, delivery, last_resort)
        return verdict  # noqa: ASYNC910  the caller settles; a turn here would cost as much as the rest

    # --- before the handler -----------------------------------------------------------------------------------

    def _prepare(self, delivery: Delivery) -> Work | Verdict:
        """Decode, route and convert; or say why not."""
        try:
            message = delivery.message or self.decode(delivery.envelope)
            route = self.router.match(message.subject)
        except BaseException as error:  # noqa: ASYNC103, BLE001  the protocol's and the translators' code
            return self.judge.undecodable(delivery, error)
        if route is None:
            return self.judge.unroutable(delivery, message.subject)
        refusal = self.judge.refusal(delivery, route.pool)
        if refusal is not None:
            return refusal
        if route.filter is not None:
            filtered = self._filtered(route.filter, Work(delivery, route, message.payload))
            if filtered is not None:
                return filtered
        try:
            return Work(delivery, route, route.handler.convert(message.payload))
        except BaseException as error:  # noqa: ASYNC103, BLE001  classes of the user's are made
            return self.judge.unconvertible(delivery, message, route.pool, error)

    def decode(self, envelope: Envelope) -> Message:
        """Return what an envelope means; raises what the protocol does."""
        if self.judge.protocol is None:
            return Message(subject=envelope.subject, payload=envelope.body, headers=envelope.headers)
        return self.judge.protocol.decode(envelope)

    def _filtered(self, wants: Filter, work: Work) -> Verdict | None:
        """Ask a worker's filter; return what becomes of an attempt that it keeps out, or fails at."""
        try:
            return None if wants(work.payload) else Verdict(Ack(), work.route.pool)
        except BaseException as error:  # noqa: ASYNC103, BLE001  as a handler's
            verdict = self.judge.raised(work, error)
            if work.route.pool.switch is not None:
                work.route.pool.switch.leave(is_probe=False, failed=True)
            return verdict

    # --- the handler ------------------------------------------------------------------------------------------

    async def _handled(self, work: Work) -> Verdict:
        """Call the handler; if its worker has a kill switch, when that allows it, and tell it how that went."""
        switch = work.route.pool.switch
        if switch is None:
            return await self._call(work)
        is_probe = await self.hold.enter(switch, deadline=work.delivery.envelope.deadline)
        if is_probe is None:
            return self.kept_out(work.delivery, Verdict(Return(), work.route.pool))
        failed: bool | None = None
        try:
            verdict = await self._call(work)
            failed = verdict.failed
        finally:
            switch.leave(is_probe=is_probe, failed=failed)
        return verdict

    def kept_out(self, delivery: Delivery, otherwise: Verdict) -> Verdict:
        """Return what becomes of an attempt that waited for its worker in vain: it is late, or else goes back."""
        if otherwise.pool is not None and is_late(delivery):
            return self.judge.late(delivery, otherwise.pool)
        return otherwise

    def _take_for(self, work: Work) -> Instance | None:
        """Take a place for a call that nothing stands before and nothing follows; None if it is no such call."""
        pool = work.route.pool
        is_plain = self.collecting is None and pool.switch is None and not self.last_resorts
        return pool.take_nowait() if is_plain else None

    async def _call(self, work: Work) -> Verdict:
        """Wait for a place in the worker and call the handler, all of it before the deadline of the delivery."""
        pool, leash = work.route.pool, Leash(began=trio.current_time())
        leash.hold(work.delivery.envelope.deadline)
        with leash.entered():
            instance = pool.take_nowait() or await pool.take()
            if instance is None:
                return self.judge.gone(work)  # noqa: ASYNC910  only `take` returns it, and that is a checkpoint
            if not work.route.is_current:
                pool.give_back(instance, leash.scope)
                return await self._call_anew(work)
            if not is_late(work.delivery):
                leash.began = trio.current_time()
                return await self._call_on(leash, instance, work)
            pool.give_back(instance, leash.scope)
        return leash.verdict or self.judge.late(work.delivery, pool)  # noqa: ASYNC910  the scope was cancelled

    async def _call_anew(self, work: Work) -> Verdict:
        """Call the handler of a worker that has become another one while the attempt waited for it."""
        fresh: Work | Verdict
        if isinstance(work.payload, Failure):
            routes = (route for route in self.last_resorts.values() if route.pool is work.route.pool)
            route = next(routes, None)
            fresh = self.judge.gone(work) if route is None else attrs.evolve(work, route=route)
        else:
            fresh = self._prepare(work.delivery)
        return await self._call(fresh) if isinstance(fresh, Work) else fresh  # noqa: ASYNC910  it has waited

    async def _call_on(self, leash: Leash, instance: Instance, work: Work) -> Verdict:
        """Call the handler in a scope that this task is in, within its time."""
        pool, scope = work.route.pool, leash.scope
        latest, timeout = work.delivery.envelope.deadline, pool.spec.timeout
        leash.hold(min(latest, leash.began + timeout))
        if pool.spec.runs_in is not None:
            UNTIMED.set(CallTime(leash.hold, latest, timeout).stopped)
        instance.calls[scope] = work.delivery
        leash.call = self.judge, work, instance
        try:
            hears = self.hub.hears
            is_heard = hears(HandlerCalled) or hears(HandlerDone)
            handled = self._told(instance, work) if is_heard else self.called(instance, work)
            verdict = self.judge.returned(work, await handled)
        except BaseException as error:  # noqa: ASYNC103, BLE001  the boundary of the user's code; becomes the verdict
            verdict = self.judge.raised(work, error)
        finally:
            pool.give_back(instance, scope)
        leash.call = None
        return verdict  # noqa: ASYNC910  whether the user's code waits is the user's to say

    def _told(self, instance: Instance, work: Work) -> Awaitable[object]:
        hub, deliveries = self.hub, (work.delivery,)
        passed = hub.passes_by(HandlerCalled, HandlerDone, deliveries)
        if passed is False:
            return tell_of(hub, work.worker, work.route.handler.method, deliveries, self.called, instance, work)
        if passed is not True:
            carry_in(work, passed)
        return self.called(instance, work)

    async def _bury(self, verdict: Verdict, letter: DeadLetter, delivery: Delivery, last_resort: Route) -> Verdict:
        """Give what would be dead-lettered to the failure worker; if that fails too, it is dead-lettered."""
        failure = Failure(
            worker=verdict.worker,
            reason=letter.reason,
            attempts=delivery.attempt,
            payload=verdict.payload,
            envelope=delivery.envelope,
        )
        handled = await self._handled(Work(Unanswered(delivery), last_resort, failure))
        match handled.outcome:
            case Ack():
                return attrs.evolve(verdict, outcome=Ack(), taken_by=last_resort.pool.spec.id)
            case Return() if not last_resort.pool.closed:
                return handled
            case _:
                return verdict


def _calling_within(around: Around[Incoming]) -> Callable[[Instance, Work], Awaitable[object]]:
    """Return what calls a handler within interceptors, which may ask for the delivery as it may."""

    def called(instance: Instance, work: Work) -> Awaitable[object]:
        CURRENT.set(work)
        route = work.route
        incoming = Incoming(route.pool.spec.id, route.handler.method, work.payload, (work.delivery,))
        return around(incoming, _called, instance, work)

    return called


def _called(instance: Instance, work: Work) -> Awaitable[object]:
    """Call the handler with the payload and what else it asks for."""
    handler = work.route.handler
    worker: Any = instance.worker
    call: Call = getattr(worker, handler.method) if handler.method else worker
    CURRENT.set(work)
    if handler.is_plain:
        return call(work.payload)
    extra: dict[str, object] = {}
    if handler.envelope_parameter is not None:
        extra[handler.envelope_parameter] = work.delivery.envelope
    if handler.delivery_parameter is not None:
        extra[handler.delivery_parameter] = work.delivery
    if isinstance(work.payload, Arguments) and handler.parameters is not None:
        return call(*work.payload.args, **work.payload.kwargs, **extra)
    return call(work.payload, **extra)
