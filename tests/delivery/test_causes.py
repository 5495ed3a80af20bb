"""Whatever a handler raises, it is its own delivery's, and nobody else hears of it."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock
from typing_extensions import override

from kernel import (
    Ack,
    Batch,
    DeadLetter,
    DeliverySettled,
    Envelope,
    Failure,
    KernelStopped,
    Message,
    Outcome,
    Retry,
    Return,
    SettleFailed,
    StateChanged,
    handles,
)
from kernel._core.lifecycle import State
from kernel.errors import MAX_DELAY, TransientError

from ._causes import CAUSES, PERMANENT, cause
from ._feed import Feed, Json, Parcel, parcel, running

ALL = [*CAUSES, *PERMANENT, "stray", "stray-plain", "stray-panic"]
TRANSIENT = [name for name in ALL if "exit" not in name or name == "generator-exit" if name not in PERMANENT]
LIFE = {"retry": {"attempts": 3, "jitter": 0.0}}
SWITCH = {"kill_switch": {"minimum": 1, "pause": 5.0, "window": 60.0}}
FEATURES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "plain": ({}, {}),
    "kill-switch": (SWITCH, {}),
    "rate": ({}, {"rate": {"messages": 1, "per": 1.0}}),
    "fan-out": ({}, {"fan_out": True}),
    "failure-worker": ({"failure_worker": "last"}, {}),
    "narrow": ({"concurrency": 1}, {"concurrency": 2}),
    "all": ({**SWITCH, "failure_worker": "last", "concurrency": 1}, {"rate": {"messages": 1}, "fan_out": True}),
}
"""The table of the worker, and that of the dispatcher."""


class Raiser:
    """Raises what it is told to."""

    @handles("a.b")
    async def handle(self, name: str) -> str:
        if name != "fine":
            async with trio.open_nursery():
                raised = await cause(name)
            raise raised
        return "done"


class Bystander:
    """Has the other subject, and the other part of a fan-out."""

    @handles("b.b", "a.b")
    async def handle(self, name: str) -> str:
        await trio.sleep(1)
        return "stands by"


async def last(failure: Failure) -> None:
    await trio.lowlevel.checkpoint()


async def outcomes(feature: str, *parcels: Parcel) -> list[Outcome]:
    """Return what becomes of parcels one after the other, in a service in which nothing else happens."""
    table, dispatcher = FEATURES[feature]
    workers: dict[str, Any] = {"w": Raiser}
    tables: dict[str, Any] = {"w": {**LIFE, **table}}
    if "fan_out" in dispatcher:
        workers["other"] = Bystander
    if "failure_worker" in table:
        workers["last"], tables["last"] = last, {"dispatcher": ""}
    async with running(workers, tables, **dispatcher) as (feed, service):
        found = [await feed.settle(one) for one in parcels]
        moves = [event for event in service.events if isinstance(event, StateChanged)]

        assert not any(event.new in {State.BACKOFF, State.FAILED} for event in moves)
        assert all(len(one.outcomes) == 1 for one in parcels)
    [stopped] = [event for event in service.events if isinstance(event, KernelStopped)]
    assert stopped.status == 0
    return found


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("name", TRANSIENT)
async def test_what_a_handler_raises_is_tried_again(name: str, feature: str, autojump_clock: MockClock) -> None:
    first, second = await outcomes(feature, parcel(name), parcel(name, attempt=2))

    assert isinstance(first, Retry)
    assert isinstance(second, Retry)
    assert first.reason.isprintable()


@pytest.mark.parametrize("feature", ["plain", "failure-worker", "all"])
@pytest.mark.parametrize("name", ALL)
async def test_what_a_handler_raises_for_good_is_put_aside(name: str, feature: str, autojump_clock: MockClock) -> None:
    attempt = 3 if name in TRANSIENT else 1
    [outcome] = await outcomes(feature, parcel(name, attempt=attempt))

    assert isinstance(outcome, Ack if "failure_worker" in FEATURES[feature][0] else DeadLetter)


@pytest.mark.parametrize("feature", ["plain", "all"])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("attempt", [1, 3])
async def test_a_request_is_answered_whatever_its_handler_raises(
    attempt: int, name: str, feature: str, autojump_clock: MockClock
) -> None:
    [outcome] = await outcomes(feature, parcel(name, attempt=attempt, reply_to="answers"))

    assert isinstance(outcome, Ack)
    assert outcome.reply is not None


@pytest.mark.parametrize("name", ALL)
async def test_a_batch_fails_as_a_whole_and_alone(name: str, autojump_clock: MockClock) -> None:
    class Worker:
        @handles("a.b")
        async def handle(self, names: list[str], batch: Batch) -> None:
            batch.settle(0)
            raise await cause(name)

    batch = {"size": 3, "wait": 1.0}
    parcels = [parcel("x"), parcel(name, attempt=3), parcel(name, reply_to="answers")]
    async with running({"w": Worker}, {"w": {**LIFE, **SWITCH}}, batch=batch) as (feed, service):
        for one in parcels:
            feed.send.send_nowait(one)
        for one in parcels:
            await one.settled.wait()
        moves = [event.new for event in service.events if isinstance(event, StateChanged)]

    [[early], [failed], [answered]] = [one.outcomes for one in parcels]
    assert (early, type(failed)) == (Ack(), DeadLetter)
    assert isinstance(answered, Ack | Retry)
    assert State.BACKOFF not in moves


@pytest.mark.parametrize("name", [name for name in ALL if name != "strange"])  # which breaks the handler's own nursery
async def test_what_is_raised_in_a_handler_that_is_cut_reaches_nobody(name: str, autojump_clock: MockClock) -> None:
    """The drain is over, and its nursery hands on both: that it was cancelled, and what was raised meanwhile."""

    async def worker(_: object) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    raise await cause(name)

    one = parcel(1)
    async with running({"w": worker}) as (feed, service):
        feed.send.send_nowait(one)
        await trio.testing.wait_all_tasks_blocked()
        result = await service.stop()

    assert result.errors == ()
    assert one.outcomes == [Return()]


class Trouble:
    """Raises in the place that a test names."""

    where = ""
    error: BaseException | None = None

    def at(self, where: str) -> None:
        if self.where == where and self.error is not None:
            raise self.error


TROUBLE = Trouble()


@attrs.define
class Order:
    sku: str = attrs.field(validator=lambda *_: TROUBLE.at("payload"))


def ask(payload: object) -> bool:
    TROUBLE.at("filter")
    return True


def inward(message: Message) -> Message:
    TROUBLE.at("inbound")
    return message


def outward(message: Message) -> Message:
    TROUBLE.at("outbound")
    return message


@attrs.define(eq=False)
class Troubled(Json):
    """A protocol that has trouble itself."""

    @override
    def decode(self, envelope: Envelope) -> Message:
        TROUBLE.at("decode")
        return super().decode(envelope)

    @override
    def encode(self, message: Message) -> Envelope:
        TROUBLE.at("reply")
        return super().encode(message)

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        TROUBLE.at("error")
        return super().encode_error(request, error)


async def take(order: Order) -> None:
    await trio.lowlevel.checkpoint()
    if TROUBLE.where == "error":
        raise ValueError


@pytest.mark.parametrize("fan_out", [False, True])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("where", ["filter", "payload", "inbound", "outbound", "decode", "reply", "error"])
async def test_what_is_raised_around_a_handler_is_its_deliverys_own(
    name: str, where: str, fan_out: bool, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TROUBLE, "where", where)
    monkeypatch.setattr(TROUBLE, "error", await cause(name))
    monkeypatch.setattr("tests.delivery._feed.Json", Troubled)
    translators = {"inbound": [f"{__name__}:inward"], "outbound": [f"{__name__}:outward"]}
    table = {**LIFE, "filter": f"{__name__}:ask"}
    async with running({"w": take}, {"w": table}, translators=translators, fan_out=fan_out) as (feed, service):
        plain = await feed.settle(parcel({"sku": "tea"}, attempt=3))
        asked = await feed.settle(parcel({"sku": "tea"}, attempt=3, reply_to="answers"))
        moves = [event.new for event in service.events if isinstance(event, StateChanged)]

    assert State.BACKOFF not in moves
    assert isinstance(plain, Ack if where in {"reply", "outbound"} else DeadLetter)
    assert isinstance(asked, DeadLetter if where == "error" else Ack)


@pytest.fixture
def signals_of_our_own() -> Iterator[None]:
    """As in `kernel run`, where no signal raises anything."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("signals_of_our_own")
