"""What becomes of a delivery: every verdict on an attempt is made here, whatever it follows from.

Total: whatever a handler, a filter or a protocol returns or raises, its own delivery gets a verdict, and nobody else
hears of it. Only what ends the task or the program goes on: being cancelled, and a Ctrl-C at the terminal.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Final, cast, final

import attrs
import trio

from .._core.broker import Delivery
from .._core.envelope import Ack, DeadLetter, Envelope, Message, Outcome, Retry, Return
from .._core.interrupt import is_from_terminal
from .._core.policies import RetryPolicy, backoff
from ..abc import Protocol
from ..errors import (
    ConversionError,
    DeliveryError,
    NoWorkerError,
    PermanentError,
    ResultError,
    TransientError,
    UnavailableError,
)
from .attempt import Unanswered, Verdict, Work
from .failure import UNCUT, Mask, add_note, describe, hidden, is_a, leaves_of, name_of, one_line
from .pool import Instance, Pool

OUTCOMES: Final = (Ack, Retry, DeadLetter, Return)
_EXPIRED: Final = "expired: its deadline had passed"
_SHOWN: Final = 200
"""Characters of a foreign subject in a reason."""


@final
@attrs.frozen(eq=False, repr=False)
class Judge:
    """Says what becomes of the deliveries of one pipeline. What asks somebody for an answer gets one."""

    protocol: Protocol | None
    mask: Mask = str
    """Takes the secrets of the manifest out of a text: reasons go into queues, and answers to peers."""

    # --- what is not handled ----------------------------------------------------------------------------------

    def undecodable(self, delivery: Delivery, error: BaseException) -> Verdict:
        """Return what becomes of a delivery that means nothing."""
        own = owned(error)
        return self._dead(delivery, own, f"cannot be decoded: {describe(own, self.mask)}")

    def unroutable(self, delivery: Delivery, subject: str) -> Verdict:
        """Return what becomes of a delivery that is for no worker."""
        error = NoWorkerError(f"no worker handles {subject[:_SHOWN]!r}")
        return self._dead(delivery, error, str(error))

    def unconvertible(self, delivery: Delivery, message: Message, pool: Pool, error: BaseException) -> Verdict:
        """Return what becomes of a payload that its handler does not take."""
        own = owned(error)
        return self._dead(delivery, own, f"payload of {message.subject[:_SHOWN]!r}: {describe(own, self.mask)}", pool)

    def refusal(self, delivery: Delivery, pool: Pool) -> Verdict | None:
        """Return what becomes of an attempt that must not be started; None if it may be."""
        deadline = delivery.envelope.deadline
        if deadline != math.inf and deadline <= trio.current_time():  # as `is_late`, which every delivery would call
            return self.late(delivery, pool)
        if delivery.attempt > pool.spec.retry.attempts:
            attempts = pool.spec.retry.attempts
            return self._put_aside(
                delivery, f"its {attempts} attempts are used up: they ended with their process", pool
            )
        return None

    def late(self, delivery: Delivery, pool: Pool) -> Verdict:
        """Return what becomes of an attempt whose deadline passed before it was started."""
        return self._put_aside(delivery, _EXPIRED, pool)

    def gone(self, work: Work) -> Verdict:
        """Return what becomes of an attempt whose worker will not come back: that is no failure of the message."""
        pool = work.route.pool
        if not work.delivery.envelope.reply_to:
            return Verdict(Return(), pool)
        error = UnavailableError(f"{pool.spec.id} is not running: {pool.closed}")
        verdict = self._dead(work.delivery, error, str(error), pool)
        return verdict if isinstance(verdict.outcome, Ack) else Verdict(Return(), pool)

    # --- what was handled -------------------------------------------------------------------------------------

    def returned(self, work: Work, result: object) -> Verdict:
        """Return what follows from what a handler returned."""
        try:
            if result is not None and (type(result) in OUTCOMES or (type(result) is type and result in OUTCOMES)):
                return self._chosen(work, result)
            protocol, envelope = self.protocol, work.delivery.envelope
            if protocol is None or not (
                envelope.reply_to or (protocol.always_replies and type(work.delivery) is not Unanswered)
            ):
                return work.route.acked
            if (check := work.route.handler.check_result) is not None:
                _hold(work, result, check)
            return Verdict(Ack(protocol.encode_reply(envelope, result)), work.route.pool, result=result, failed=False)
        except BaseException as error:  # noqa: BLE001, ASYNC103  the protocol's and the user's code; `raised` decides
            return self.raised(work, error)

    def _chosen(self, work: Work, outcome: object) -> Verdict:
        """Return the verdict that a handler has decided itself."""
        pool, wants_answer = work.route.pool, bool(work.delivery.envelope.reply_to)
        match outcome:
            case Ack(reply=reply) if not (reply is None or type(reply) is Envelope):
                raise TypeError(f"the handler returned Ack({type(reply).__name__}); a reply is an Envelope")
            case DeadLetter(reason=reason) if wants_answer:
                error = PermanentError(one_line(reason, self.mask))
                return self._dead(work.delivery, error, str(error), pool, work.payload)
            case DeadLetter(reason=reason):
                outcome = DeadLetter(one_line(reason, self.mask))
            case Retry(reason=reason) if work.delivery.attempt >= pool.spec.retry.attempts:
                told = f"{one_line(str(reason or 'another attempt was asked for'), self.mask)} "
                told += f"(attempt {work.delivery.attempt} of {pool.spec.retry.attempts})"
                return self._put_aside(work.delivery, told, pool, work.payload, failed=False)
            case Retry(after=after, reason=str(reason)) if reason:
                outcome = Retry(after, self.mask(reason))
            case type():
                raise TypeError(f"the handler returned the class {outcome.__name__} and no object of it")
            case _:
                pass
        is_not_now = isinstance(outcome, Return)
        return Verdict(
            cast("Outcome", outcome),
            pool,
            payload=work.payload,
            result=outcome,
            failed=None if is_not_now else False,
            is_not_now=is_not_now,
        )

    def raised(self, work: Work, error: BaseException, note: str = "") -> Verdict:
        """Return what follows from what a handler raised; what is not its own goes on.

        Args:
            work: The attempt.
            error: Anything.
            note: Where it comes from; empty says that it comes from this attempt.
        """
        if passing(error):
            work.stood = error.__traceback__
            raise error
        delivery, pool = work.delivery, work.route.pool
        add_note(error, note or f"in {pool.spec.id}, delivery {delivery.envelope.id}, attempt {delivery.attempt}")
        try:
            return self._failed(work, _tamed(error))
        except BaseException as broken:  # noqa: ASYNC103, BLE001  an exception whose own code raises when it is looked at
            text = f"{name_of(error)}, and to look at it raises {name_of(broken)}"
            return self._failed(work, DeliveryError(text).with_traceback(error.__traceback__))

    def cut(self, work: Work, instance: Instance) -> Verdict:
        """Return what becomes of a handler that was cancelled: its worker is being stopped, or its time was up."""
        pool = work.route.pool
        if instance.leaving:
            return Verdict(Return(), pool)
        if is_late(work.delivery):
            return self._put_aside(work.delivery, _EXPIRED, pool, work.payload, failed=True)
        error = TimeoutError(f"the handler took more than timeout = {pool.spec.timeout:g} s")
        return self.raised(work, error.with_traceback(work.stood))

    def _failed(self, work: Work, error: Exception) -> Verdict:
        delivery, pool = work.delivery, work.route.pool
        outcome = decide(error, pool.spec.retry, attempt=delivery.attempt, mask=self.mask)
        if isinstance(outcome, DeadLetter) or (delivery.envelope.reply_to and not _asks_for_retry(error)):
            return self._dead(delivery, error, outcome.reason, pool, work.payload, failed=True)
        return Verdict(outcome, pool, error, work.payload, failed=True)

    # --- the two ends -----------------------------------------------------------------------------------------

    def _put_aside(
        self, delivery: Delivery, reason: str, pool: Pool, payload: object = None, *, failed: bool | None = None
    ) -> Verdict:
        """Return the end of a delivery at which nothing was raised."""
        kind = TimeoutError if reason == _EXPIRED else PermanentError
        verdict = self._dead(delivery, kind(reason), reason, pool, payload, failed=failed)
        return verdict if isinstance(verdict.outcome, Ack) else attrs.evolve(verdict, error=None)

    def _dead(
        self,
        delivery: Delivery,
        error: Exception,
        reason: str,
        pool: Pool | None = None,
        payload: object = None,
        *,
        failed: bool | None = None,
    ) -> Verdict:
        """Answer a request with the error, since whoever asked can decide what to do; dead-letter what is none."""
        reply = self._answer(delivery.envelope, error)
        reason = self.mask(reason)
        return Verdict(DeadLetter(reason) if reply is None else Ack(reply), pool, error, payload, failed=failed)

    def _answer(self, envelope: Envelope, error: Exception) -> Envelope | None:
        if not envelope.reply_to or self.protocol is None:
            return None
        reply = None
        for told in (_itself, hidden, _plain):
            try:
                reply = self.protocol.encode_error(envelope, told(error, self.mask))
            except BaseException as broken:  # noqa: ASYNC103, BLE001  the protocol's code; the plainer one is left
                owned(broken)
            else:
                if reply is None or not self._shows(reply):
                    return reply
        return reply

    def _shows(self, reply: Envelope) -> bool:
        """Whether an answer has a secret in it, which the text of an exception may bring."""
        told = [reply.body.decode(errors="replace"), *(str(value) for value in reply.headers.values())]
        return any(self.mask(text) != text for text in told)


def _itself(error: Exception, _: Mask) -> Exception:
    return error


def _plain(error: Exception, mask: Mask) -> Exception:
    return DeliveryError(describe(error, mask))


def _hold(work: Work, result: object, check: Callable[[object], object]) -> None:
    """Hold a result against what its handler promises, before anybody gets it."""
    try:
        check(result)
    except ConversionError as error:
        problems = error.problems
    else:
        return
    # Outside of the handler, and so unchained: what is wrong may be in what the user's code raised.
    raise ResultError(work.delivery.envelope.subject[:_SHOWN], problems)


def is_late(delivery: Delivery) -> bool:
    """Whether the deadline of a delivery has passed."""
    deadline = delivery.envelope.deadline
    return deadline != math.inf and deadline <= trio.current_time()


def decide(
    error: Exception,
    policy: RetryPolicy,
    *,
    attempt: int,
    chance: Callable[[], float] = random.random,
    mask: Mask = str,
) -> Retry | DeadLetter:
    """Return what follows for a delivery whose handler raised."""
    reason = describe(error, mask)
    leaves = leaves_of(error)
    if any(is_a(leaf, PermanentError) for leaf in leaves):
        return DeadLetter(reason)
    if not all(is_a(leaf, TransientError, TimeoutError, *policy.on) for leaf in leaves):
        return DeadLetter(f"{reason} (not among those to retry on)")
    if attempt >= policy.attempts:
        return DeadLetter(f"{reason} (attempt {attempt} of {policy.attempts})")
    after = _after(error)
    return Retry(backoff(policy, attempt, chance()) if after is None else after, reason)


def _after(error: Exception) -> float | None:
    """Return the wait that an error asks for; None if it asks for none."""
    waits = [cast("TransientError", leaf).after for leaf in leaves_of(error) if is_a(leaf, TransientError)]
    return max((wait for wait in waits if wait is not None), default=None)


def _asks_for_retry(error: Exception) -> bool:
    return _after(error) is not None and all(is_a(leaf, TransientError) for leaf in leaves_of(error))


# --- whose an exception is --------------------------------------------------------------------------------------


def passing(error: BaseException) -> list[BaseException]:
    """Return what of an exception ends this task or the program, and so is nobody's failure.

    To be asked in the task that it was raised in. A `Cancelled` that comes out of a task which nobody cancels was kept
    from elsewhere, and means nothing here.
    """
    is_cancelled = trio.lowlevel.in_trio_task() and trio.current_effective_deadline() == -math.inf
    kinds: list[type[BaseException]] = [trio.Cancelled] if is_cancelled else []
    if is_from_terminal():
        kinds.append(KeyboardInterrupt)
    return [leaf for leaf in leaves_of(error) if is_a(leaf, *kinds)]


def owned(error: BaseException) -> Exception:
    """Return an exception of somebody else's code as an `Exception`; raise it if any of it ends this task."""
    if passing(error):
        raise error
    return _tamed(error)


def only_passing(error: BaseException) -> BaseException:
    """Return what may leave a task in which others' code was called: all of it, if nothing of it passes."""
    left = passing(error)
    return (left[0] if len(left) == 1 else BaseExceptionGroup("cancelled", left)) if left else error


def _tamed(error: BaseException) -> Exception:
    """Return an exception that may be any as one that retry policies and protocols know."""
    if is_a(error, Exception):
        return cast("Exception", error)
    leaves = [_tamed_leaf(leaf) for leaf in leaves_of(error)]
    tame = leaves[0] if len(leaves) == 1 else ExceptionGroup("several were raised", leaves)
    return tame.with_traceback(error.__traceback__)  # so that it tells where it was raised, as others do


def _tamed_leaf(error: BaseException) -> Exception:
    if is_a(error, Exception):
        return cast("Exception", error)
    if is_a(error, SystemExit):
        tame: Exception = PermanentError(f"the handler called sys.exit({cast('SystemExit', error).code!r})")
    else:
        tame = DeliveryError(describe(error, most=UNCUT))
    tame.__cause__ = error
    return tame
