"""Fan-out: every worker of a dispatcher gets each delivery, under its own rules, and it is settled once."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kernel import (
    Ack,
    DeadLetter,
    Envelope,
    Retry,
    Return,
    current_delivery,
    handles,
)
from kernel.abc import Delivery

from ._fanned import EXACT, FAILS, Note, body, fan_out, settled
from ._feed import Json, Parcel, parcel


async def test_every_worker_gets_each_delivery_at_the_same_time(autojump_clock: MockClock) -> None:
    note = Note()
    workers = {name: note.worker(name, seconds=5) for name in "abc"}
    async with fan_out(workers) as (feed, service):
        began = trio.current_time()
        outcome = await feed.settle(parcel("tea"))
        took = trio.current_time() - began
        events = settled(service)

    assert outcome == Ack()
    assert sorted(note.done) == ["a", "b", "c"]
    assert took == pytest.approx(5, abs=0.1)
    assert [(event.worker, event.error) for event in events] == [("", None)]


async def test_the_slot_is_taken_until_the_last_worker_is_done(autojump_clock: MockClock) -> None:
    note = Note()
    workers = {"quick": note.worker("quick"), "slow": note.worker("slow", seconds=5)}
    async with fan_out(workers, concurrency=1) as (feed, _service):
        feed.send.send_nowait(parcel(1))
        feed.send.send_nowait(parcel(2))
        await trio.sleep(4)
        early = sorted(note.began)
        await trio.sleep(4)

    assert early == ["quick", "slow"]
    assert sorted(note.began) == ["quick", "quick", "slow", "slow"]


async def test_only_workers_with_a_handler_for_the_subject_get_it_and_each_by_its_best(
    autojump_clock: MockClock,
) -> None:
    seen: list[str] = []

    class First:
        @handles("a.b")
        async def exact(self, payload: object) -> None:
            seen.append("first exact")

        @handles("#")
        async def rest(self, payload: object) -> None:
            seen.append("first rest")

    class Second:
        @handles("a.*")
        async def some(self, payload: object) -> None:
            seen.append("second some")

    class Third:
        @handles("x")
        async def other(self, payload: object) -> None:
            seen.append("third other")

    async with fan_out({"first": First, "second": Second, "third": Third}) as (feed, service):
        for subject in ("a.b", "a.c", "x", "y"):
            assert await feed.settle(parcel(1, subject=subject)) == Ack()
        events = settled(service)

    assert sorted(seen[:2]) == ["first exact", "second some"]
    assert sorted(seen[2:4]) == ["first rest", "second some"]
    assert sorted(seen[4:6]) == ["first rest", "third other"]
    assert seen[6:] == ["first rest"]
    assert [event.worker for event in events] == ["", "", "", "worker/first"]


async def test_what_is_for_no_worker_or_means_nothing_is_refused_once(autojump_clock: MockClock) -> None:
    class Some:
        @handles("x")
        async def other(self, payload: object) -> None: ...

    async with fan_out({"one": Some, "two": Some}) as (feed, _service):
        unroutable = await feed.settle(parcel(1))
        undecodable = await feed.settle(parcel(b"\xff"))
        answered = await feed.settle(parcel(b"\xff", reply_to="answers"))

    assert unroutable == DeadLetter("no worker handles 'a.b'")
    assert isinstance(undecodable, DeadLetter)
    assert undecodable.reason.startswith("cannot be decoded: ")
    assert (body(answered) or b"").startswith(b"DecodeError: ")


async def test_a_delivery_is_decoded_once(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Envelope] = []
    decode = Json.decode

    def counted(self: Json, envelope: Envelope) -> Any:
        decoded.append(envelope)
        return decode(self, envelope)

    monkeypatch.setattr(Json, "decode", counted)
    note = Note()
    async with fan_out({name: note.worker(name) for name in "abc"}) as (feed, _service):
        await feed.settle(parcel("tea"))

    assert len(decoded) == 1


async def test_after_a_retry_every_worker_sees_the_delivery_again(autojump_clock: MockClock) -> None:
    note = Note()
    workers = {"well": note.worker("well"), "ill": note.worker("ill", error=OSError("gone"))}
    async with fan_out(workers, {"ill": EXACT}) as (feed, _service):
        first = await feed.settle(parcel(1, attempt=1))
        second = await feed.settle(parcel(1, attempt=2))
        third = await feed.settle(parcel(1, attempt=3))

    assert (first, second) == (Retry(1.0, "OSError: gone"), Retry(2.0, "OSError: gone"))
    assert third == DeadLetter("OSError: gone (attempt 3 of 3)")
    assert note.done == ["well"] * 3


async def test_each_worker_has_its_own_timeout_and_retry_policy(autojump_clock: MockClock) -> None:
    note = Note()
    workers = {"slow": note.worker("slow", seconds=60), "patient": note.worker("patient", seconds=20)}
    tables = {"slow": {"timeout": 5.0, "retry": {"backoff_initial": 7.0, "jitter": 0.0}}}
    async with fan_out(workers, tables) as (feed, _service):
        outcome = await feed.settle(parcel(1))
        took = trio.current_time()

    assert outcome == Retry(7.0, "TimeoutError: the handler took more than timeout = 5 s")
    assert note.done == ["patient"]
    assert took == pytest.approx(20, abs=0.1)


async def test_the_failure_worker_of_one_settles_its_part(autojump_clock: MockClock) -> None:
    note = Note()
    workers = {"ill": note.worker("ill", error=FAILS), "well": note.worker("well"), "last": note.last_resort}
    tables = {"ill": {"failure_worker": "last"}, "last": {"dispatcher": ""}}
    async with fan_out(workers, tables) as (feed, service):
        outcome = await feed.settle(parcel("tea"))
        [event] = settled(service)

    assert outcome == Ack()
    assert [(failure.worker, failure.payload) for failure in note.failures] == [("worker/ill", "tea")]
    assert note.done == ["well"]
    assert event.error is FAILS


async def test_a_failure_worker_that_fails_leaves_the_dead_letter(autojump_clock: MockClock) -> None:
    note = Note()
    workers = {
        "ill": note.worker("ill", error=FAILS),
        "well": note.worker("well"),
        "last": note.worker("last", error=OSError("gone")),
    }
    tables = {"ill": {"failure_worker": "last"}, "last": {"dispatcher": ""}}
    async with fan_out(workers, tables) as (feed, _service):
        assert await feed.settle(parcel("tea")) == DeadLetter("PermanentError: bad")


async def test_each_worker_has_its_own_filter(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    wishes = ModuleType("wishes")
    wishes.tea = lambda payload: payload == "tea"  # type: ignore[attr-defined]
    wishes.milk = lambda payload: payload == "milk"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wishes", wishes)
    note = Note()
    workers = {name: note.worker(name) for name in ("tea", "milk", "all")}
    async with fan_out(workers, {"tea": {"filter": "wishes:tea"}, "milk": {"filter": "wishes:milk"}}) as (feed, _):
        for sku in ("tea", "milk"):
            assert await feed.settle(parcel(sku)) == Ack()

    assert sorted(note.done) == ["all", "all", "milk", "tea"]


async def test_a_worker_that_is_paused_holds_its_delivery_back_and_a_stop_returns_it(autojump_clock: MockClock) -> None:
    switch = {"failure_rate": 0.5, "minimum": 1, "window": 60.0, "pause": 30.0}
    note = Note()
    workers = {"ill": note.worker("ill", error=FAILS), "well": note.worker("well")}
    async with fan_out(workers, {"ill": {"kill_switch": switch}}, concurrency=2) as (feed, service):
        assert await feed.settle(parcel(1)) == DeadLetter("PermanentError: bad")
        waiting = parcel(2)
        feed.send.send_nowait(waiting)
        await trio.sleep(10)
        assert (note.began.count("ill"), note.done, waiting.outcomes) == (1, ["well"] * 2, [])
        service.kernel.request_stop("test")
        await waiting.settled.wait()

    assert waiting.outcomes == [Return()]
    assert trio.current_time() < 11


async def test_what_is_in_flight_at_the_drain_deadline_is_returned(autojump_clock: MockClock) -> None:
    note = Note()
    workers = {"quick": note.worker("quick"), "slow": note.worker("slow", seconds=600)}
    one = parcel(1)
    async with fan_out(workers) as (feed, service):
        feed.send.send_nowait(one)
        await trio.sleep(1)
        service.kernel.request_stop("test")
        await one.settled.wait()

    assert one.outcomes == [Return()]
    assert note.done == ["quick"]


async def test_a_payload_that_one_worker_cannot_take_is_given_to_the_others(autojump_clock: MockClock) -> None:
    taken: list[int] = []

    async def numbers(payload: int) -> None:
        taken.append(payload)

    note = Note()
    async with fan_out({"numbers": numbers, "any": note.worker("any")}) as (feed, _service):
        outcome = await feed.settle(parcel("tea"))

    assert isinstance(outcome, DeadLetter)
    assert outcome.reason.startswith("payload of 'a.b': ConversionError")
    assert (taken, note.done) == ([], ["any"])


async def test_handlers_see_the_envelope_and_the_delivery_that_came(autojump_clock: MockClock) -> None:
    seen: list[Any] = []

    class Nosy:
        @handles("a.b")
        async def handle(self, payload: object, envelope: Envelope, delivery: Delivery) -> None:
            current = current_delivery()
            assert current is not None
            seen.append((envelope, delivery.envelope, current.envelope, delivery.attempt, delivery.redelivered))

    one = parcel(1, attempt=2)
    async with fan_out({"a": Nosy, "b": Nosy}) as (feed, _service):
        await feed.settle(one)

    assert seen == [(one.envelope, one.envelope, one.envelope, 2, False)] * 2


class Hasty:
    @handles("a.b")
    async def handle(self, payload: object, delivery: Delivery) -> None:
        await delivery.settle(Retry(5.0))


async def test_a_handler_that_settles_by_itself_settles_what_came(autojump_clock: MockClock) -> None:
    one = parcel(1)
    with pytest.raises(AssertionError, match="not settled"):
        await _hand_over(one)

    assert one.outcomes == [Retry(5.0)]


async def _hand_over(one: Parcel) -> None:
    async with fan_out({"a": Hasty}) as (feed, _service):
        await feed.settle(one)
        await trio.sleep(1)
