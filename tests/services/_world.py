"""A drawn service while it is played: its source, its workers, and a diary of what they did."""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final, final

import attrs
import trio
from typing_extensions import override

from kernel import Ack, DeadLetter, Envelope, Event, Outcome, Result, Retry, Return
from kernel._core.events import StateChanged, StopTimedOut
from kernel._core.lifecycle import FINAL
from kernel._supervise.kernel import Kernel
from kernel._supervise.life import CLOSING_SHARE
from kernel.abc import Delivery, Intake

from ._acts import ACTS
from ._draw import Draw, Hand, Source, Task

NEAR: Final = 1e-6
"""Seconds that are none."""
OUTCOMES: Final = (Ack, Retry, DeadLetter, Return)
SENDER: Final[ContextVar[int]] = ContextVar("sender", default=-1)
"""Set by a source before each delivery: its handler must see it."""
LEFT: Final[ContextVar[int]] = ContextVar("left", default=-1)
"""Set by each handler: no other may see it."""


class SourceBrokenError(Exception):
    """What `accept` raises where the draw says so."""


class CrashError(Exception):
    """What `run` raises where the draw says so."""


@final
@attrs.frozen
class Item:
    """What a handler takes."""

    number: int


@final
@attrs.define(eq=False)
class Call:
    """One call of a handler, as one of its deliveries sees it."""

    number: int
    hand: Hand
    act: str
    began: float
    deadline: float
    """When it must have been cancelled, but for the grid."""
    life: Life
    ended: float = math.inf
    how: str = ""
    """`returned`, `raised` or `cancelled`."""
    result: object = None
    error: BaseException | None = None


@final
@attrs.define(eq=False)
class Life:
    """One object of a worker, or the one function."""

    hand: Hand
    running: int = 0
    gone_at: float = math.inf
    """When its `run` raised."""


@final
@attrs.define(eq=False)
class Parcel(Delivery):
    """A delivery that remembers what it was told."""

    task: Task
    _envelope: Envelope
    taken_at: float = math.inf
    told: list[tuple[float, Outcome]] = attrs.field(factory=list)
    ended: list[Outcome] = attrs.field(factory=list)
    """What `handle` returned."""
    revoked_at: float = math.inf

    @property
    @override
    def envelope(self) -> Envelope:
        return self._envelope

    @property
    @override
    def attempt(self) -> int:
        return self.task.attempt

    @property
    @override
    def redelivered(self) -> bool:
        return self.task.attempt > 1

    @override
    def settle_nowait(self, outcome: Outcome) -> bool:
        if self.task.settles is not None:
            return False
        self._tell(outcome)
        return True

    @override
    async def settle(self, outcome: Outcome) -> None:
        self.told.append((trio.current_time(), outcome))
        await trio.sleep(self.task.settles or 0.0)
        self._refuse()

    def _tell(self, outcome: Outcome) -> None:
        self.told.append((trio.current_time(), outcome))
        self._refuse()

    def _refuse(self) -> None:
        if self.task.refuses:
            raise OSError("the source is gone")


