"""The pipeline: delivery -> decode -> route -> convert -> call -> encode -> verdict.

Read `Pipeline.attempt` top to bottom. Only calling the user's code waits; everything else decides. `intake` says
when an attempt runs and settles what comes of it; this module knows no source and no slot.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, final

import attrs
import trio
from typing_extensions import override

from .._core.broker import CURRENT, Delivery
from .._core.envelope import Ack, Arguments, DeadLetter, Envelope, Message, Retry, Return
from .._core.router import Router
from .._core.spec import Filter
from ..abc import Protocol
from ..errors import (
    ConversionError,
    DecodeError,
    EncodeError,
    NoWorkerError,
    PermanentError,
    TransientError,
    UnavailableError,
)
from .attempt import Attempting, Collecting, Leash, Raised, Relay, Route, Verdict, Work
from .failure import Failure, add_note, decide, describe
from .kill_switch import KillSwitch
from .pool import Instance, Pool

Call: TypeAlias = Callable[..., Awaitable[object]]

OUTCOMES: Final = (Ack, Retry, DeadLetter, Return)
_EXPIRED: Final = "expired: its deadline had passed"
_SHOWN: Final = 200
"""Characters of a foreign subject in a reason."""


@final
@attrs.define(eq=False, repr=False)
class Pipeline(Attempting):
    """Handles deliveries with the one worker that each is for."""

    router: Router[Route]
    protocol: Protocol | None
    last_resorts: Mapping[str, Route]
    """Name of a worker -> its failure worker."""
    collecting: Collecting | None = attrs.field(default=None, init=False)
    """Calls the handlers with batches; None calls them with one payload at a time."""
    _held: set[trio.CancelScope] = attrs.field(factory=set[trio.CancelScope], init=False)
    """Those who wait for a worker that is paused."""
    _closing: bool = attrs.field(default=False, init=False)

    @override
    def close(self) -> None:
        self._closing = True
        if self.collecting is not None:
            self.collecting.close()
        for scope in self._held:
            scope.cancel()

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
        elif work.route.pool.switch is None:
            verdict = await self._call(work)
        else:
            verdict = await self._watched(work, work.route.pool.switch)
        if isinstance(verdict.outcome, DeadLetter) and verdict.pool is not None:
            last_resort = self.last_resorts.get(verdict.pool.name)
            if last_resort is not None:
                return await self._bury(verdict, verdict.outcome, delivery, last_resort)
        return verdict  # noqa: ASYNC910  the caller settles; a turn here would cost as much as the rest

    # --- before the handler -----------------------------------------------------------------------------------

    def _prepare(self, delivery: Delivery) -> Work | Verdict:
        """Decode, route and convert; or say why not."""
        try:
            message = delivery.message or self.decode(delivery.envelope)
        except DecodeError as error:
            return self.undecodable(delivery, error)
        route = self.router.match(message.subject)
        if route is None:
            return self.unroutable(delivery, message)
        refusal = _refusal(delivery, route.pool)
        if refusal is not None:
            return Verdict(refusal, route.pool)
        if route.filter is not None:
            filtered = self._filtered(route.filter, Work(delivery, route, message.payload))
            if filtered is not None:
                return filtered
        try:
            return Work(delivery, route, route.handler.convert(message.payload))
        except ConversionError as error:
            reason = f"payload of {message.subject[:_SHOWN]!r}: {describe(error)}"
            return self._refused(delivery, error, Verdict(DeadLetter(reason), route.pool, error))

    def decode(self, envelope: Envelope) -> Message:
        """Return what an envelope means; raises `DecodeError`."""
        if self.protocol is None:
            return Message(subject=envelope.subject, payload=envelope.body, headers=envelope.headers)
        return self.protocol.decode(envelope)

    def undecodable(self, delivery: Delivery, error: DecodeError) -> Verdict:
        """Return what becomes of a delivery that means nothing."""
        reason = f"cannot be decoded: {describe(error)}"
        return self._refused(delivery, error, Verdict(DeadLetter(reason), error=error))

    def unroutable(self, delivery: Delivery, message: Message) -> Verdict:
        """Return what becomes of a delivery that is for no worker."""
        error = NoWorkerError(f"no worker handles {message.subject[:_SHOWN]!r}")
        return self._refused(delivery, error, Verdict(DeadLetter(str(error)), error=error))

    def _filtered(self, wants: Filter, work: Work) -> Verdict | None:
        """Ask a worker's filter; return what becomes of an attempt that it keeps out, or fails at."""
        pool = work.route.pool
        try:
            return None if wants(work.payload) else Verdict(Ack(), pool)
        except (Exception, SystemExit) as error:  # noqa: BLE001  as a handler's
            if pool.switch is not None:
                pool.switch.leave(is_probe=False, failed=True)
            return self._failed(error, work)

    # --- the handler ------------------------------------------------------------------------------------------

    async def _watched(self, work: Work, switch: KillSwitch) -> Verdict:
        """Call the handler when the kill switch of its worker allows it, and tell the switch how that went."""
        is_probe = await self.enter(switch, deadline=work.delivery.envelope.deadline)
        if is_probe is None:
            return self.kept_out(work)
        failed: bool | None = None
        try:
            verdict = await self._call(work)
            failed = _has_failed(verdict)
        finally:
            switch.leave(is_probe=is_probe, failed=failed)
        return verdict

    async def enter(self, switch: KillSwitch, *, deadline: float) -> bool | None:
        """Return what `KillSwitch.enter` does, or None if nobody is let in any more, or in time."""
        scope = trio.CancelScope(deadline=deadline)
        if self._closing:
            scope.cancel()
        self._held.add(scope)
        try:
            with scope:
                return await switch.enter()
        finally:
            self._held.remove(scope)
        return None  # noqa: ASYNC910  only reached when the scope was cancelled

    def _take_for(self, work: Work) -> Instance | None:
        """Take a place for a call that nothing stands before and nothing follows; None if it is no such call."""
        pool = work.route.pool
        is_plain = self.collecting is None and pool.switch is None and not self.last_resorts
        return pool.take_nowait() if is_plain else None

    async def _call_on(self, leash: Leash, instance: Instance, work: Work) -> Verdict:
        """Call the handler in a scope that this task is in, within its time."""
        pool, scope = work.route.pool, leash.scope
        leash.hold(min(work.delivery.envelope.deadline, leash.began + pool.spec.timeout))
        instance.calls[scope] = work.delivery
        leash.call = self._judge, instance, work
        try:
            verdict = self.succeeded(await _called(instance, work), work)
        except (Exception, SystemExit) as error:  # noqa: BLE001  the boundary of the user's code; becomes the verdict
            verdict = self._failed(error, work)
        finally:
            pool.give_back(instance, scope)
        leash.call = None
        return verdict  # noqa: ASYNC910  whether the user's code waits is the user's to say

    def _judge(self, instance: Instance, work: Work, raised: Raised) -> Verdict:
        return self.cut(instance, work) if raised is None else self._failed(raised, work)

    async def _call(self, work: Work) -> Verdict:
        """Wait for a place in the worker and call the handler, within its time."""
        pool, envelope = work.route.pool, work.delivery.envelope
        try:
            instance = pool.take_nowait() or await pool.take()
        except UnavailableError as error:
            return self._failed(error, work)  # noqa: ASYNC910  only `take` raises it, and that is one
        scope = trio.CancelScope(deadline=min(envelope.deadline, trio.current_time() + pool.spec.timeout))
        instance.calls[scope] = work.delivery
        try:
            with scope:
                return self.succeeded(await _called(instance, work), work)
        except (Exception, SystemExit) as error:  # noqa: BLE001  the boundary of the user's code; becomes the verdict
            return self._failed(error, work)  # noqa: ASYNC910  whether the user's code waits is the user's to say
        finally:
            pool.give_back(instance, scope)
        return self.cut(instance, work)  # noqa: ASYNC910  only reached when the scope was cancelled

    def kept_out(self, work: Work) -> Verdict:
        """Return what becomes of an attempt that `enter` did not let in."""
        return Verdict(Return() if self._closing else DeadLetter(_EXPIRED), work.route.pool)

    def refusal(self, work: Work) -> Verdict | None:
        """Return what becomes of an attempt that has waited, if it must not be started any more."""
        refusal = _refusal(work.delivery, work.route.pool)
        return None if refusal is None else Verdict(refusal, work.route.pool)

    # --- after the handler ------------------------------------------------------------------------------------

    def succeeded(self, result: object, work: Work) -> Verdict:
        """Return what follows from what a handler returned."""
        pool, protocol, envelope = work.route.pool, self.protocol, work.delivery.envelope
        if result is not None and isinstance(result, OUTCOMES):
            return Verdict(result, pool, payload=work.payload, result=result)
        if protocol is None or not (envelope.reply_to or (protocol.always_replies and not _is_failure(work))):
            return work.route.acked
        try:
            return Verdict(Ack(protocol.encode_reply(envelope, result)), pool, result=result)
        except EncodeError as error:
            return self._failed(error, work)

    def cut(self, instance: Instance, work: Work) -> Verdict:
        """Decide about a handler that was cancelled: its worker is being stopped, or its time was up."""
        pool = work.route.pool
        if instance.leaving:
            return Verdict(Return(), pool)
        if trio.current_time() >= work.delivery.envelope.deadline:
            return Verdict(DeadLetter(_EXPIRED), pool, payload=work.payload)
        return self._failed(TimeoutError(f"the handler took more than timeout = {pool.spec.timeout:g} s"), work)

    def _failed(self, error: Exception | SystemExit, work: Work) -> Verdict:
        delivery, pool = work.delivery, work.route.pool
        add_note(error, f"in {pool.spec.id}, delivery {delivery.envelope.id}, attempt {delivery.attempt}")
        return self.judged(error, work)

    def judged(self, error: Exception | SystemExit, work: Work) -> Verdict:
        """Return what follows from what a handler raised."""
        delivery, pool = work.delivery, work.route.pool
        raised = _exited(error) if isinstance(error, SystemExit) else error
        if delivery.envelope.reply_to and not _asks_for_retry(raised):
            return self._refused(delivery, raised, Verdict(DeadLetter(describe(raised)), pool, raised, work.payload))
        outcome = decide(raised, pool.spec.retry, attempt=delivery.attempt)
        return Verdict(outcome, pool, raised, work.payload)

    def _refused(self, delivery: Delivery, error: Exception, otherwise: Verdict) -> Verdict:
        """Answer a request with the error, since whoever asked can decide what to do; else take `otherwise`."""
        if not delivery.envelope.reply_to or self.protocol is None:
            return otherwise
        try:
            reply = self.protocol.encode_error(delivery.envelope, error)
        except EncodeError:
            return otherwise
        return otherwise if reply is None else Verdict(Ack(reply), otherwise.pool, error)

    async def _bury(self, verdict: Verdict, letter: DeadLetter, delivery: Delivery, last_resort: Route) -> Verdict:
        """Give what would be dead-lettered to the failure worker; if that fails too, it is dead-lettered."""
        failure = Failure(
            worker=verdict.worker,
            reason=letter.reason,
            attempts=delivery.attempt,
            payload=verdict.payload,
            envelope=delivery.envelope,
        )
        work, switch = Work(_Unanswered(delivery), last_resort, failure), last_resort.pool.switch
        handled = await (self._call(work) if switch is None else self._watched(work, switch))
        match handled.outcome:
            case Ack():
                return attrs.evolve(verdict, outcome=Ack())
            case Return():
                return handled
            case _:
                return verdict