@pytest.mark.parametrize("group", [False, True])
async def test_a_keyboard_interrupt_that_no_signal_raised_is_its_handlers(
    autojump_clock: MockClock, group: bool
) -> None:
    async def worker(_: object) -> None:
        raise BaseExceptionGroup("two", [KeyboardInterrupt(), ValueError()]) if group else KeyboardInterrupt

    one, two = parcel(1), parcel(2)
    async with running({"w": worker}) as (feed, service):
        await feed.settle(one)
        await feed.settle(two)
        moves = [event.new for event in service.events if isinstance(event, StateChanged)]

    assert State.BACKOFF not in moves
    assert [type(outcome) for outcome in (*one.outcomes, *two.outcomes)] == [Retry, Retry]


async def test_ctrl_c_in_a_handler_still_ends_the_program(autojump_clock: MockClock) -> None:
    async def worker(_: object) -> None:
        raise KeyboardInterrupt

    one = parcel(1)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with running({"w": worker}) as (feed, _):
            await feed.settle(one)

    assert caught.value.subgroup(KeyboardInterrupt) is not None
    assert one.outcomes == [Return()]


# --- what it returns ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Ack, Retry, DeadLetter, Return])
async def test_a_class_is_no_outcome(kind: type[Outcome], autojump_clock: MockClock) -> None:
    async def worker(_: object) -> Any:
        return kind

    async with running({"w": worker}, {"w": LIFE}) as (feed, _):
        assert await feed.settle(parcel(1)) == Retry(
            1.0, f"TypeError: the handler returned the class {kind.__name__} and no object of it"
        )
        answered = await feed.settle(parcel(1, reply_to="answers"))

    assert isinstance(answered, Ack)
    assert answered.reply is not None
    assert answered.reply.body.startswith(b"TypeError: ")


