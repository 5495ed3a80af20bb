"""Seed -> a service, what is sent to it, and when it is stopped: everything is drawn before anything runs."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar, final

import attrs

from ._acts import ACTS

T = TypeVar("T")

SOON: Final = (0.0, 0.0, 0.01, 0.3, 1.0)
NEAR_GRID: Final = (3.97, 4.0, 4.02, 4.0625, 5.0)
"""Around the 4 s from which on a deadline is the next multiple of 1/16 s, and on both sides of such."""
LATE: Final = 900.0
"""Seconds after which whatever can be settled has been."""


@final
@attrs.frozen(kw_only=True)
class Task:
    """One message: what it says, how its source behaves, and what its handler does."""

    number: int
    at: float
    """Seconds after the start from which on the source has it."""
    dispatcher: str
    subject: str
    body: str
    """`good`; or `garbage`, `unknown` or `wrong`, which can be neither decoded, routed nor converted."""
    way: str
    """`submit` or `handle`."""
    settles: float | None
    """Seconds that the source takes to note an outcome; None does it without waiting."""
    refuses: bool
    """Whether the source raises when it is told the outcome."""
    reply_to: str
    within: float
    """Seconds after `at` of its deadline."""
    attempt: int
    name: str
    """What it can be revoked by."""
    revoked: float
    """Seconds after `at` at which it is revoked."""
    act: str
    """What its handler does, a key of `ACTS`."""
    seconds: float
    """How long that takes."""
    more: float
    """How long a handler goes on that is cancelled and does not end at once."""


@final
@attrs.frozen(kw_only=True)
class Hand:
    """One worker."""

    name: str
    table: Mapping[str, object]
    pattern: str
    """Of the subjects that it handles."""
    is_class: bool
    lives: Sequence[float]
    """Seconds after which its `run` raises, one for each life that ends so; empty if it has none."""
    closing: float
    """Seconds that closing takes."""
    stubborn: bool
    """Whether closing cannot be cancelled."""
    batches: bool
    buries: bool
    """Whether it is a failure worker."""


@final
@attrs.frozen(kw_only=True)
class Source:
    """One dispatcher."""

    name: str
    table: Mapping[str, object]
    feeders: int
    breaks: Sequence[float]
    """Seconds after which `accept` raises, one for each life that ends so."""
    parting: str
    """What `accept` does when it is cancelled: `well`, `slow` or `raises`."""


@final
@attrs.frozen(kw_only=True)
class Draw:
    """A service and what happens to it."""

    seed: int
    sources: Sequence[Source]
    hands: Sequence[Hand]
    tasks: Sequence[Task]
    drain_timeout: float
    stop_at: float
    hasten_after: float
    """Seconds after the stop; infinite if it is not hastened."""

    @property
    def manifest(self) -> dict[str, object]:
        """The tables."""
        return {
            "kernel": {"name": "drawn", "grace_period": 600.0, "drain_timeout": self.drain_timeout},
            "drivers": {"base": {"plugin": "base", "stop_timeout": 1.0}},
            "dispatchers": {source.name: dict(source.table) for source in self.sources},
            "workers": {hand.name: dict(hand.table) for hand in self.hands},
        }


def draw(seed: int) -> Draw:
    """Return what a seed means."""
    return _Drawing(random.Random(seed)).service(seed)


@final
@attrs.define(eq=False)
class _Drawing:
    """Draws one service."""

    chance: random.Random

    def maybe(self, share: float) -> bool:
        return self.chance.random() < share

    def one(self, options: Sequence[T]) -> T:
        return self.chance.choice(options)

    def between(self, low: float, high: float) -> float:
        return round(self.chance.uniform(low, high), 4)

    def service(self, seed: int) -> Draw:
        sources = [self.source(f"source{number}") for number in range(self.one([1, 1, 2]))]
        hands = [hand for source in sources for hand in self.hands(source)]
        if any("failure_worker" in hand.table for hand in hands):
            hands.append(self.last_resort())
        return Draw(
            seed=seed,
            sources=sources,
            hands=hands,
            tasks=self.tasks(sources, hands),
            drain_timeout=self.one([0.5, 2.0, 5.0]),
            stop_at=LATE if self.maybe(0.3) else self.between(0, self.one([0.5, 4.0, 12.0])),
            hasten_after=self.one(SOON) if self.maybe(0.25) else math.inf,
        )

    def source(self, name: str) -> Source:
        table: dict[str, object] = {
            "plugin": "source",
            "driver": "base",
            "protocol": "plain",
            "concurrency": self.one([1, 2, 4, 8]),
            "stop_timeout": self.one([1.0, 2.0]),
        }
        shape = self.one(["single", "single", "single", "batch", "fan_out"])
        if shape == "batch":
            table["concurrency"] = self.one([3, 4, 8])
            table["batch"] = {"size": self.one([1, 2, 3]), "wait": self.one([0.0, 0.5])}
        if shape == "fan_out":
            table["fan_out"] = True
        if self.maybe(0.2):
            table["rate"] = {"messages": self.one([1, 3]), "per": self.one([0.5, 1.0])}
        return Source(
            name=name,
            table=table,
            feeders=self.one([1, 2, 3]),
            breaks=[self.between(0, 6)] if self.maybe(0.2) else [],
            parting=self.one(["well", "well", "slow", "raises on its way out"]),
        )

    def hands(self, source: Source) -> list[Hand]:
        return [self.hand(f"{source.name}_hand{number}", source) for number in range(self.one([1, 2, 3]))]

    def hand(self, name: str, source: Source) -> Hand:
        is_class = self.maybe(0.6)
        crashes = is_class and self.maybe(0.4)
        table: dict[str, object] = {
            "use": name,
            "dispatcher": source.name,
            "timeout": self.one([0.3, 1.0, *NEAR_GRID]),
            "retry": {"attempts": self.one([1, 2, 3]), "backoff_initial": 1.0, "jitter": 0.0},
            "stop_timeout": self.one([1.0, 2.0]),
            "essential": False,
            "restart": {"backoff_initial": self.one([0.0, 0.2, 1.0]), "max_restarts": self.one([0, 20])},
        }
        if is_class:
            table |= {"instances": self.one([1, 1, 2, 3]), "drivers": {"base": "base"}}
        if self.maybe(0.5):
            table["concurrency"] = self.one([1, 2])
        if self.maybe(0.2):
            table["kill_switch"] = {
                "failure_rate": self.one([0.3, 0.6]),
                "minimum": self.one([1, 3]),
                "window": 5.0,
                "pause": self.one([0.2, 1.5]),
            }
        if self.maybe(0.15):
            table["failure_worker"] = "last_resort"
        if self.maybe(0.2):
            table["filter"] = f"{MODULE}:{self.one(['wants_all', 'wants_even', 'raises'])}"
        return Hand(
            name=name,
            table=table,
            pattern="all.*" if "fan_out" in source.table else f"{name}.*",
            is_class=is_class,
            lives=[self.between(0, 4) for _ in range(self.one([1, 2, 3]))] if crashes else [],
            closing=self.one([0.0, 0.0, 0.3, math.inf]) if is_class else 0.0,
            stubborn=is_class and self.maybe(0.15),
            batches="batch" in source.table,
            buries=False,
        )

    def last_resort(self) -> Hand:
        is_class = self.maybe(0.5)
        table: dict[str, object] = {"use": "last_resort", "timeout": self.one([0.3, 4.0]), "essential": False}
        if is_class:
            table["drivers"] = {"base": "base"}
        return Hand(
            name="last_resort",
            table=table,
            pattern="#",
            is_class=is_class,
            lives=[self.between(0, 4)] if is_class and self.maybe(0.2) else [],
            closing=0.0,
            stubborn=False,
            batches=False,
            buries=True,
        )

    def tasks(self, sources: Sequence[Source], hands: Sequence[Hand]) -> list[Task]:
        at, found = 0.0, list[Task]()
        for number in range(self.one([8, 20, 40])):
            at += self.between(0, 0.6) if self.maybe(0.4) else 0.0
            source = self.one(sources)
            names = [hand.name for hand in hands if hand.table.get("dispatcher") == source.name]
            found.append(self.task(number, round(at, 4), source, self.one(names)))
        return found

    def task(self, number: int, at: float, source: Source, worker: str) -> Task:
        body = self.one(["good"] * 16 + ["garbage", "unknown", "wrong"])
        way = self.one(["submit", "submit", "handle"])
        name = f"name{number % 7}" if way == "submit" and self.maybe(0.3) else ""
        return Task(
            number=number,
            at=at,
            dispatcher=source.name,
            subject="nobody.at" if body == "unknown" else "all.at" if "fan_out" in source.table else f"{worker}.at",
            body=body,
            way=way,
            settles=self.one([2.0, 30.0]) if self.maybe(0.2) else self.one([None, None, 0.0, 0.3]),
            refuses=self.maybe(0.05),
            reply_to="caller" if self.maybe(0.25) else "",
            within=self.one([0.0, 0.3, 1.0, *NEAR_GRID]) if self.maybe(0.25) else math.inf,
            attempt=self.one([1, 1, 1, 2, 3, 4]),
            name=name,
            revoked=self.one([0.0, 0.01, 0.5, 2.0]) if name and self.maybe(0.7) else math.inf,
            act=self.one(list(ACTS)),
            seconds=self.one([*SOON, *SOON, *NEAR_GRID, 1000.0]),
            more=self.one([0.0, 0.1, 0.2]),
        )


MODULE: Final = "drawn_wishes"
"""Where the manifest finds its filters, while a service is played."""