@final
@attrs.define(eq=False)
class World:
    """What there is while a service is played, and what it did."""

    draw: Draw
    parcels: list[Parcel] = attrs.field(factory=list, init=False)
    pending: dict[str, deque[Parcel]] = attrs.field(factory=dict, init=False)
    """By dispatcher, what its source has not sent."""
    intakes: list[tuple[Source, Intake]] = attrs.field(factory=list, init=False)
    calls: list[Call] = attrs.field(factory=list, init=False)
    events: list[Event] = attrs.field(factory=list, init=False)
    broken: list[str] = attrs.field(factory=list, init=False)
    """What was seen that must not be."""
    cuts: dict[str, list[float]] = attrs.field(factory=dict, init=False)
    """By dispatcher, when its `accept` raised by itself."""
    open: Counter[str] = attrs.field(factory=Counter, init=False)
    """How many lives of each kind are between being opened and closed."""
    lives: dict[str, list[float]] = attrs.field(factory=dict, init=False)
    breaks: dict[str, list[float]] = attrs.field(factory=dict, init=False)
    held_until: float = -math.inf
    """The end of the last that could not be cancelled."""
    stop_at: float = math.inf
    hastened_at: float = math.inf
    heard_at: dict[int, float] = attrs.field(factory=dict, init=False)
    """By the identity of each event, when it was."""
    kernel: Kernel | None = None
    result: Result | None = None

    def __attrs_post_init__(self) -> None:
        self.pending = {source.name: deque() for source in self.draw.sources}
        self.lives = {hand.name: list(hand.lives) for hand in self.draw.hands}
        self.breaks = {source.name: list(source.breaks) for source in self.draw.sources}

    def fill(self) -> None:
        """Give the sources what they are to send; needs the clock."""
        for task in self.draw.tasks:
            parcel = Parcel(task, _envelope(task, trio.current_time()))
            self.parcels.append(parcel)
            self.pending[task.dispatcher].append(parcel)

    def expect(self, holds: bool, otherwise: str) -> None:
        """Note it if something does not hold."""
        if not holds:
            self.broken.append(f"at {trio.current_time() - self.began:.4f} {otherwise}")

    parted: dict[str, float] = attrs.field(factory=dict, init=False)
    """By dispatcher, when its `accept` ended last."""
    crashed: set[str] = attrs.field(factory=set, init=False)
    """Workers whose `run` raised."""
    began: float = 0.0

    @property
    def left_behind(self) -> set[str]:
        """Components that were left behind."""
        return {event.component.partition("[")[0] for event in self.events if isinstance(event, StopTimedOut)}

    def is_gone(self, hand: Hand) -> bool:
        """Whether a worker has ended for good, all its instances or one of them."""
        name = f"worker/{hand.name}"
        changes = [event for event in self.events if isinstance(event, StateChanged)]
        return any(event.component.partition("[")[0] == name and event.new in FINAL for event in changes)

    def is_left_alone(self, source: str) -> bool:
        """Whether a worker of a dispatcher will not come back, so that it may have nothing left that it can do."""
        return any(self.is_gone(hand) for hand in self.draw.hands if hand.table.get("dispatcher") == source)

    def cut_at(self, source: str, since: float) -> float:
        """Return when what is in flight at a dispatcher since a time may be cancelled.

        Nothing is, after a stop, before `accept` has ended, or the dispatcher must close.
        """
        return min([self.drained_at(source), *(at for at in self.cuts.get(source, ()) if at >= since)])

    def drained_at(self, source: str) -> float:
        """Return when a stop cuts what is in flight at a dispatcher."""
        if self.stop_at == math.inf:
            return math.inf
        table = next(one.table for one in self.draw.sources if one.name == source)
        drained = min(self.stop_at + self.draw.drain_timeout, max(self.stop_at, self.hastened_at))
        closed = drained + CLOSING_SHARE * float(str(table["stop_timeout"]))
        return min(max(drained, self.parted.get(source, math.inf)), closed)

    async def call(self, life: Life, numbers: Sequence[int]) -> object:
        """Do what the first of the messages says, and note it for all."""
        hand, task = life.hand, self.draw.tasks[numbers[0]]
        calls = [self._begin(life, number, acts(hand, task)) for number in numbers]
        latest = max(self.parcels[number].envelope.deadline for number in numbers)
        for call in calls:
            call.deadline = min(call.began + timeout(hand), math.inf if hand.buries else latest)
        life.running += 1
        self.expect(life.running <= limit(hand, self.draw), f"{hand.name} has {life.running} calls at a time")
        how, result, error = "cancelled", None, None
        try:
            result = await ACTS[acts(hand, task)](task)
            how = "returned"
        except BaseException as raised:
            error = raised
            how = "cancelled" if is_cancelled(raised) else "raised"
            raise
        finally:
            life.running -= 1
            for call in calls:
                call.ended, call.how, call.result, call.error = trio.current_time(), how, result, error
        return result

    def _begin(self, life: Life, number: int, act: str) -> Call:
        hand, parcel, now = life.hand, self.parcels[number], trio.current_time()
        call = Call(number, hand, act, now, math.inf, life)
        self.calls.append(call)
        if not hand.buries:
            self.expect(now < parcel.envelope.deadline, f"{number} is started after its deadline")
            self.expect(not parcel.told, f"{number} is started though it is settled")
            # A batch may have begun in the very turn in which one of it is revoked.
            is_unwanted = parcel.revoked_at < now or (parcel.revoked_at == now and not hand.batches)
            self.expect(not is_unwanted, f"{number} is started though it was revoked")
        self.expect(now <= self.drained_at(parcel.task.dispatcher), f"{number} is started after the cut")
        if not hand.batches:
            self.expect(SENDER.get() == number, f"{number} runs in the context of {SENDER.get()}")
            self.expect(LEFT.get() in {-1, number}, f"{number} sees what {LEFT.get()} left")
        LEFT.set(number)
        return call


def acts(hand: Hand, task: Task) -> str:
    """Return what a worker does with a message."""
    if not hand.buries:
        return task.act
    return ("done", "done", "raises", "returns", "swallows")[task.number % 5]


def is_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(is_cancelled(one) for one in error.exceptions)
    return isinstance(error, trio.Cancelled)


def timeout(hand: Hand) -> float:
    return float(str(hand.table["timeout"]))


def limit(hand: Hand, draw: Draw) -> int:
    """Return how many calls an object may have at a time."""
    if hand.buries:
        return 1_000_000
    [source] = [source for source in draw.sources if source.name == hand.table["dispatcher"]]
    return int(str(hand.table.get("concurrency", source.table["concurrency"])))


def _envelope(task: Task, now: float) -> Envelope:
    body = {"good": json.dumps({"number": task.number}), "wrong": '{"number": "none"}'}.get(task.body)
    return Envelope(
        id=str(task.number),
        subject=task.subject,
        body=(body or ("{" if task.body == "garbage" else json.dumps({"number": task.number}))).encode(),
        reply_to=task.reply_to,
        deadline=now + task.at + task.within,
    )