@final
@attrs.frozen(eq=False, repr=False)
class _Unanswered(Relay):
    """A delivery as its failure worker sees it: the same, but nobody waits for an answer, and time is not up."""

    @property
    @override
    def envelope(self) -> Envelope:
        return attrs.evolve(self.original.envelope, reply_to="", deadline=math.inf)


def _is_failure(work: Work) -> bool:
    return isinstance(work.delivery, _Unanswered)


def _called(instance: Instance, work: Work) -> Awaitable[object]:
    """Call the handler with the payload and what else it asks for."""
    handler = work.route.handler
    worker: Any = instance.worker
    call: Call = getattr(worker, handler.method) if handler.method else worker
    CURRENT.set(work.delivery)
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


def _refusal(delivery: Delivery, pool: Pool) -> DeadLetter | None:
    """Return why an attempt must not be started."""
    deadline = delivery.envelope.deadline
    if deadline != math.inf and deadline <= trio.current_time():
        return DeadLetter(_EXPIRED)
    if delivery.attempt > pool.spec.retry.attempts:
        return DeadLetter(f"{pool.spec.retry.attempts} attempts ended without an outcome")
    return None


def _has_failed(verdict: Verdict) -> bool | None:
    """Return what a call says of its worker; None if it was cut."""
    if verdict.error is not None or verdict.outcome == DeadLetter(_EXPIRED):
        return True
    return None if isinstance(verdict.outcome, Return) else False


def _asks_for_retry(error: Exception) -> bool:
    return isinstance(error, TransientError) and error.after is not None


def _exited(error: SystemExit) -> PermanentError:
    refusal = PermanentError(f"the handler called sys.exit({error.code!r})")
    refusal.__cause__ = error
    return refusal
