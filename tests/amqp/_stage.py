"""A service that publishes to itself over RabbitMQ, and an account of what became of each message."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TypedDict

import attrs
import trio

from kernel import SettleFailed, State, handles, new_id
from kernel.errors import TransientError, UnavailableError, UnknownOutcomeError
from kernel.testing import RunningService, open_kernel

HEARTBEAT = 1.0
BACKOFF = 1.0
"""Seconds that reconnecting and restarting may wait, added up: the manifest below sees to it."""
SLACK = 1.5
"""Seconds more, for a machine that is busy."""
RECOVERY = 2 * HEARTBEAT + BACKOFF + SLACK
PROMPT = 2 * HEARTBEAT + BACKOFF / 2 + 0.2
"""Seconds to recover from a black hole: two heartbeats to find it, one wait, and a margin for connecting again."""
RETRY = 2.0
"""Seconds between two attempts of a handler."""
DEADLINE = 45.0
"""Seconds that a publisher has for a message."""
PATIENCE = 45.0


class Item(TypedDict):
    """What a message says."""

    number: int
    padding: str
    seconds: float
    """How long its handler takes."""
    fails: int
    """How often its handler fails before."""


@attrs.define(eq=False)
class Record:
    """What handlers did."""

    done: Counter[int] = attrs.field(factory=Counter[int], init=False)
    tried: Counter[int] = attrs.field(factory=Counter[int], init=False)
    running: Counter[int] = attrs.field(factory=Counter[int], init=False)
    most_running: int = attrs.field(default=0, init=False)
    """The most handlers that ran for one message at a time."""


class Work:
    """Does each item, in the time that it takes."""

    def __init__(self, record: Record) -> None:
        self._record = record

    @handles("#")
    async def work(self, item: Item) -> int:
        number, running = item["number"], self._record.running
        self._record.tried[number] += 1
        running[number] += 1
        self._record.most_running = max(self._record.most_running, running[number])
        try:
            await trio.sleep(item["seconds"])
            if self._record.tried[number] <= item["fails"]:
                raise TransientError("as the item says")
            self._record.done[number] += 1
        finally:
            running[number] -= 1
        return number


def manifest(
    port: int, *, concurrency: int = 10, heartbeat: float = HEARTBEAT, queue: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Return the service: it can break and heal as often as a test likes; `queue` is the table of another broker."""
    name = f"faults.{new_id()}"
    restart = {"max_restarts": 1000, "backoff_initial": 0.05, "backoff_max": BACKOFF / 2}
    backoff = {"backoff_initial": 0.1, "backoff_max": BACKOFF / 2}
    return {
        "kernel": {"name": "faults", "grace_period": 12.0, "drain_timeout": 4.0},
        "drivers": {
            "queue": {
                "hosts": [f"127.0.0.1:{port}"],
                **backoff,
                **(queue or {"plugin": "amqp", "heartbeat": heartbeat}),
            },
            "events": {"plugin": "publisher", "driver": "queue", "protocol": "json", "exchange": name},
            "calls": {"plugin": "rpc_client", "driver": "queue", "protocol": "json", "exchange": name},
            "record": {"plugin": "memory"},  # replaced
        },
        "dispatchers": {
            "work": {
                "plugin": "consumer",
                "driver": "queue",
                "protocol": "json",
                "queue": name,
                "exchange": name,
                "bindings": ["#"],
                "dead_letters": "",
                "concurrency": concurrency,
                "restart": restart,
            }
        },
        "workers": {
            "work": {
                "use": f"{__name__}:Work",
                "dispatcher": "work",
                "retry": {"attempts": 100, "backoff_initial": RETRY},
            }
        },
    }


