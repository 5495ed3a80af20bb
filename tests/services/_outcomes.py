"""What may become of a delivery, by what its handlers did: the rules of the kernel, said a second time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from kernel import Ack, DeadLetter, Outcome, Retry, Return
from kernel.errors import PermanentError, TransientError

from ._acts import LETS_GO
from ._draw import Hand, Source, Task
from ._world import NEAR, OUTCOMES, Call, Parcel, World, timeout

Kinds: TypeAlias = frozenset[type[Outcome]]
NOTHING: Final[Kinds] = frozenset()
RETURNED: Final[Kinds] = frozenset({Return})
DEAD: Final[Kinds] = frozenset({DeadLetter})
ACKED: Final[Kinds] = frozenset({Ack})
TRIED: Final[Kinds] = frozenset({Retry})
RANKS: Final = (Ack, Return, Retry, DeadLetter)


def outcomes(world: World, parcel: Parcel) -> Kinds:
    """Return what a delivery may have become."""
    if parcel.revoked_at < math.inf:
        return ACKED if calls_of(world, parcel) else ACKED | RETURNED
    source = next(source for source in world.draw.sources if source.name == parcel.task.dispatcher)
    late = RETURNED if _may_be_cut(world, parcel, source) else NOTHING
    if parcel.task.body in {"garbage", "unknown"}:
        return late | _refused(parcel.task)
    if "fan_out" in source.table:
        hands = [hand for hand in world.draw.hands if hand.table.get("dispatcher") == source.name]
        return late | _combined([_by(world, parcel, hand) for hand in hands])
    hand = next(hand for hand in world.draw.hands if parcel.task.subject == f"{hand.name}.at")
    return late | _by(world, parcel, hand)


def _may_be_cut(world: World, parcel: Parcel, source: Source) -> bool:
    """Whether it may have been given back because of a cut, or had not begun when its source stopped or broke."""
    at, name = parcel.told[0][0], parcel.task.dispatcher
    if at >= world.cut_at(name, parcel.taken_at) - NEAR:
        return True
    hands = [hand for hand in world.draw.hands if hand.table.get("dispatcher") == name]
    wanted = len(hands) if "fan_out" in source.table else 1
    return len(calls_of(world, parcel)) < wanted and at >= world.stop_at - NEAR


def _combined(parts: Sequence[Kinds]) -> Kinds:
    reached: set[int] = {0}
    for kinds in parts:
        reached = {max(rank, RANKS.index(kind)) for rank in reached for kind in kinds}
    return frozenset(RANKS[rank] for rank in reached)


def _by(world: World, parcel: Parcel, hand: Hand) -> Kinds:
    """Return what one worker may have made of it."""
    calls = [call for call in calls_of(world, parcel) if call.hand is hand]
    kinds = _after_call(world, parcel, calls[0]) if calls else _without_call(world, parcel, hand)
    if Return not in kinds and DeadLetter in kinds and "failure_worker" in hand.table:
        return (kinds - DEAD) | _buried(world, parcel)
    if DeadLetter in kinds and "failure_worker" in hand.table:
        return kinds | _buried(world, parcel)
    return kinds


def _buried(world: World, parcel: Parcel) -> Kinds:
    for call in world.calls:
        if call.hand.buries and call.number == parcel.task.number:
            if call.how == "returned":
                return RETURNED if isinstance(call.result, Return) else ACKED
            return DEAD | RETURNED if call.how == "cancelled" else DEAD
    return DEAD | RETURNED


def _after_call(world: World, parcel: Parcel, call: Call) -> Kinds:
    task, attempts = parcel.task, _attempts(call.hand)
    if call.how == "returned":
        if isinstance(call.result, DeadLetter) or (isinstance(call.result, Retry) and task.attempt >= attempts):
            return _refused(task)
        if isinstance(call.result, OUTCOMES):
            return frozenset({type(call.result)})
        if isinstance(call.result, type):
            return _failed(task, attempts, ValueError())
        return ACKED
    if call.how == "raised" and call.error is not None:
        own = _failed(task, attempts, call.error)
        return own if call.act in LETS_GO else own | RETURNED
    own = _failed(task, attempts, ValueError()) if call.ended >= call.began + timeout(call.hand) - NEAR else NOTHING
    if call.ended >= parcel.envelope.deadline - NEAR:
        own |= _refused(task)
    if call.life.gone_at <= call.ended or world.stop_at <= call.ended:
        own |= RETURNED
    if call.ended >= world.cut_at(task.dispatcher, parcel.taken_at) - NEAR:
        own |= RETURNED
    return own


def _failed(task: Task, attempts: int, error: BaseException) -> Kinds:
    """Return what a delivery may become whose handler raised."""
    leaves = list(leaves_of(error))
    asks_for_later = all(isinstance(leaf, TransientError) for leaf in leaves) and any(map(_after, leaves))
    if task.reply_to:
        return TRIED if asks_for_later and task.attempt < attempts else ACKED
    if any(isinstance(leaf, PermanentError | SystemExit) for leaf in leaves):
        return DEAD
    if not all(isinstance(leaf, Exception) for leaf in leaves):
        return DEAD | TRIED if task.attempt < attempts else DEAD
    return TRIED if task.attempt < attempts else DEAD


def _after(error: BaseException) -> float | None:
    return getattr(error, "after", None)


def _without_call(world: World, parcel: Parcel, hand: Hand) -> Kinds:
    """Return what may become of what no handler was given."""
    task = parcel.task
    table = hand.table
    kinds = NOTHING
    if parcel.told[0][0] >= parcel.envelope.deadline - NEAR:
        kinds |= _refused(task)
    if task.attempt > _attempts(hand):
        return kinds | _refused(task)
    if "filter" in table:
        wish = str(table["filter"]).rpartition(":")[2]
        if wish == "raises":
            return kinds | _failed(task, _attempts(hand), ValueError())
        if wish == "wants_even" and task.number % 2 and task.body != "wrong":
            return kinds | ACKED
    if task.body == "wrong":
        return kinds | _refused(task)
    if world.is_gone(hand):
        kinds |= RETURNED | (ACKED if task.reply_to else NOTHING)
    return kinds


def _refused(task: Task) -> Kinds:
    return ACKED if task.reply_to else DEAD


def _attempts(hand: Hand) -> int:
    return hand.table.get("retry", {"attempts": 3})["attempts"]


def lacks_answer(world: World, parcel: Parcel) -> bool:
    """Whether somebody waits for an answer to what was acknowledged without one."""
    task = parcel.task
    if not task.reply_to or parcel.revoked_at < math.inf:
        return False
    calls = calls_of(world, parcel)
    has_acked = any(isinstance(call.result, Ack) for call in calls)
    is_filtered = any("filter" in hand.table for hand in world.draw.hands if not hand.buries)
    is_buried = any(call.hand.buries for call in world.calls if call.number == task.number)
    return not (has_acked or is_filtered or is_buried)


def calls_of(world: World, parcel: Parcel) -> list[Call]:
    return [call for call in world.calls if call.number == parcel.task.number and not call.hand.buries]


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves_of(inner)
    else:
        yield error