@pytest.mark.parametrize("kind", [Ack, Retry, DeadLetter, Return])
async def test_a_class_is_no_outcome_of_an_item_either(kind: type[Outcome], autojump_clock: MockClock) -> None:
    class Worker:
        @handles("a.b")
        async def handle(self, payloads: list[int], batch: Batch) -> Any:
            batch.settle(0, kind)
            return [None, kind, None]

    parcels = [parcel(number) for number in range(3)]
    async with running({"w": Worker}, {"w": LIFE}, batch={"size": 3}) as (feed, _):
        for one in parcels:
            feed.send.send_nowait(one)
        for one in parcels:
            await one.settled.wait()

    assert [type(one.outcomes[0]) for one in parcels] == [Retry, Retry, Ack]


@pytest.mark.parametrize("result", [Ack("text"), Ack(7)], ids=repr)  # type: ignore[arg-type]
async def test_a_reply_is_an_envelope(result: Ack, autojump_clock: MockClock) -> None:
    async def worker(_: object) -> Ack:
        return result

    async with running({"w": worker}, {"w": LIFE}) as (feed, _):
        outcome = await feed.settle(parcel(1))

    assert isinstance(outcome, Retry)
    assert outcome.reason.startswith("TypeError: ")


async def test_a_reason_of_a_handler_is_made_safe(autojump_clock: MockClock) -> None:
    async def worker(_: object) -> DeadLetter:
        return DeadLetter("\ud800\n" + "x" * 10_000)

    async with running({"w": worker}) as (feed, _):
        outcome = await feed.settle(parcel(1))

    assert isinstance(outcome, DeadLetter)
    assert outcome.reason.startswith(r"\ud800\nxxx")
    assert len(outcome.reason) < 600


async def test_a_request_that_a_handler_puts_aside_is_answered(autojump_clock: MockClock) -> None:
    async def worker(_: object) -> DeadLetter:
        return DeadLetter("no such order")

    async with running({"w": worker}) as (feed, _):
        outcome = await feed.settle(parcel(1, reply_to="answers"))

    assert isinstance(outcome, Ack)
    assert outcome.reply is not None
    assert outcome.reply.body == b"PermanentError: no such order"


