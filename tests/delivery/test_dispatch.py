"""The pipeline: what becomes of a delivery, for every way that a handler can end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio

from kernel import Ack, DeadLetter, Envelope, Outcome, Retry, Return, handles
from kernel._core.events import DeliverySettled
from kernel._delivery.failure import Failure
from kernel.abc import Delivery
from kernel.errors import PermanentError, TransientError

from ._feed import Parcel, parcel, running


async def outcome_of(worker: Callable[..., Any], delivery: Parcel, **table: object) -> Outcome:
    async with running({"worker": worker}, {"worker": table}) as (feed, _):
        return await feed.settle(delivery)


async def test_a_handler_that_returns_is_acknowledged() -> None:
    seen: list[object] = []

    async def worker(payload: Any) -> None:
        seen.append(payload)

    assert await outcome_of(worker, parcel({"x": 1})) == Ack()
    assert seen == [{"x": 1}]


async def test_bytes_that_cannot_be_decoded_are_dead_lettered_and_the_handler_is_not_called() -> None:
    async def worker(payload: Any) -> None:
        raise AssertionError("called")

    outcome = await outcome_of(worker, parcel(b"{"))

    assert isinstance(outcome, DeadLetter)
    assert outcome.reason.startswith("cannot be decoded: DecodeError: ")


async def test_a_payload_of_the_wrong_type_is_dead_lettered_with_the_path_of_what_is_wrong() -> None:
    @attrs.frozen
    class Order:
        sku: str
        quantity: int

    async def worker(order: Order) -> None:
        raise AssertionError("called")

    worker.__annotations__["order"] = Order
    outcome = await outcome_of(worker, parcel({"sku": "tea", "quantity": "2"}))

    assert isinstance(outcome, DeadLetter)
    assert "quantity" in outcome.reason


async def test_a_subject_that_no_worker_handles_is_dead_lettered() -> None:
    class Worker:
        @handles("order.*")
        async def order(self, payload: Any) -> None: ...

    outcome = await outcome_of(Worker, parcel(1, subject="stock.low"))

    assert outcome == DeadLetter("no worker handles 'stock.low'")


async def test_the_most_specific_pattern_wins() -> None:
    seen: list[str] = []

    class Worker:
        @handles("#")
        async def rest(self, payload: Any) -> None:
            seen.append("rest")

        @handles("order.*")
        async def order(self, payload: Any) -> None:
            seen.append("order")

        @handles("order.created")
        async def created(self, payload: Any) -> None:
            seen.append("created")

    async with running({"worker": Worker}) as (feed, _):
        for subject in ("order.created", "order.paid", "stock.low.tea"):
            await feed.settle(parcel(1, subject=subject))

    assert seen == ["created", "order", "rest"]


@pytest.mark.parametrize(
    ("error", "attempt", "expected"),
    [
        pytest.param(ValueError("no"), 1, Retry(1.0, "ValueError: no"), id="first"),
        pytest.param(ValueError("no"), 2, Retry(2.0, "ValueError: no"), id="second-waits-longer"),
        pytest.param(ValueError("no"), 3, DeadLetter("ValueError: no (attempt 3 of 3)"), id="last"),
        pytest.param(PermanentError("never"), 1, DeadLetter("PermanentError: never"), id="permanent"),
        pytest.param(TransientError("later", after=7), 1, Retry(7, "TransientError: later"), id="transient"),
        pytest.param(KeyError("k"), 1, DeadLetter("KeyError: 'k' (not among those to retry on)"), id="not-to-retry-on"),
        pytest.param(SystemExit(3), 1, DeadLetter("PermanentError: the handler called sys.exit(3)"), id="exit"),
        pytest.param(
            ExceptionGroup("many", [ValueError("a"), ValueError("b")]),
            1,
            Retry(1.0, "ValueError: a; ValueError: b"),
            id="group",
        ),
        pytest.param(
            ExceptionGroup("many", [ValueError("a"), KeyError("b")]),
            1,
            DeadLetter("ValueError: a; KeyError: 'b' (not among those to retry on)"),
            id="group-with-another",
        ),
    ],
)
async def test_what_a_handler_raises_decides(error: BaseException, attempt: int, expected: Outcome) -> None:
    async def worker(payload: Any) -> None:
        raise error

    retry = {"attempts": 3, "backoff_initial": 1.0, "jitter": 0.0, "on": ["ValueError"]}

    assert await outcome_of(worker, parcel(1, attempt=attempt), retry=retry) == expected


async def test_an_error_carries_component_delivery_and_attempt_as_a_note_on_every_leaf() -> None:
    error = ExceptionGroup("many", [ValueError("a"), ValueError("b")])

    async def worker(payload: Any) -> None:
        raise error

    await outcome_of(worker, parcel(1, id="7", attempt=2))

    notes = [leaf.__notes__ for leaf in error.exceptions]
    assert notes == [["in worker/worker, delivery 7, attempt 2"]] * 2


async def test_an_exception_that_cannot_be_printed_is_still_a_failure() -> None:
    class BadError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async def worker(payload: Any) -> None:
        raise BadError

    outcome = await outcome_of(worker, parcel(1), retry={"attempts": 1})

    assert outcome == DeadLetter("BadError: <unprintable> (attempt 1 of 1)")


async def test_control_characters_in_an_error_do_not_reach_the_reason() -> None:
    async def worker(payload: Any) -> None:
        raise PermanentError("line\n\x1b[31mred")

    assert await outcome_of(worker, parcel(1)) == DeadLetter(r"PermanentError: line\n\x1b[31mred")


@pytest.mark.parametrize("outcome", [Ack(), Retry(5, "busy"), DeadLetter("enough"), Return()], ids=repr)
async def test_a_handler_may_return_the_outcome_itself(outcome: Outcome) -> None:
    async def worker(payload: Any) -> Outcome:
        return outcome

    assert await outcome_of(worker, parcel(1)) == outcome


async def test_a_handler_over_its_timeout_is_cancelled_and_has_failed(autojump_clock: object) -> None:
    async def worker(payload: Any) -> None:
        await trio.sleep_forever()

    outcome = await outcome_of(worker, parcel(1), timeout=4.0, retry={"attempts": 1})

    assert outcome == DeadLetter("TimeoutError: the handler took more than timeout = 4 s (attempt 1 of 1)")


async def test_a_delivery_whose_deadline_has_passed_is_not_started() -> None:
    async def worker(payload: Any) -> None:
        raise AssertionError("called")

    outcome = await outcome_of(worker, parcel(1, deadline=trio.current_time() - 1))

    assert outcome == DeadLetter("expired: its deadline had passed")


async def test_the_deadline_of_a_message_bounds_its_handler(autojump_clock: object) -> None:
    deadlines: list[float] = []

    async def worker(payload: Any) -> None:
        deadlines.append(trio.current_effective_deadline())
        await trio.sleep_forever()

    deadline = trio.current_time() + 3
    outcome = await outcome_of(worker, parcel(1, deadline=deadline))

    assert outcome == DeadLetter("expired: its deadline had passed")
    assert deadlines == [deadline]


async def test_an_attempt_beyond_the_last_is_not_started() -> None:
    async def worker(payload: Any) -> None:
        raise AssertionError("called")

    outcome = await outcome_of(worker, parcel(1, attempt=4), retry={"attempts": 3})

    assert outcome == DeadLetter("its 3 attempts are used up: they ended with their process")


@pytest.mark.parametrize("reason", ["", "busy"])
async def test_an_attempt_that_is_asked_for_counts_as_one_that_follows_from_an_exception(reason: str) -> None:
    async def worker(payload: Any) -> Retry:
        return Retry(5, reason)

    outcomes = [await outcome_of(worker, parcel(1, attempt=number), retry={"attempts": 3}) for number in (1, 2, 3)]

    told = reason or "another attempt was asked for"
    assert outcomes == [Retry(5, reason), Retry(5, reason), DeadLetter(f"{told} (attempt 3 of 3)")]


async def test_a_request_is_answered_before_it_is_acknowledged() -> None:
    async def worker(payload: Any) -> object:
        return payload + 1

    outcome = await outcome_of(worker, parcel(1, reply_to="me", correlation_id="c"))

    assert isinstance(outcome, Ack)
    assert outcome.reply is not None
    assert (outcome.reply.subject, outcome.reply.body, outcome.reply.correlation_id) == ("me", b"2", "c")


@pytest.mark.parametrize(
    ("body", "subject", "answer"),
    [
        pytest.param(1, "fail", b"ValueError: no", id="handler-raises"),
        pytest.param(1, "unknown", b"NoWorkerError: no worker handles 'unknown'", id="nobody-handles-it"),
        pytest.param(1, "lock", b"EncodeError: ", id="result-cannot-be-written"),
        pytest.param("x", "number", b"ConversionError: ", id="payload-of-the-wrong-type"),
    ],
)
async def test_a_request_that_fails_is_answered_with_the_error_at_once(
    body: object, subject: str, answer: bytes
) -> None:
    class Worker:
        @handles("fail")
        async def fail(self, payload: Any) -> None:
            raise ValueError("no")

        @handles("lock")
        async def lock(self, payload: Any) -> object:
            return object()

        @handles("number")
        async def number(self, payload: int) -> None: ...

    outcome = await outcome_of(Worker, parcel(body, subject=subject, reply_to="me"))

    assert isinstance(outcome, Ack)
    assert outcome.reply is not None
    assert outcome.reply.body.startswith(answer)


async def test_a_result_that_nobody_waits_for_is_dropped() -> None:
    async def worker(payload: Any) -> object:
        return object()

    assert await outcome_of(worker, parcel(1)) == Ack()


async def test_a_handler_may_ask_for_envelope_and_delivery() -> None:
    seen: list[object] = []

    async def worker(payload: Any, envelope: Envelope, delivery: Delivery) -> None:
        seen.extend([envelope.id, delivery.attempt])

    worker.__annotations__.update(envelope=Envelope, delivery=Delivery)
    await outcome_of(worker, parcel(1, id="42", attempt=2))

    assert seen == ["42", 2]


async def test_a_failure_worker_gets_what_failed_for_good_and_then_it_is_acknowledged() -> None:
    failures: list[Failure] = []

    async def broken(payload: Any) -> None:
        raise ValueError("no")

    async def undertaker(failure: Failure) -> None:
        failures.append(failure)

    undertaker.__annotations__["failure"] = Failure
    tables = {
        "broken": {"failure_worker": "undertaker", "retry": {"attempts": 1}},
        "undertaker": {"dispatcher": ""},
    }
    async with running({"broken": broken, "undertaker": undertaker}, tables) as (feed, _):
        outcome = await feed.settle(parcel({"x": 1}, id="7"))

    assert outcome == Ack()
    assert [(f.worker, f.attempts, f.payload, f.envelope.id) for f in failures] == [("worker/broken", 1, {"x": 1}, "7")]


async def test_a_delivery_that_its_failure_worker_fails_at_too_is_dead_lettered_with_the_first_reason() -> None:
    async def broken(payload: Any) -> None:
        raise ValueError("first")

    async def undertaker(failure: Any) -> None:
        raise ValueError("second")

    tables = {
        "broken": {"failure_worker": "undertaker", "retry": {"attempts": 1}},
        "undertaker": {"dispatcher": ""},
    }
    async with running({"broken": broken, "undertaker": undertaker}, tables) as (feed, _):
        outcome = await feed.settle(parcel(1))

    assert outcome == DeadLetter("ValueError: first (attempt 1 of 1)")


async def test_at_most_concurrency_deliveries_are_in_flight(autojump_clock: object) -> None:
    running_now = most = 0

    async def worker(payload: Any) -> None:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await trio.sleep(1)
        running_now -= 1

    parcels = [parcel(number) for number in range(20)]
    async with running({"worker": worker}, concurrency=4) as (feed, service):
        for one in parcels:
            feed.send.send_nowait(one)
        await service.wait_settled(20)

    assert most == 4
    assert all(one.outcomes == [Ack()] for one in parcels)


async def test_instances_share_the_deliveries_each_with_its_own_concurrency(autojump_clock: object) -> None:
    busy: dict[int, int] = {}
    most: dict[int, int] = {}

    class Worker:
        @handles("#")
        async def handle(self, payload: Any) -> None:
            busy[id(self)] = busy.get(id(self), 0) + 1
            most[id(self)] = max(most.get(id(self), 0), busy[id(self)])
            await trio.sleep(1)
            busy[id(self)] -= 1

    async with running({"worker": Worker}, {"worker": {"instances": 3, "concurrency": 2}}) as (feed, service):
        for number in range(24):
            feed.send.send_nowait(parcel(number))
        await service.wait_settled(24)

    assert sorted(most.values()) == [2, 2, 2]


async def test_a_source_that_does_not_settle_in_time_is_reported_and_blocks_nobody(autojump_clock: object) -> None:
    async def worker(payload: Any) -> None: ...

    stuck, other = parcel(1, id="stuck"), parcel(2)
    stuck.stuck = True

    async def deliver_both() -> None:
        async with running({"worker": worker}, concurrency=1) as (feed, _):
            feed.send.send_nowait(stuck)
            await feed.settle(other)

    with pytest.raises(AssertionError, match="not settled: stuck"):
        await deliver_both()

    assert other.outcomes == [Ack()]


async def test_what_happened_to_a_delivery_is_an_event() -> None:
    async def worker(payload: Any) -> None:
        raise PermanentError("no")

    async with running({"worker": worker}) as (feed, service):
        await feed.settle(parcel(1, id="7", attempt=2))
        event = (await service.wait_settled())[0]

    assert isinstance(event, DeliverySettled)
    assert (event.component, event.worker, event.delivery_id, event.attempt) == (
        "dispatcher/feed",
        "worker/worker",
        "7",
        2,
    )
    assert event.outcome == DeadLetter("PermanentError: no")
    assert isinstance(event.error, PermanentError)


async def test_the_handlers_of_a_worker_that_crashes_are_cut_and_their_deliveries_returned(
    autojump_clock: object,
) -> None:
    class Worker:
        async def run(self) -> None:
            await trio.sleep(1)
            raise OSError("loop broke")

        @handles("#")
        async def handle(self, payload: Any) -> None:
            await trio.sleep_forever()

    first = parcel(1)
    async with running({"worker": Worker}) as (feed, service):
        assert await feed.settle(first) == Return()
        assert service.kernel.states["dispatcher/feed"].value == "ready"


async def test_a_delivery_waits_for_a_worker_that_restarts(autojump_clock: object) -> None:
    lives: list[object] = []

    class Worker:
        async def run(self) -> None:
            lives.append(self)
            if len(lives) == 1:
                raise OSError("first life")
            await trio.sleep_forever()

        @handles("#")
        async def handle(self, payload: Any) -> None: ...

    async with running({"worker": Worker}) as (feed, _):
        await trio.sleep(0.01)  # virtual: the first life is over, the second has not begun
        outcome = await feed.settle(parcel(1))

    assert outcome == Ack()
    assert len(lives) == 2


async def test_a_delivery_needs_no_hash() -> None:
    class Unhashable(Parcel):
        __hash__ = None  # type: ignore[assignment]

    async def worker(payload: Any) -> None: ...

    assert await outcome_of(worker, Unhashable(Envelope(subject="a", body=b"1"))) == Ack()
