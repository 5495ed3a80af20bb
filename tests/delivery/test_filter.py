"""Filters of workers: what is not wanted is acknowledged without a call, and a filter that raises has failed."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import attrs
import pytest
from trio.testing import MockClock

from kernel import Ack, DeadLetter, DeliverySettled, Envelope, Failure, KillSwitchChanged, Retry, handles
from kernel.errors import PermanentError, TransientError

from ._feed import parcel, running

ONCE: dict[str, object] = {"retry": {"attempts": 1}}


@pytest.fixture(autouse=True)
def wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a module `wishes`, whose functions a manifest can name."""
    module = ModuleType("wishes")
    functions = {
        "tea": lambda payload: payload.get("sku") == "tea",
        "teas": lambda payload: [sku for sku in payload["skus"] if sku == "tea"],
        "broken": lambda payload: payload["missing"],
        "exits": lambda payload: sys.exit(3),
        "later": _raising(TransientError("not known yet", after=7.0)),
        "never": _raising(PermanentError("cannot be told")),
    }
    for name, function in functions.items():
        setattr(module, name, function)
    monkeypatch.setitem(sys.modules, "wishes", module)


def _raising(error: Exception) -> Any:
    def wish(payload: object) -> bool:
        raise error

    return wish


@attrs.frozen
class Tea:
    sku: str
    grams: int


