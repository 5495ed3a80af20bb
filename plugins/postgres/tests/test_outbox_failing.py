"""Messages of the outbox that the broker does not take: kept, told of, and in nobody's way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import psycopg
import pytest
import structlog
import trio
from kernel_memory import MemoryConfig, MemoryDriver
from kernel_postgres import Database, OutboxFailed, OutboxRelay, RelayConfig
from structlog.testing import LogCapture
from trio.testing import MockClock
from typing_extensions import override

from kernel import Ack, Backlog, Envelope, Event, State, StateChanged
from kernel.abc import Binding, Broker, Exchange, Queue, Subscription, Topology
from kernel.errors import EncodeError
from kernel.testing import fake_context

from ._cluster import PASSWORD, Cluster
from .conftest import OpenDatabase, driver

SOON = 10.0


@attrs.define
class Told:
    """What a relay tells."""

    log: LogCapture = attrs.field(factory=LogCapture)
    events: list[Event] = attrs.field(factory=list[Event])
    reasons: list[str] = attrs.field(factory=list[str])
    backlogs: list[Callable[[], Backlog | None]] = attrs.field(factory=list[Callable[[], Backlog | None]])

    @property
    def failures(self) -> list[OutboxFailed]:
        return [event for event in self.events if isinstance(event, OutboxFailed)]

    @property
    def states(self) -> list[State]:
        return [event.new for event in self.events if isinstance(event, StateChanged)]

    def backlog(self) -> Backlog | None:
        return self.backlogs[0]()

    async def wait_for(self, states: list[State]) -> None:
        await until(lambda: self.states == states)


async def until(holds: Callable[[], bool]) -> None:
    await trio.lowlevel.checkpoint()
    with trio.fail_after(SOON):
        while not holds():  # noqa: ASYNC110  what is asked is in a database, or told by a callback
            await trio.sleep(0.01)


def relay(database: Database, broker: Broker, told: Told, **config: Any) -> OutboxRelay:
    settings = RelayConfig(**{"poll_interval": 0.01, "backoff_initial": 0.01, "backoff_max": 0.1, **config})
    context = fake_context("worker/relay", events=told.events)

    def degraded(reason: str) -> None:
        if not told.reasons:
            context.report_degraded(reason)
        told.reasons.append(reason)

    log = structlog.wrap_logger(None, [told.log], structlog.make_filtering_bound_logger(0))
    seen = attrs.evolve(context, log=log, report_degraded=degraded, report_backlog=told.backlogs.append)
    return OutboxRelay(database, broker, seen, settings)


@pytest.fixture
def left(cluster: Cluster) -> Callable[[], int]:
    """How many messages are in the outbox, which is made anew."""
    cluster.query("DROP TABLE IF EXISTS kernel_outbox, kernel_inbox")
    return lambda: len(cluster.query("SELECT 1 FROM kernel_outbox"))


@pytest.fixture
async def broker() -> AsyncGenerator[Broker]:
    async with MemoryDriver(config=MemoryConfig(), context=fake_context("driver/queue")).open() as broker:
        await broker.declare(Topology(queues=[Queue(name="q")], exchanges=[Exchange(name="events")]))
        yield broker


async def write(database: Database, *envelopes: Envelope, exchange: str = "", **mandatory: bool) -> None:
    async with database.transaction() as transaction:
        for envelope in envelopes:
            await transaction.send(envelope, exchange=exchange, **mandatory)


async def received(broker: Broker, count: int, queue: str = "q") -> list[str]:
    names: list[str] = []
    async with broker.subscribe(Subscription(queue=queue, prefetch=count)) as coming:
        with trio.fail_after(SOON):
            while len(names) < count:
                delivery = await anext(coming)
                names.append(delivery.envelope.id)
                await delivery.settle(Ack())
    return names


@asynccontextmanager
async def relaying(worker: OutboxRelay) -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        yield
        nursery.cancel_scope.cancel()


UNROUTABLE = pytest.mark.parametrize(
    ("exchange", "reason"),
    [
        ("", 'there is no queue "later"'),
        ("events", "no queue is bound"),
        ("nosuch", 'there is no exchange "nosuch"'),
    ],
)


@pytest.mark.slow
@UNROUTABLE
async def test_what_no_queue_gets_is_kept_and_told_of_until_one_does(
    open_database: OpenDatabase, broker: Broker, left: Callable[[], int], exchange: str, reason: str
) -> None:
    told = Told()
    async with open_database(outbox=True) as database, relaying(relay(database, broker, told)):
        await write(database, Envelope(subject="later", id="1"), Envelope(subject="later", id="2"), exchange=exchange)
        await told.wait_for([State.DEGRADED])
        known, kept = told.backlog(), left()
        exchanges = [Exchange(name=exchange)] if exchange else []
        bindings = [Binding(queue="later", exchange=exchange, pattern="later")] if exchange else []
        await broker.declare(Topology(queues=[Queue(name="later")], exchanges=exchanges, bindings=bindings))
        names = await received(broker, 2, "later")
        await told.wait_for([State.DEGRADED, State.READY])

        assert sorted(names) == ["1", "2"]
        assert (known is not None and (known.waiting, known.failed)) == (2, 2)
        assert (kept, left(), told.backlog()) == (2, 0, Backlog(waiting=0))
    assert "did not take 2 of 2 messages" in told.reasons[0]
    assert reason in told.reasons[0]
    assert {failed.message_id for failed in told.failures} == {"1", "2"}
    assert all(reason in failed.reason for failed in told.failures)


@pytest.mark.parametrize("exchange", ["", "events"])
async def test_what_may_happen_without_a_listener_is_dropped_if_its_sender_says_so(
    open_database: OpenDatabase, broker: Broker, left: Callable[[], int], exchange: str
) -> None:
    told = Told()
    async with open_database(outbox=True) as database, relaying(relay(database, broker, told)):
        await write(database, Envelope(subject="nobody.listens"), exchange=exchange, mandatory=False)
        await write(database, Envelope(subject="q", id="last"))
        names = await received(broker, 1)
        await until(lambda: left() == 0)

    assert names == ["last"]
    assert told.events == []


async def test_any_number_that_can_never_be_sent_holds_up_no_other(
    open_database: OpenDatabase, broker: Broker, left: Callable[[], int]
) -> None:
    told = Told()
    hopeless = [Envelope(subject="nowhere", id=f"hopeless-{number}") for number in range(20)]
    async with (
        open_database(outbox=True) as database,
        relaying(relay(database, broker, told, batch=2, backoff_initial=0.0)),
    ):
        await write(database, *hopeless)
        await until(lambda: len({failed.message_id for failed in told.failures}) == 20)
        await write(database, *(Envelope(subject="q", id=str(number)) for number in range(5)))
        names = await received(broker, 5)

        assert names == ["0", "1", "2", "3", "4"]
        await until(lambda: left() == 20)


@attrs.define
class Deaf(Broker):
    """A broker that never answers for some subjects."""

    inner: Broker
    deaf: set[str]

    @override
    async def declare(self, topology: Topology) -> None:
        await self.inner.declare(topology)

    @override
    def subscribe(self, subscription: Subscription) -> Any:
        return self.inner.subscribe(subscription)

    @override
    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        if envelope.subject in self.deaf:
            await trio.sleep_forever()
        await self.inner.send(envelope, exchange=exchange, mandatory=mandatory)


async def test_a_broker_that_does_not_answer_ends_the_batch_and_what_it_took_before_is_done(
    open_database: OpenDatabase, broker: Broker, left: Callable[[], int]
) -> None:
    told = Told()
    deaf = Deaf(broker, {"deaf"})
    async with open_database(outbox=True) as database:
        worker = relay(database, deaf, told, send_timeout=0.05, backoff_initial=60.0, backoff_max=60.0)
        await write(database, *(Envelope(subject=subject, id=subject) for subject in ("q", "deaf", "q2", "deaf2")))
        assert await worker.relay() is False
        after_the_first = left()
        await broker.declare(Topology(queues=[Queue(name="q2"), Queue(name="deaf2")]))
        assert await worker.relay() is False

    assert (after_the_first, left()) == (3, 1)
    assert [failed.reason for failed in told.failures] == ["the broker did not answer within send_timeout = 0.05 s"]


@pytest.mark.parametrize(
    ("envelope", "error"),
    [
        (Envelope(subject="q", priority=12), ValueError),
        (Envelope(subject="q", headers={"a": 2**64}), EncodeError),
        (Envelope(subject="q", headers={"a": float("nan")}), EncodeError),
    ],
)
async def test_what_no_broker_could_carry_is_an_error_of_whoever_sends_it(
    open_database: OpenDatabase, left: Callable[[], int], envelope: Envelope, error: type[Exception]
) -> None:
    async with open_database(outbox=True) as database:
        with pytest.raises(error):
            await write(database, Envelope(subject="q"), envelope)

        assert left() == 0


async def test_of_two_relays_the_one_that_works_knows_what_waits(
    open_database: OpenDatabase, cluster: Cluster, broker: Broker, left: Callable[[], int]
) -> None:
    first, second = Told(), Told()
    async with open_database(outbox=True, pool_max=3) as database:
        worker, other = relay(database, broker, first), relay(database, broker, second)
        await write(database, Envelope(subject="nowhere"))
        await worker.relay()
        assert first.backlog() is not None
        with psycopg.connect(cluster.dsn, password=PASSWORD) as another:
            another.execute("SELECT pg_advisory_xact_lock(7463128990316)")
            await worker.relay()
            assert first.backlog() is None
        await other.relay()

        assert second.backlog() is not None
    assert first.states == [State.DEGRADED, State.READY]
    assert second.states == [State.DEGRADED]


@pytest.mark.slow
async def test_a_database_that_is_away_is_warned_of_once_a_minute(
    cluster: Cluster, broker: Broker, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    told = Told()
    async with driver(cluster, outbox=True, acquire_timeout=0.01).open() as database:
        worker = relay(database, broker, told)
        cluster.stop()
        try:
            for _ in range(5):
                assert await worker.relay() is False
            mock_clock.jump(61)
            assert await worker.relay() is False
        finally:
            cluster.start()

    assert [entry["event"] for entry in told.log.entries] == ["outbox_unreachable"] * 2
    assert "Connection refused" in told.log.entries[0]["reason"]


async def test_what_stays_is_warned_of_once_a_minute_with_how_much_it_is(
    open_database: OpenDatabase, broker: Broker, left: Callable[[], int], mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    told = Told()
    async with open_database(outbox=True) as database:
        worker = relay(database, broker, told)
        await write(database, Envelope(subject="nowhere"))
        for _ in range(4):
            mock_clock.jump(20)
            await worker.relay()
            await write(database, Envelope(subject="nowhere"))

    [warned] = told.log.entries
    assert (warned["event"], warned["failed"], warned["waiting"], warned["subject"]) == (
        "outbox_stuck",
        4,
        4,
        "nowhere",
    )
    assert "did not take 4 of 4 messages" in told.reasons[-1]
    assert left() == 5