@pytest.mark.parametrize("after", [math.nan, -1, -1e-9, math.inf, MAX_DELAY * 1.01, 10**400, -(10**400)], ids=repr)
def test_a_wait_that_nobody_can_wait_is_refused_where_it_is_made(after: float) -> None:
    with pytest.raises(ValueError, match="`after` is from 0 to 1000000 seconds"):
        TransientError("later", after=after)
    with pytest.raises(ValueError, match="`after` is from 0 to 1000000 seconds"):
        Retry(after)


@pytest.mark.parametrize("after", [True, False, "1", b"1", 1j, [1]], ids=repr)
def test_a_wait_is_a_number(after: Any) -> None:
    with pytest.raises(TypeError, match="`after` is a number of seconds"):
        TransientError("later", after=after)
    with pytest.raises(TypeError, match="`after` is a number of seconds"):
        Retry(after)


@pytest.mark.parametrize("after", [0, 0.0, 1, 0.5, MAX_DELAY])
def test_a_wait_that_can_be_waited_is_taken_as_it_is(after: float) -> None:
    assert (TransientError(after=after).after, Retry(after).after) == (after, after)


async def answer_to(feed: Feed, one: Parcel) -> bytes:
    outcome = await feed.settle(one)
    assert isinstance(outcome, Ack)
    assert outcome.reply is not None
    return outcome.reply.body


async def test_a_request_that_is_wanted_again_too_often_is_answered(autojump_clock: MockClock) -> None:
    async def worker(_: object) -> None:
        raise TransientError("busy", after=1.0)

    async with running({"w": worker}, {"w": LIFE}) as (feed, _):
        assert await feed.settle(parcel(1, reply_to="answers", attempt=2)) == Retry(1.0, "TransientError: busy")
        assert await answer_to(feed, parcel(1, reply_to="answers", attempt=3)) == b"TransientError: busy"
        assert (
            await answer_to(feed, parcel(1, reply_to="answers", attempt=4))
            == b"PermanentError: its 3 attempts are used up: they ended with their process"
        )
        late = parcel(1, reply_to="answers", deadline=trio.current_time())
        assert await answer_to(feed, late) == b"TimeoutError: expired: its deadline had passed"


async def test_an_exception_that_is_raised_again_and_again_has_one_note_of_ours(autojump_clock: MockClock) -> None:
    error = ValueError("always this one")
    error.add_note("of the user")

    async def worker(_: object) -> None:
        raise error

    async with running({"w": worker}) as (feed, _):
        for number in range(50):
            await feed.settle(parcel(1, id=f"m{number}"))

    assert error.__notes__ == ["of the user", "in worker/w, delivery m49, attempt 1"]


@pytest.mark.parametrize("broken", [OSError("gone"), BaseExceptionGroup("x", [GeneratorExit()])], ids=["os", "base"])
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("raised", [None, ValueError("bad")], ids=["done", "failed"])
async def test_what_could_not_be_settled_is_not_told_as_settled(
    raised: Exception | None, waits: bool, broken: BaseException, autojump_clock: MockClock
) -> None:
    class Broken(Parcel):
        @override
        def settle_nowait(self, outcome: Outcome) -> bool:
            if not waits:
                self.settled.set()
                raise broken
            return False

        @override
        async def settle(self, outcome: Outcome) -> None:
            await trio.lowlevel.checkpoint()
            self.settled.set()
            raise broken

    async def worker(_: object) -> None:
        if raised is not None:
            raise raised

    async with running({"w": worker}) as (feed, service):
        one = Broken(parcel(1).envelope)
        feed.send.send_nowait(one)
        await one.settled.wait()
        await feed.settle(parcel(2))
        events = list(service.events)
        service.events[:] = [event for event in events if not isinstance(event, SettleFailed)]

    [failed] = [event for event in events if isinstance(event, SettleFailed)]
    settled = [event for event in events if isinstance(event, DeliverySettled)]
    assert failed.delivery_id == one.envelope.id
    assert isinstance(failed.outcome, Ack if raised is None else Retry)
    assert failed.raised is raised
    assert one.envelope.id not in {event.delivery_id for event in settled}