@attrs.define(eq=False)
class Stage:
    """A running service and the account of its messages."""

    service: RunningService
    record: Record
    confirmed: set[int] = attrs.field(factory=set[int], init=False)
    refused: Counter[str] = attrs.field(factory=Counter[str], init=False)
    """Publishers that got an error, by its class: one of those that are documented, or the test has failed."""
    late: int = attrs.field(default=0, init=False)
    """Publishers whose deadline came first."""
    slowest: float = attrs.field(default=0.0, init=False)
    """Seconds that a publisher waited, at most."""
    _number: int = attrs.field(default=0, init=False)

    def next_item(self, *, padding: int = 0, seconds: float = 0.02, fails: int = 0) -> Item:
        """Return an item with a number of its own."""
        self._number += 1
        return Item(number=self._number, padding="x" * padding, seconds=seconds, fails=fails)

    async def publish(self, item: Item | None = None, *, deadline: float = DEADLINE) -> int | None:
        """Publish an item; returns its number if the broker took it."""
        item = item or self.next_item()
        began = trio.current_time()
        with trio.move_on_after(deadline) as scope:
            try:
                await self.service.publish("events", "item", item)
                self.confirmed.add(item["number"])
            except (UnavailableError, UnknownOutcomeError) as error:
                self.refused[type(error).__name__] += 1
        self.slowest = max(self.slowest, trio.current_time() - began)
        self.late += scope.cancelled_caught
        return item["number"] if item["number"] in self.confirmed else None

    async def publish_all(self, items: Iterable[Item]) -> None:
        """Publish items at once."""
        async with trio.open_nursery() as nursery:
            for item in items:
                nursery.start_soon(self.publish, item)

    async def publish_many(self, count: int) -> None:
        """Publish so many items at once."""
        await self.publish_all([self.next_item() for _ in range(count)])

    async def call(self) -> int | None:
        """Call with the next item; returns its number if it was answered."""
        item, began = self.next_item(), trio.current_time()
        try:
            answer: int = await self.service.call("calls", "item", item)
        except (UnavailableError, UnknownOutcomeError) as error:
            self.refused[type(error).__name__] += 1
            return None
        finally:
            self.slowest = max(self.slowest, trio.current_time() - began)
        assert answer == item["number"], "somebody else's answer"
        return answer

    @asynccontextmanager
    async def load(self, publishers: int = 5) -> AsyncIterator[None]:
        """Publish all the time while inside; on exit what is under way is finished."""
        over = False

        async def publish() -> None:
            while not over:
                await self.publish()
                await trio.sleep(0.003)

        async with trio.open_nursery() as nursery:
            for _ in range(publishers):
                nursery.start_soon(publish)
            yield
            over = True

    @property
    def missing(self) -> set[int]:
        """What was confirmed and is not done."""
        return self.confirmed - self.record.done.keys()

    async def wait_done(self) -> None:
        """Wait until everything that was confirmed is done."""
        await wait_until(lambda: not self.missing)

    async def wait_state(self, state: State) -> None:
        """Wait until the connection is in a state, in the eyes of the kernel."""
        await wait_until(lambda: self.service.kernel.states["driver/queue"] is state)

    async def wait_works(self) -> float:
        """Wait until an item that is published from here on is done; returns the seconds that it took."""
        began = trio.current_time()
        number = None
        while number is None:
            number = await self.publish(self.next_item(seconds=0))
            await trio.sleep(0.01)
        await wait_until(lambda: number in self.record.done)
        return trio.current_time() - began


async def wait_until(condition: Callable[[], bool], *, patience: float = PATIENCE) -> None:
    """Wait for something that nobody tells."""
    with trio.move_on_after(patience):
        while not condition():  # noqa: ASYNC110  see above
            await trio.sleep(0.005)
    assert condition()


@asynccontextmanager
async def staged(
    port: int,
    *,
    concurrency: int = 10,
    heartbeat: float = HEARTBEAT,
    ready: bool = True,
    queue: Mapping[str, object] | None = None,
) -> AsyncIterator[Stage]:
    """Run the service while inside, and see that nothing that was confirmed is lost."""
    record = Record()
    tables = manifest(port, concurrency=concurrency, heartbeat=heartbeat, queue=queue)
    with trio.fail_after(2 * PATIENCE):
        async with open_kernel(tables, replace={"drivers.record": record}, ready=ready, expected=Exception) as service:
            stage = Stage(service, record)
            yield stage
            await stage.wait_done()
            forgive(service)


def forgive(service: RunningService) -> None:
    """Forget deliveries that could not be settled because their connection was gone: that is what the test does.

    What takes more than an ack waits for the next connection until the kernel gives up; the broker delivers it again.
    """
    service.events[:] = [
        event
        for event in service.events
        if not (isinstance(event, SettleFailed) and isinstance(event.error, UnknownOutcomeError | trio.TooSlowError))
    ]
