"""What must hold of every service that was played, whatever it was and whenever it was stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from kernel import Ack, ComponentFailed, DeliverySettled, StateChanged
from kernel._core.events import DeliveryDone, KernelStopped, KillSwitchChanged, SettleFailed
from kernel._core.lifecycle import FINAL
from kernel.errors import DependencyError

from ._acts import LETS_GO
from ._draw import LATE
from ._outcomes import calls_of, lacks_answer, leaves_of, outcomes
from ._world import NEAR, Call, CrashError, SourceBrokenError, World

GRID: Final = 1 / 16


def broken(world: World) -> list[str]:
    """Return what does not hold."""
    return [*world.broken, *(f"{fact.__name__}: {text}" for fact in FACTS for text in fact(world))]


def settled_once(world: World) -> Iterator[str]:
    """What was taken is settled exactly once, and nothing else is."""
    for parcel in world.parcels:
        expected = 1 if parcel.taken_at < math.inf else 0
        if len(parcel.told) != expected:
            yield f"{parcel.task.number} is settled {len(parcel.told)} times: {parcel.told}"


def told_once(world: World) -> Iterator[str]:
    """One event tells of each end, and it is true."""
    ends: dict[str, list[DeliverySettled]] = {}
    failed: dict[str, int] = {}
    for event in world.events:
        if isinstance(event, DeliverySettled):
            ends.setdefault(event.delivery_id, []).append(event)
        if isinstance(event, SettleFailed):
            failed[event.delivery_id] = failed.get(event.delivery_id, 0) + 1
    for parcel in world.parcels:
        found = ends.get(parcel.envelope.id, [])
        failures = failed.get(parcel.envelope.id, 0)
        if failures and any(isinstance(event, DeliveryDone) for event in found):
            yield f"{parcel.task.number} is done, and could not be settled"
        if len(parcel.told) == 1 and failures == 0 and [event.outcome for event in found] != [parcel.told[0][1]]:
            yield f"{parcel.task.number} became {parcel.told[0][1]}, and events tell of {found}"
        if parcel.ended and parcel.told and parcel.ended != [parcel.told[0][1]]:
            yield f"{parcel.task.number} became {parcel.told[0][1]}, and `handle` returned {parcel.ended}"


def ends_as_it_should(world: World) -> Iterator[str]:
    """What becomes of a delivery follows from what its handlers did."""
    for parcel in world.parcels:
        if len(parcel.told) != 1:
            continue
        outcome = parcel.told[0][1]
        allowed = outcomes(world, parcel)
        calls = [(call.hand.name, call.act, call.how) for call in calls_of(world, parcel)]
        if type(outcome) not in allowed:
            yield f"{parcel.task} became {outcome} after {calls}: {sorted(kind.__name__ for kind in allowed)}"
        if isinstance(outcome, Ack) and outcome.reply is not None and not parcel.task.reply_to:
            yield f"{parcel.task.number} is answered though nobody asked"
        if isinstance(outcome, Ack) and outcome.reply is None and lacks_answer(world, parcel):
            yield f"{parcel.task} is not answered after {calls}"


def cancelled_in_time(world: World) -> Iterator[str]:
    """A handler is cancelled when its time is over, and not before, unless something else ends it."""
    for call in world.calls:
        if call.act not in LETS_GO or call.ended == math.inf:
            continue
        slack = GRID if call.deadline - call.began >= 4.0 - NEAR else 0.0
        if call.ended > call.deadline + slack + NEAR and call.how == "cancelled":
            yield f"{_shown(world, call)} is cancelled too late"
        if call.how != "cancelled" and call.ended > call.deadline + slack + NEAR:
            yield f"{_shown(world, call)} goes on past its time"
        if call.how == "cancelled" and not _has_cause(world, call):
            yield f"{_shown(world, call)} is cancelled for no reason"


def stops_in_time(world: World) -> Iterator[str]:
    """A stop takes no longer than its proof says, but for what cannot be cancelled."""
    assert world.kernel is not None
    [stopped] = [event for event in world.events if isinstance(event, KernelStopped)]
    waits = world.kernel.plan.budget.waits
    bound = sum(wait.seconds for wait in waits if wait.what not in {"flush", "drain"})
    drain = min(world.draw.drain_timeout, world.hastened_at - world.stop_at)
    bound = max(bound + drain, world.held_until - world.stop_at)
    if stopped.seconds > bound + 0.1:
        yield f"the stop took {stopped.seconds:.3f} s, and its budget is {bound:.3f} s"


def nobody_else_falls(world: World) -> Iterator[str]:
    """No dispatcher fails of what is not its own fault, and so the service does not either."""
    for event in world.events:
        is_dispatcher = isinstance(event, ComponentFailed) and event.component.startswith("dispatcher/")
        if is_dispatcher and not all(_is_own(world, leaf, event.component) for leaf in leaves_of(event.error)):
            yield f"{event.component} failed of {event.error!r}"
    assert world.result is not None
    for error in world.result.errors:
        if not all(isinstance(leaf, CrashError) or _is_own(world, leaf, "") for leaf in leaves_of(error)):
            yield f"the service failed of {error!r}"


def _is_own(world: World, error: BaseException, component: str) -> bool:
    """Whether a dispatcher may fail of an error: the draw says so, or none of its workers will come back."""
    if isinstance(error, SourceBrokenError):
        return True
    sources = [source.name for source in world.draw.sources if component in {"", f"dispatcher/{source.name}"}]
    return isinstance(error, DependencyError) and any(map(world.is_left_alone, sources))


def slots_are_free(world: World) -> Iterator[str]:
    """Nothing stays taken, and nothing stays known by a name."""
    for source, intake in world.intakes:
        if intake.in_flight:
            yield f"{source.name} has {intake.in_flight} slots taken at its end"
        for name in {task.name for task in world.draw.tasks} - {""}:
            if intake.revoke(name):
                yield f"{source.name} still knows {name}"


def stops_in_order(world: World) -> Iterator[str]:
    """Who uses another is down before that one is."""
    assert world.kernel is not None
    ends = {
        event.component.partition("[")[0]: at
        for at, event in enumerate(world.events)
        if isinstance(event, StateChanged) and event.new in FINAL and world.heard_at[id(event)] >= world.stop_at
    }
    gone = _ended_before_the_stop(world)
    fell = {f"worker/{name}" for name in world.crashed}
    left = world.left_behind
    for spec in world.kernel.plan.components.values():
        if spec.id not in ends and spec.id not in {*left, *gone}:
            yield f"{spec.id} has not ended"
        for other in {*spec.uses, *spec.after} - left - fell:
            if spec.id not in left and ends.get(spec.id, -1) > ends.get(other, math.inf):
                yield f"{other} ended before {spec.id}"


def nothing_is_held(world: World) -> Iterator[str]:
    """What could be settled was settled long before a late stop."""
    if world.draw.stop_at != LATE or world.stop_at < LATE:
        return
    if any(component.startswith("worker/") for component in _ended_before_the_stop(world)):
        return
    for parcel in world.parcels:
        if not parcel.told or parcel.told[0][0] >= world.stop_at:
            yield f"{parcel.task} was held until the stop"


def switched_as_it_should(world: World) -> Iterator[str]:
    """A kill switch opens again only if the call that tried its worker went badly."""
    for event in world.events:
        if isinstance(event, KillSwitchChanged) and event.reason == "the call that tried it failed":
            at, worker = world.heard_at[id(event)], event.component.removeprefix("worker/")
            ended = [call for call in world.calls if call.hand.name == worker and abs(call.ended - at) < NEAR]
            if all(call.how == "returned" and not isinstance(call.result, type) for call in ended):
                yield f"{worker} is paused at {at - world.began:.4f} after {[call.act for call in ended]}"


FACTS: Final[Sequence[Callable[[World], Iterable[str]]]] = (
    settled_once,
    told_once,
    ends_as_it_should,
    cancelled_in_time,
    stops_in_time,
    nobody_else_falls,
    slots_are_free,
    stops_in_order,
    nothing_is_held,
    switched_as_it_should,
)


def _ended_before_the_stop(world: World) -> set[str]:
    return {
        event.component.partition("[")[0]
        for event in world.events
        if isinstance(event, StateChanged) and event.new in FINAL and world.heard_at[id(event)] < world.stop_at
    }


def _has_cause(world: World, call: Call) -> bool:
    parcel = world.parcels[call.number]
    causes = [
        call.deadline,
        call.life.gone_at,
        max(parcel.revoked_at, world.stop_at) if call.hand.batches else parcel.revoked_at,
        world.cut_at(parcel.task.dispatcher, parcel.taken_at),
    ]
    return call.ended >= min(causes) - NEAR


def _shown(world: World, call: Call) -> str:
    began, ended = (round(at - world.began, 4) for at in (call.began, call.ended))
    return (
        f"{call.hand.name} with {call.number} ({call.act}), {began} to {ended}, due {call.deadline - world.began:.4f},"
    )
