"""What is told of a delivery when it has come to its end."""

from __future__ import annotations

from typing import Any, Final, cast

from .._core.broker import Delivery
from .._core.events import DeliveryDone, DeliverySettled
from .attempt import Verdict

_new: Final = object.__new__


def done(component: str, delivery: Delivery, verdict: Verdict, began: float, now: float) -> DeliveryDone:
    """Return the usual end.

    Each message has one. So its fields are set one by one: to call a class with ten names takes twice as long, and each
    function that is called for it as long as to set them all.
    """
    made: Any = _new(DeliveryDone)
    envelope, attempt, pool = delivery.envelope, delivery.attempt, verdict.pool
    made.component = component
    made.worker = "" if pool is None else pool.spec.id
    made.delivery_id = envelope.id
    made.subject = envelope.subject
    made.attempt = attempt
    made.outcome = verdict.outcome
    made.error = None
    made.seconds = now - began
    made.failure_worker = verdict.taken_by
    sent = delivery.sent if attempt == 1 else None
    made.queued = sent if sent is None else began - sent if began > sent else 0.0  # as below
    return cast("DeliveryDone", made)


def settled(component: str, delivery: Delivery, verdict: Verdict, began: float, now: float) -> DeliverySettled:
    """Return any other end."""
    return DeliverySettled(
        component=component,
        worker=verdict.worker,
        delivery_id=delivery.envelope.id,
        subject=delivery.envelope.subject,
        attempt=delivery.attempt,
        outcome=verdict.outcome,
        error=verdict.error,
        failure_worker=verdict.taken_by,
        seconds=now - began,
        queued=_queued(delivery, began),
    )


def _queued(delivery: Delivery, began: float) -> float | None:
    """Return how long a delivery waited at its source, if that tells and it is the first attempt."""
    sent = delivery.sent
    if sent is None or delivery.attempt > 1:
        return None
    return began - sent if began > sent else 0.0  # the clock of another machine may be ahead