class Recorder:
    """A worker that remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    @property
    def worker(self) -> Any:
        async def worker(payload: Any) -> str:
            self.given.append(payload)
            return "done"

        return worker


async def test_what_the_filter_does_not_want_is_acknowledged_without_a_call(autojump_clock: MockClock) -> None:
    seen = Recorder()
    async with running({"worker": seen.worker}, {"worker": {"filter": "wishes:tea"}}) as (feed, service):
        outcomes = [await feed.settle(parcel({"sku": sku})) for sku in ("tea", "milk", "tea")]
        settled = [event for event in service.events if isinstance(event, DeliverySettled)]

    assert outcomes == [Ack()] * 3
    assert seen.given == [{"sku": "tea"}] * 2
    assert [event.worker for event in settled] == ["worker/worker"] * 3


async def test_anything_true_lets_a_message_through(autojump_clock: MockClock) -> None:
    seen = Recorder()
    async with running({"worker": seen.worker}, {"worker": {"filter": "wishes:teas"}}) as (feed, _service):
        for skus in (["tea", "milk"], ["milk"], []):
            await feed.settle(parcel({"skus": skus}))

    assert seen.given == [{"skus": ["tea", "milk"]}]


async def test_a_filter_sees_the_payload_before_it_is_converted(autojump_clock: MockClock) -> None:
    given: list[Tea] = []

    async def worker(tea: Tea) -> None:
        given.append(tea)

    async with running({"worker": worker}, {"worker": {"filter": "wishes:tea"}}) as (feed, _service):
        unwanted = await feed.settle(parcel({"sku": "milk", "litres": 1}))
        wanted = await feed.settle(parcel({"sku": "tea", "grams": 5}))

    assert (unwanted, wanted) == (Ack(), Ack())
    assert given == [Tea(sku="tea", grams=5)]


async def test_a_request_that_the_filter_does_not_want_is_not_answered(autojump_clock: MockClock) -> None:
    async with running({"worker": Recorder().worker}, {"worker": {"filter": "wishes:tea"}}) as (feed, _service):
        unwanted = await feed.settle(parcel({"sku": "milk"}, reply_to="answers"))
        wanted = await feed.settle(parcel({"sku": "tea"}, reply_to="answers"))

    assert unwanted == Ack(None)
    assert isinstance(wanted, Ack)
    assert wanted.reply is not None
    assert wanted.reply.body == b'"done"'


async def test_what_is_not_wanted_goes_to_no_other_worker(autojump_clock: MockClock) -> None:
    class Exact:
        @handles("a.b")
        async def handle(self, payload: Any) -> None: ...

    other = Recorder()
    async with running({"exact": Exact, "other": other.worker}, {"exact": {"filter": "wishes:tea"}}) as (feed, _):
        assert await feed.settle(parcel({"sku": "milk"})) == Ack()

    assert other.given == []


@pytest.mark.parametrize(
    ("wish", "outcome"),
    [
        ("broken", Retry(1.0, "KeyError: 'missing'")),
        ("later", Retry(7.0, "TransientError: not known yet")),
        ("never", DeadLetter("PermanentError: cannot be told")),
        ("exits", DeadLetter("PermanentError: the handler called sys.exit(3)")),
    ],
)
async def test_a_filter_that_raises_is_a_handler_that_raises(
    wish: str, outcome: Retry | DeadLetter, autojump_clock: MockClock
) -> None:
    table: dict[str, object] = {"filter": f"wishes:{wish}", "retry": {"jitter": 0.0}}
    seen = Recorder()
    async with running({"worker": seen.worker}, {"worker": table}) as (feed, service):
        assert await feed.settle(parcel({})) == outcome
        [settled] = [event for event in service.events if isinstance(event, DeliverySettled)]

    assert seen.given == []
    assert settled.worker == "worker/worker"
    cause = settled.error.__cause__ or settled.error
    assert any(note.startswith("in worker/worker, delivery ") for note in cause.__notes__)


async def test_a_request_at_which_the_filter_raises_is_answered_with_the_error(autojump_clock: MockClock) -> None:
    async with running({"worker": Recorder().worker}, {"worker": {"filter": "wishes:broken"}}) as (feed, _service):
        answered = await feed.settle(parcel({}, reply_to="answers"))

    assert isinstance(answered, Ack)
    assert isinstance(answered.reply, Envelope)
    assert answered.reply.body == b"KeyError: 'missing'"


async def test_what_a_filter_failed_at_for_good_goes_to_the_failure_worker(autojump_clock: MockClock) -> None:
    failures: list[Failure] = []

    async def last(failure: Failure) -> None:
        failures.append(failure)

    tables = {"worker": {"filter": "wishes:broken", "failure_worker": "last", **ONCE}, "last": {"dispatcher": ""}}
    async with running({"worker": Recorder().worker, "last": last}, tables) as (feed, _service):
        assert await feed.settle(parcel({"sku": "tea"})) == Ack()

    [failure] = failures
    assert (failure.worker, failure.payload) == ("worker/worker", {"sku": "tea"})
    assert failure.reason == "KeyError: 'missing' (attempt 1 of 1)"


async def test_a_filter_that_fails_too_often_pauses_its_worker(autojump_clock: MockClock) -> None:
    switch = {"failure_rate": 0.5, "minimum": 3, "window": 60.0, "pause": 30.0}
    table: dict[str, object] = {"filter": "wishes:broken", "kill_switch": switch, **ONCE}
    async with running({"worker": Recorder().worker}, {"worker": table}) as (feed, service):
        for _ in range(3):
            await feed.settle(parcel({}))
        changes = [event.reason for event in service.events if isinstance(event, KillSwitchChanged)]

    assert changes == ["3 of 3 calls failed within 60 s"]


async def test_what_a_filter_keeps_out_is_in_no_batch(autojump_clock: MockClock) -> None:
    batches: list[list[Any]] = []

    async def worker(payloads: list[Any]) -> None:
        batches.append(payloads)

    batch = {"size": 2, "wait": 60.0}
    async with running({"worker": worker}, {"worker": {"filter": "wishes:tea"}}, batch=batch) as (feed, _service):
        parcels = [parcel({"sku": sku}) for sku in ("tea", "milk", "tea")]
        for one in parcels:
            feed.send.send_nowait(one)
        for one in parcels:
            await one.settled.wait()

    assert batches == [[{"sku": "tea"}] * 2]
    assert [one.outcomes for one in parcels] == [[Ack()]] * 3
