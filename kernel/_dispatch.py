"""The pipeline: delivery -> decode -> route -> convert -> call -> encode -> outcome -> settled.

Read `Pipeline.outcome` top to bottom. `_intake` decides when it runs; this module knows no source and no queue.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast, final

import attrs
import trio

from ._broker import Delivery
from ._envelope import Ack, DeadLetter, Envelope, Message, Outcome, Retry, Return
from ._failure import Failure, add_note, decide, describe
from ._pool import Instance, Pool
from ._router import Router
from ._spec import HandlerSpec
from .abc import Protocol
from .errors import (
    ConversionError,
    DecodeError,
    EncodeError,
    PermanentError,
    TransientError,
    UnavailableError,
    UnroutableError,
)

_OUTCOMES = (Ack, Retry, DeadLetter, Return)


@final
@attrs.frozen
class Route:
    """Where a subject leads: a handler of a worker."""

    pool: Pool
    handler: HandlerSpec


@final
@attrs.frozen
class Verdict:
    """How one attempt ended."""

    outcome: Outcome
    worker: str = ""
    """`worker/name`, or empty if none was found."""
    error: BaseException | None = None


Call: TypeAlias = Callable[..., Awaitable[object]]


@final
@attrs.define(eq=False)
class Pipeline:
    """Handles the deliveries of one dispatcher."""

    router: Router[Route]
    protocol: Protocol | None
    failure_routes: dict[str, Route]
    """Name of a worker -> its failure worker."""

    async def attempt(self, delivery: Delivery) -> Verdict:
        """Run one attempt; what goes wrong in it becomes part of the verdict.

        Cancellation: Is a checkpoint if a handler is called. If cancelled, the handler was.
        """
        message = self._decode(delivery)
        if isinstance(message, DeadLetter):
            return Verdict(message)
        route = self.router.match(message.subject)
        if route is None:
            return self._unroutable(delivery, message)
        refusal = _refusal(delivery, route.pool)
        if refusal is None:
            return await self._call(delivery, message, route)
        if isinstance(refusal, DeadLetter):
            return await self._bury(Verdict(refusal, route.pool.spec.id), delivery, None, route)
        return refusal

    def _decode(self, delivery: Delivery) -> Message | DeadLetter:
        message = delivery.message
        if message is not None:
            return message
        envelope = delivery.envelope
        if self.protocol is None:
            return Message(subject=envelope.subject, payload=envelope.body, headers=envelope.headers)
        try:
            return self.protocol.decode(envelope)
        except DecodeError as error:
            return DeadLetter(f"cannot be decoded: {describe(error)}")

    def _unroutable(self, delivery: Delivery, message: Message) -> Verdict:
        reason = f"no worker handles {message.subject[:200]!r}"
        return self._refuse(delivery, UnroutableError(reason), Verdict(DeadLetter(reason)))

    async def _call(self, delivery: Delivery, message: Message, route: Route) -> Verdict:
        """Convert the payload, wait for a place in the worker and call the handler."""
        pool, handler = route.pool, route.handler
        worker = pool.spec.id
        try:
            payload = handler.convert(message.payload)
        except ConversionError as error:
            verdict = Verdict(DeadLetter(f"payload of {message.subject[:200]!r}: {describe(error)}"), worker, error)
            return self._refuse(delivery, error, await self._bury(verdict, delivery, None, route))
        try:
            instance = pool.take_nowait() or await pool.take()
        except UnavailableError as error:
            return await self._failed(error, delivery, payload, route)
        scope = trio.CancelScope(deadline=_deadline(delivery.envelope, pool.spec.timeout))
        instance.calls[scope] = delivery
        try:
            with scope:
                result = await _bound(instance, handler, delivery)(payload)
        except (Exception, SystemExit) as error:  # noqa: BLE001  the boundary of the user's code; becomes the verdict
            return await self._failed(error, delivery, payload, route)
        finally:
            pool.give_back(instance, scope)
        if scope.cancelled_caught:
            return await self._cut(instance, delivery, payload, route)
        return await self._succeeded(result, delivery, payload, route)

    async def _succeeded(self, result: object, delivery: Delivery, payload: object, route: Route) -> Verdict:
        worker = route.pool.spec.id
        if isinstance(result, DeadLetter):
            return await self._bury(Verdict(result, worker), delivery, payload, route)
        if isinstance(result, _OUTCOMES):
            return Verdict(result, worker)
        if self.protocol is None or not delivery.envelope.reply_to:
            return Verdict(Ack(), worker)
        try:
            return Verdict(Ack(self.protocol.encode_reply(delivery.envelope, result)), worker)
        except EncodeError as error:
            return await self._failed(error, delivery, payload, route)

    async def _cut(self, instance: Instance, delivery: Delivery, payload: object, route: Route) -> Verdict:
        """Decide about a handler that was cancelled: its time was up, or its worker is being stopped."""
        if instance.leaving:
            return Verdict(Return(), route.pool.spec.id)
        if trio.current_time() >= delivery.envelope.deadline:
            return await self._bury(Verdict(DeadLetter(_EXPIRED), route.pool.spec.id), delivery, payload, route)
        error = TimeoutError(f"the handler took more than timeout = {route.pool.spec.timeout:g} s")
        return await self._failed(error, delivery, payload, route)

    async def _failed(
        self, error: Exception | SystemExit, delivery: Delivery, payload: object, route: Route
    ) -> Verdict:
        spec = route.pool.spec
        add_note(error, f"in {spec.id}, delivery {delivery.envelope.id}, attempt {delivery.attempt}")
        if isinstance(error, SystemExit):
            error = _exited(error)
        if delivery.envelope.reply_to and not _asks_for_retry(error):
            return self._refuse(delivery, error, Verdict(DeadLetter(describe(error)), spec.id, error))
        outcome = decide(error, spec.retry, attempt=delivery.attempt)
        verdict = Verdict(outcome, spec.id, error)
        return verdict if isinstance(outcome, Retry) else await self._bury(verdict, delivery, payload, route)

    def _refuse(self, delivery: Delivery, error: Exception, otherwise: Verdict) -> Verdict:
        """Answer a request with an error, since whoever asked can decide what to do; else take `otherwise`."""
        envelope = delivery.envelope
        if not envelope.reply_to or self.protocol is None or isinstance(otherwise.outcome, Ack):
            return otherwise
        try:
            reply = self.protocol.encode_error(envelope, error)
        except EncodeError:
            return otherwise
        return Verdict(Ack(reply), otherwise.worker, error)

    async def _bury(self, verdict: Verdict, delivery: Delivery, payload: object, route: Route) -> Verdict:
        """Give what would be dead-lettered to the failure worker, if there is one and it succeeds."""
        last_resort = self.failure_routes.get(route.pool.name)
        if last_resort is None or not isinstance(verdict.outcome, DeadLetter):
            return verdict
        failure = Failure(
            worker=route.pool.spec.id,
            reason=verdict.outcome.reason,
            attempts=delivery.attempt,
            payload=payload,
            envelope=delivery.envelope,
        )
        message = Message(subject=delivery.envelope.subject, payload=failure)
        handled = await self._call(_Unanswered(delivery), message, last_resort)
        if isinstance(handled.outcome, Return):
            return handled
        return Verdict(Ack(), verdict.worker, verdict.error) if isinstance(handled.outcome, Ack) else verdict


@final
@attrs.frozen(eq=False)
class _Unanswered(Delivery):
    """A delivery as its failure worker sees it: the same, but nobody waits for an answer, and time is not up."""

    _original: Delivery

    @property
    def envelope(self) -> Envelope:
        return attrs.evolve(self._original.envelope, reply_to="", deadline=math.inf)

    @property
    def attempt(self) -> int:
        return self._original.attempt

    @property
    def redelivered(self) -> bool:
        return self._original.redelivered

    async def settle(self, outcome: Outcome) -> None:
        raise RuntimeError(f"a failure worker does not settle: {outcome}")


_EXPIRED = "expired: its deadline had passed"


def _refusal(delivery: Delivery, pool: Pool) -> DeadLetter | None:
    """Return why an attempt must not be started."""
    if delivery.envelope.deadline <= trio.current_time():
        return DeadLetter(_EXPIRED)
    if delivery.attempt > pool.spec.retry.attempts:
        return DeadLetter(f"{pool.spec.retry.attempts} attempts ended without an outcome")
    return None


def _deadline(envelope: Envelope, timeout: float) -> float:
    return min(envelope.deadline, trio.current_time() + timeout)


def _bound(instance: Instance, handler: HandlerSpec, delivery: Delivery) -> Call:
    """Return the handler as a function of the payload alone."""
    call = cast("Call", getattr(instance.object, handler.method) if handler.method else instance.object)
    if handler.envelope_parameter is None and handler.delivery_parameter is None:
        return call
    extra: dict[str, object] = {}
    if handler.envelope_parameter is not None:
        extra[handler.envelope_parameter] = delivery.envelope
    if handler.delivery_parameter is not None:
        extra[handler.delivery_parameter] = delivery
    return lambda payload: call(payload, **extra)


def _asks_for_retry(error: Exception) -> bool:
    return isinstance(error, TransientError) and error.after is not None


def _exited(error: SystemExit) -> PermanentError:
    refusal = PermanentError(f"the handler called sys.exit({error.code!r})")
    refusal.__cause__ = error
    return refusal
