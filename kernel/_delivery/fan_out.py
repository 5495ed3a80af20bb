"""One delivery, every worker: each worker of a dispatcher attempts it for itself, and one verdict is made of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never, final

import attrs
import trio
from typing_extensions import override

from .._core.broker import Delivery
from .._core.envelope import Ack, DeadLetter, Envelope, Message, Outcome, Retry, Return
from .attempt import Relay, Verdict
from .leash import Attempting, Leash
from .pipeline import Pipeline

_RANKS: Final = (Ack, Return, Retry, DeadLetter)
"""What several verdicts come to: the last of these that any of them is."""


@final
@attrs.frozen(eq=False)
class FanOut(Attempting):
    """Gives each delivery to all workers of a dispatcher that have a handler for it, at the same time.

    Each has a pipeline of its own, so that filter, timeout, retry policy, kill switch and failure worker are its own
    too. The delivery is decoded once and settled once.
    """

    pipelines: Sequence[Pipeline]
    """One for each worker, in the order of the manifest; at least one."""

    @override
    def close(self) -> None:
        for pipeline in self.pipelines:
            pipeline.close()

    @override
    async def attempt(self, delivery: Delivery, leash: Leash | None = None) -> Verdict:
        first = self.pipelines[0]
        try:
            message = delivery.message or first.decode(delivery.envelope)
            wanting = [pipeline for pipeline in self.pipelines if pipeline.router.match(message.subject) is not None]
        except BaseException as error:  # noqa: ASYNC103, BLE001  as in the pipeline
            return first.judge.undecodable(delivery, error)  # noqa: ASYNC910  as there: there is nothing to wait for
        copy = _Copy(delivery, message)
        if not wanting:
            return first.judge.unroutable(delivery, message.subject)  # noqa: ASYNC910  as above
        if len(wanting) == 1:
            return await wanting[0].attempt(copy)
        verdicts: dict[Pipeline, Verdict] = {}
        async with trio.open_nursery() as nursery:
            for pipeline in wanting:
                nursery.start_soon(_attempt, pipeline, copy, verdicts)
        return combined([verdicts[pipeline] for pipeline in wanting])


async def _attempt(pipeline: Pipeline, delivery: Delivery, verdicts: dict[Pipeline, Verdict]) -> None:
    verdicts[pipeline] = await pipeline.attempt(delivery)


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """Return what several workers' verdicts on one delivery come to: dead letter, else retry, return, ack.

    Args:
        verdicts: In the order of the manifest.
    """
    rank = max(_RANKS.index(type(verdict.outcome)) for verdict in verdicts)
    deciding = [verdict for verdict in verdicts if type(verdict.outcome) is _RANKS[rank]]
    pool = deciding[0].pool if len(deciding) == 1 else None
    takers = ", ".join(verdict.taken_by for verdict in verdicts if verdict.taken_by)
    is_not_now = any(verdict.is_not_now for verdict in deciding)
    return Verdict(_outcome(deciding), pool, _error(verdicts), taken_by=takers, is_not_now=is_not_now)


def _outcome(deciding: Sequence[Verdict]) -> Outcome:
    """Return the outcome of verdicts that are all of one kind."""
    outcome = deciding[0].outcome
    match outcome:
        case Ack():
            return Ack(_reply(deciding))
        case Retry():
            after = max(one.outcome.after for one in deciding if isinstance(one.outcome, Retry))
            return Retry(after, _reason(deciding))
        case DeadLetter():
            return DeadLetter(_reason(deciding))
        case Return():
            return Return()
        case _:
            assert_never(outcome)


def _reason(deciding: Sequence[Verdict]) -> str:
    reasons = [(one.worker, one.outcome.reason) for one in deciding if isinstance(one.outcome, Retry | DeadLetter)]
    return reasons[0][1] if len(reasons) == 1 else "; ".join(f"{worker}: {reason}" for worker, reason in reasons)


def _reply(acked: Sequence[Verdict]) -> Envelope | None:
    """Return the answer of the first worker that had one, else the first error, else the first that says nothing."""
    answers = [(one, one.outcome.reply) for one in acked if isinstance(one.outcome, Ack) and one.outcome.reply]
    spoken = [reply for one, reply in answers if one.result is not None]
    errors = [reply for one, reply in answers if one.error is not None]
    return next(iter([*spoken, *errors, *(reply for _, reply in answers)]), None)


def _error(verdicts: Sequence[Verdict]) -> BaseException | None:
    errors = [verdict.error for verdict in verdicts if verdict.error is not None]
    if len(errors) < 2:
        return errors[0] if errors else None
    return BaseExceptionGroup(f"{len(errors)} workers failed", errors)


@final
@attrs.frozen(eq=False, repr=False)
class _Copy(Relay):
    """A delivery as each of its workers sees it: decoded already."""

    _message: Message

    @property
    @override
    def message(self) -> Message:
        return self._message
