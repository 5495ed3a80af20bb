"""Interceptors: what stands around each send and each call of a handler sees it, may refuse it, and ends with it."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import attrs
import pytest
import trio
from structlog.typing import FilteringBoundLogger
from trio.testing import MockClock

from kernel import (
    Ack,
    Batch,
    DeadLetter,
    HandlerDone,
    Incoming,
    Outgoing,
    Retry,
    Return,
    StateChanged,
    current_delivery,
    handles,
)
from kernel._delivery.pipeline import _called
from kernel._manifest.registry import Registry, discover
from kernel.abc import Context
from kernel.errors import CallTimeoutError, PermanentError, RemoteError, SendError
from kernel.testing import RunningService, open_kernel

session: ContextVar[str] = ContextVar("session", default="nobody")
seen: list[Any] = []


# --- interceptors -----------------------------------------------------------------------------------------------------


class Session:
    """A session id from a context variable on one side to the other, in the usual form."""

    @asynccontextmanager
    async def sending(self, outgoing: Outgoing) -> AsyncGenerator[None]:
        outgoing.headers["session"] = session.get()
        yield

    @asynccontextmanager
    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        session.set(str(incoming.headers["session"]))
        yield


class Bare:
    """The same without a decorator."""

    async def sending(self, outgoing: Outgoing) -> AsyncGenerator[None]:
        outgoing.headers["session"] = session.get()
        yield

    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        session.set(str(incoming.headers["session"]))
        yield


class Static:
    """The same with nothing of its own."""

    @staticmethod
    @asynccontextmanager
    async def sending(outgoing: Outgoing) -> AsyncGenerator[None]:
        outgoing.headers["session"] = session.get()
        yield

    @classmethod
    async def handling(cls, incoming: Incoming) -> AsyncGenerator[None]:
        session.set(str(incoming.headers["session"]))
        yield


@attrs.frozen
class _Writing:
    outgoing: Outgoing

    async def __aenter__(self) -> None:
        self.outgoing.headers["session"] = session.get()

    async def __aexit__(self, *error: object) -> None:
        pass


@attrs.frozen
class _Reading:
    incoming: Incoming

    async def __aenter__(self) -> None:
        session.set(str(self.incoming.headers["session"]))

    async def __aexit__(self, *error: object) -> None:
        pass


class Written:
    """The same with context managers that are classes."""

    def sending(self, outgoing: Outgoing) -> _Writing:
        return _Writing(outgoing)

    def handling(self, incoming: Incoming) -> _Reading:
        return _Reading(incoming)


class Plain:
    """The same where nothing is waited for."""

    @contextmanager
    def sending(self, outgoing: Outgoing) -> Generator[None]:
        outgoing.headers["session"] = session.get()
        yield

    @contextmanager
    def handling(self, incoming: Incoming) -> Generator[None]:
        session.set(str(incoming.headers["session"]))
        yield


class PlainBare:
    """The same without a decorator."""

    def sending(self, outgoing: Outgoing) -> Generator[None]:
        outgoing.headers["session"] = session.get()
        yield

    def handling(self, incoming: Incoming) -> Generator[None]:
        session.set(str(incoming.headers["session"]))
        yield


FORMS = [Session, Bare, Static, Written, Plain, PlainBare]


class Watch:
    """Notes when it begins and ends, and with what."""

    name = "watch"

    async def sending(self, outgoing: Outgoing) -> AsyncGenerator[None]:
        async with self._noted(outgoing):
            yield

    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        async with self._noted(incoming):
            yield

    @asynccontextmanager
    async def _noted(self, what: object) -> AsyncGenerator[None]:
        seen.append((self.name, "begins"))
        try:
            yield
        except BaseException as error:
            seen.append((self.name, type(error).__name__))
            raise
        seen.append((self.name, "ends"))


class Inner(Watch):
    name = "inner"


class Breaks:
    """Raises where the test says."""

    before: BaseException | None = None
    after: BaseException | None = None

    async def sending(self, outgoing: object) -> AsyncGenerator[None]:
        if self.before:
            raise self.before
        yield
        if self.after:
            raise self.after

    handling = sending


class Hangs:
    """Waits for ever where the test says."""

    where = "before"

    async def sending(self, outgoing: object) -> AsyncGenerator[None]:
        try:
            if self.where == "before":
                await trio.sleep_forever()
            yield
            if self.where == "after":
                await trio.sleep_forever()
        except trio.Cancelled:
            seen.append("cancelled")
            raise

    handling = sending


class Keeps:
    """Keeps to itself what is raised inside of it."""

    async def sending(self, outgoing: object) -> AsyncGenerator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  it is what the test is about
            seen.append(type(error).__name__)

    handling = sending


class NeverYields:
    async def sending(self, outgoing: object) -> AsyncGenerator[None]:
        if session.get() == "never":
            yield

    handling = sending


class YieldsTwice:
    async def sending(self, outgoing: object) -> AsyncGenerator[None]:
        yield
        yield

    handling = sending


class PlainBreaks:
    """`Breaks` that waits for nothing."""

    def sending(self, outgoing: object) -> Generator[None]:
        if Breaks.before:
            raise Breaks.before
        yield
        if Breaks.after:
            raise Breaks.after

    handling = sending


class PlainKeeps:
    """`Keeps` that waits for nothing."""

    def sending(self, outgoing: object) -> Generator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  as there
            seen.append(type(error).__name__)

    handling = sending


@attrs.frozen
class _Keeping:
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> bool:
        seen.append("" if kind is None else kind.__name__)
        return True


class WrittenKeeps:
    """`Keeps` with a class."""

    def sending(self, outgoing: object) -> _Keeping:
        return _Keeping()

    handling = sending


class Swallows:
    """Keeps to itself what nobody may keep."""

    async def sending(self, outgoing: object) -> AsyncGenerator[None]:
        try:
            yield
        except BaseException as error:  # noqa: BLE001, ASYNC103  it is what the test is about
            seen.append(type(error).__name__)

    handling = sending


class PlainSwallows:
    """`Swallows` that waits for nothing."""

    def sending(self, outgoing: object) -> Generator[None]:
        try:
            yield
        except BaseException as error:  # noqa: BLE001  as there
            seen.append(type(error).__name__)

    handling = sending


class OwnScope:
    """Ends what takes longer than a second, and does not mind."""

    def sending(self, outgoing: object) -> Generator[None]:
        with trio.move_on_after(1.0):
            yield

    handling = sending


class NoManager:
    """Has forgotten the `yield`."""

    def sending(self, outgoing: object) -> Any:
        seen.append("called")

    handling = sending


class PlainNever:
    def sending(self, outgoing: object) -> Generator[None]:
        if session.get() == "never":
            yield

    handling = sending


class PlainTwice:
    def sending(self, outgoing: object) -> Generator[None]:
        yield
        yield

    handling = sending


class Looks:
    """Looks at all that there is to see."""

    async def sending(self, outgoing: Outgoing) -> AsyncGenerator[None]:
        seen.append((outgoing.subject, outgoing.payload, dict(outgoing.headers), outgoing.is_call, repr(outgoing)))
        try:
            yield
        finally:
            seen.append((outgoing.answer and outgoing.answer.body, outgoing.result))

    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        seen.append((incoming.worker, incoming.method, incoming.payload, len(incoming.deliveries), repr(incoming)))
        seen.append(incoming.delivery is current_delivery())
        yield
        seen.append(incoming.result)


class Wants:
    """Asks for what a worker may ask for, and is open for a life."""

    def __init__(self, log: FilteringBoundLogger, logger: logging.Logger, context: Context, out: Any = None) -> None:
        seen.append((logger.name, context.id, out))

    async def __aenter__(self) -> None:
        seen.append("opened")

    async def __aexit__(self, *error: object) -> None:
        seen.append("closed")

    async def sending(self, outgoing: object) -> AsyncGenerator[None]:
        yield

    handling = sending


class Hears:
    """Asks for events."""

    def __init__(self, events: trio.MemoryReceiveChannel[StateChanged]) -> None:
        self.events = events

    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        seen.append(type(self.events.receive_nowait()).__name__)
        yield


@pytest.fixture(autouse=True)
def stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a module `stands`, whose classes a manifest can name."""
    seen.clear()
    module = ModuleType("stands")
    for value in list(globals().values()):
        if isinstance(value, type) and value.__module__ == __name__:
            setattr(module, value.__name__, value)
    monkeypatch.setitem(sys.modules, "stands", module)
    for cls, name in ((Breaks, "before"), (Breaks, "after"), (Hangs, "where")):
        monkeypatch.setattr(cls, name, getattr(cls, name))


# --- a service --------------------------------------------------------------------------------------------------------


class Worker:
    @handles("order.created")
    async def take(self, order: Any) -> Any:
        await trio.lowlevel.checkpoint()
        seen.append(("handled", order, session.get()))
        if order == "fails":
            raise ValueError("no boxes")
        if order == "hangs":
            await trio.sleep_forever()
        if order == "again":
            return Retry(1.0)
        return "done"


def paths(*classes: type[object]) -> list[str]:
    return [f"stands:{cls.__name__}" for cls in classes]


def service(
    *, out: Any = (), call: Any = (), take: Any = (), worker: type[object] = Worker, tables: Any = None, **more: Any
) -> dict[str, Any]:
    tables, wired = tables or {}, {"driver": "queue", "protocol": "json"}
    manifest = {
        "kernel": {"name": "shop"},
        "drivers": {
            "queue": {"plugin": "memory"},
            "out": {"plugin": "publisher", **wired, "interceptors": paths(*out), **tables.get("out", {})},
            "call": {"plugin": "rpc_client", **wired, "interceptors": paths(*call), **tables.get("call", {})},
            **tables.get("drivers", {}),
        },
        "dispatchers": {
            "take": {
                "plugin": "consumer",
                **wired,
                "queue": "orders",
                "bindings": ["order.*"],
                "interceptors": paths(*take),
                **tables.get("take", {}),
            }
        },
        "workers": {
            "packer": {
                "use": "packer",
                "dispatcher": "take",
                "retry": {"attempts": 2, "backoff_initial": 0.5, "jitter": 0.0},
                **tables.get("packer", {}),
            },
            **tables.get("workers", {}),
        },
    }
    own = Registry.of({"workers": {"packer": worker, "last": Last, "second": Worker}})
    return {"manifest": manifest, "registry": Registry((*discover().plugins, *own.plugins)), **more}


class Last:
    @handles("#")
    async def bury(self, failure: Any) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(("buried", session.get()))


async def publish(kernel: RunningService, payload: object, **more: Any) -> None:
    await kernel.publish("out", "order.created", payload, **more)


# --- what they are for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
async def test_a_context_variable_reaches_the_handler(form: type[object], autojump_clock: MockClock) -> None:
    async with open_kernel(**service(out=[form], take=[form])) as kernel:
        for number, name in enumerate(["ann", "bob"], start=1):
            session.set(name)
            await publish(kernel, number)
            await kernel.wait_settled(number)
        session.set("nobody")

    assert seen == [("handled", 1, "ann"), ("handled", 2, "bob")]


@pytest.mark.parametrize("form", FORMS)
async def test_what_one_handler_sees_is_not_there_for_the_next(form: type[object], autojump_clock: MockClock) -> None:
    async with open_kernel(**service(out=[form], take=[Refusing, form]), expected=PermanentError) as kernel:
        session.set("ann")
        await publish(kernel, "refused")
        session.set("bob")
        await publish(kernel, 2)
        await kernel.wait_settled(2)
        session.set("nobody")

    assert seen == ["nobody", "nobody", ("handled", 2, "bob")]


class Refusing:
    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        seen.append(session.get())
        if incoming.payload == "refused":
            raise PermanentError("not for us")
        yield


async def test_the_first_stands_outermost_on_both_sides(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(out=[Watch, Inner], take=[Watch, Inner])) as kernel:
        await publish(kernel, 1)
        sent, seen[:] = list(seen), []
        await kernel.wait_settled()

    nested = [("watch", "begins"), ("inner", "begins"), ("inner", "ends"), ("watch", "ends")]
    assert sent == nested
    assert seen == [*nested[:2], ("handled", 1, "nobody"), *nested[2:]]


async def test_a_send_and_a_call_are_seen_as_they_are(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(out=[Looks], call=[Looks])) as kernel:
        id_ = await kernel.resource("driver/out").publish("order.created", 1, headers={"a": "b"})
        await kernel.wait_settled(1)
        answer = await kernel.call("call", "order.created", 2)

    assert answer == "done"
    assert seen == [
        ("order.created", 1, {"a": "b"}, False, "<Outgoing 'order.created'>"),
        (None, id_),
        ("handled", 1, "nobody"),
        ("order.created", 2, {}, True, "<Outgoing 'order.created'>"),
        ("handled", 2, "nobody"),
        (b'{"result":"done"}', "done"),
    ]


@pytest.mark.parametrize(("order", "result"), [(1, "done"), ("again", Retry(1.0))])
async def test_a_call_of_a_handler_is_seen_as_it_is(order: object, result: object, autojump_clock: MockClock) -> None:
    async with open_kernel(**service(take=[Looks])) as kernel:
        await publish(kernel, order)
        await kernel.wait_settled()

    assert seen == [
        ("worker/packer", "take", order, 1, "<Incoming for worker/packer>"),
        True,
        ("handled", order, "nobody"),
        result,
    ]


# --- what they raise --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("side", ["out", "call"])
@pytest.mark.parametrize("breaks", [Breaks, PlainBreaks])
async def test_what_a_sending_one_raises_is_the_senders_error(
    breaks: type[object], side: str, where: str, autojump_clock: MockClock
) -> None:
    setattr(Breaks, where, LookupError("refused"))

    async with open_kernel(**service(**{side: [Watch, breaks]})) as kernel:
        with pytest.raises(LookupError, match="refused"):
            await (publish(kernel, 1) if side == "out" else kernel.call("call", "order.created", 1))
        await kernel.wait_settled(where == "after")

    assert ("watch", "LookupError") in seen
    assert (("handled", 1, "nobody") in seen) is (where == "after")


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize(
    ("error", "outcomes"),
    [
        (ValueError("no boxes"), [Retry, DeadLetter]),
        (PermanentError("never"), [DeadLetter]),
        (SystemExit(3), [DeadLetter]),
    ],
    ids=["retried", "permanent", "exit"],
)
async def test_what_a_handling_one_raises_is_judged_as_the_handlers_failure(
    where: str, error: BaseException, outcomes: list[type[object]], autojump_clock: MockClock
) -> None:
    setattr(Breaks, where, error)

    async with open_kernel(**service(take=[Breaks]), expected=Exception) as kernel:
        await publish(kernel, 1)
        settled = await kernel.wait_settled(len(outcomes))

    assert [type(event.outcome) for event in settled] == outcomes
    assert {event.worker for event in settled} == {"worker/packer"}


async def test_what_is_raised_inside_is_seen_by_all_around_it(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(call=[Watch], take=[Watch]), expected=Exception) as kernel:
        with pytest.raises(RemoteError):
            await kernel.call("call", "order.created", "fails")

    assert seen == [
        ("watch", "begins"),
        ("watch", "begins"),
        ("handled", "fails", "nobody"),
        ("watch", "ValueError"),
        ("watch", "RemoteError"),
    ]


@pytest.mark.parametrize("keeps", [Keeps, PlainKeeps, WrittenKeeps])
async def test_a_send_whose_error_is_kept_is_an_error_all_the_same(
    keeps: type[object], autojump_clock: MockClock
) -> None:
    Breaks.before = LookupError("refused")

    async with open_kernel(**service(out=[Watch, keeps, Breaks])) as kernel:
        with pytest.raises(
            SendError, match=r'an interceptor of driver/out kept to itself what was raised when "order\.created"'
        ):
            await publish(kernel, 1)

    assert "LookupError" in seen


@pytest.mark.parametrize("keeps", [Keeps, PlainKeeps, WrittenKeeps])
async def test_a_handlers_error_may_be_kept(keeps: type[object], autojump_clock: MockClock) -> None:
    async with open_kernel(**service(take=[Watch, keeps])) as kernel:
        await publish(kernel, "fails")
        [settled] = await kernel.wait_settled()

    assert settled.outcome == Ack()
    assert seen[-2:] == ["ValueError", ("watch", "ends")]


@pytest.mark.parametrize(
    ("cls", "text"),
    [(NeverYields, "sending ended without `yield`"), (YieldsTwice, "sending has more than one `yield`")],
)
async def test_a_function_that_does_not_yield_once_is_told(
    cls: type[object], text: str, autojump_clock: MockClock
) -> None:
    async with open_kernel(**service(out=[cls])) as kernel:
        with pytest.raises(RuntimeError, match=f"{cls.__name__}.{text}"):
            await publish(kernel, 1)
        await kernel.wait_settled(cls in {YieldsTwice, PlainTwice})


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_handling_one_is_inside_of_the_handlers_time(where: str, autojump_clock: MockClock) -> None:
    Hangs.where = where

    async with open_kernel(
        **service(take=[Hangs], tables={"packer": {"timeout": 5.0, "retry": {"attempts": 1}}}), expected=TimeoutError
    ) as kernel:
        await publish(kernel, 1)
        [settled] = await kernel.wait_settled()

    assert isinstance(settled.error, TimeoutError)
    assert settled.seconds == pytest.approx(5.0, abs=0.1)
    assert seen[-1] == "cancelled"


async def test_a_handler_that_is_cut_is_cut_with_what_stands_around_it(autojump_clock: MockClock) -> None:
    tables = {"packer": {"timeout": 5.0, "retry": {"attempts": 1}}}

    async with open_kernel(**service(take=[Watch], tables=tables), expected=TimeoutError) as kernel:
        await publish(kernel, "hangs")
        await kernel.wait_settled()

    assert seen == [("watch", "begins"), ("handled", "hangs", "nobody"), ("watch", "Cancelled")]


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_sending_one_is_inside_of_the_publishers_time(where: str, autojump_clock: MockClock) -> None:
    Hangs.where = where

    async with open_kernel(**service(out=[Hangs], tables={"out": {"timeout": 3.0}})) as kernel:
        began = trio.current_time()
        with pytest.raises(SendError):
            await publish(kernel, 1)
        took = trio.current_time() - began
        await kernel.wait_settled(where == "after")

    assert took == pytest.approx(3.0)
    assert "cancelled" in seen


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_calling_one_is_inside_of_the_calls_time(where: str, autojump_clock: MockClock) -> None:
    Hangs.where = where

    async with open_kernel(**service(call=[Hangs], tables={"call": {"timeout": 3.0}})) as kernel:
        began = trio.current_time()
        with pytest.raises(CallTimeoutError):
            await kernel.call("call", "order.created", 1)

        assert trio.current_time() - began == pytest.approx(3.0)


async def test_a_sender_that_is_cancelled_takes_it_along(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(out=[Hangs])) as kernel:
        with trio.move_on_after(1.0) as scope:
            await kernel.resource("driver/out").publish("order.created", 1)

    assert scope.cancelled_caught
    assert seen == ["cancelled"]


async def test_a_stop_cuts_what_stands_around_a_handler(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(take=[Hangs])) as kernel:
        await publish(kernel, 1)
        await trio.testing.wait_all_tasks_blocked()
        await kernel.stop()

    assert seen == ["cancelled"]


# --- where they stand -------------------------------------------------------------------------------------------------


class Batches:
    @handles("order.created")
    async def take(self, orders: list[Any], batch: Batch) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(("handled", sorted(orders), session.get()))


async def test_a_batch_is_handled_within_one(autojump_clock: MockClock) -> None:
    tables = {"take": {"batch": {"size": 3, "wait": 1.0}}}

    async with open_kernel(
        **service(out=[Session], take=[LooksAtBatch, Session], worker=Batches, tables=tables)
    ) as kernel:
        session.set("ann")
        for number in range(3):
            await publish(kernel, number)
        session.set("nobody")
        await kernel.wait_settled(3)

    assert seen == [([0, 1, 2], [0, 1, 2]), ("handled", [0, 1, 2], "ann"), None]


class LooksAtBatch:
    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        payload: Any = incoming.payload
        seen.append((sorted(payload), sorted(int(one.envelope.body) for one in incoming.deliveries)))
        yield
        seen.append(current_delivery())


async def test_a_batch_fails_with_what_stands_around_it(autojump_clock: MockClock) -> None:
    Breaks.after = PermanentError("rolled back")
    tables = {"take": {"batch": {"size": 2, "wait": 1.0}}}

    async with open_kernel(**service(take=[Breaks], worker=Batches, tables=tables), expected=PermanentError) as kernel:
        for number in range(2):
            await publish(kernel, number)
        settled = await kernel.wait_settled(2)

    assert {type(event.outcome) for event in settled} == {DeadLetter}


async def test_each_worker_of_a_fan_out_has_its_own(autojump_clock: MockClock) -> None:
    tables = {"take": {"fan_out": True}, "workers": {"second": {"use": "second", "dispatcher": "take"}}}

    async with open_kernel(**service(out=[Session], take=[Session], tables=tables)) as kernel:
        session.set("ann")
        await publish(kernel, 1)
        session.set("nobody")
        await kernel.wait_settled()

    assert seen == [("handled", 1, "ann")] * 2


async def test_the_failure_worker_is_called_within_them_too(autojump_clock: MockClock) -> None:
    tables = {"packer": {"failure_worker": "last", "retry": {"attempts": 1}}, "workers": {"last": {"use": "last"}}}

    async with open_kernel(**service(out=[Session], take=[Session], tables=tables), expected=ValueError) as kernel:
        session.set("ann")
        await publish(kernel, "fails")
        session.set("nobody")
        await kernel.wait_settled()

    assert seen == [("handled", "fails", "ann"), ("buried", "ann")]


class Blocks:
    @handles("order.created")
    def take(self, order: Any) -> None:
        seen.append(("handled", order, session.get()))


async def test_a_handler_in_a_thread_sees_the_context_variable(autojump_clock: MockClock) -> None:
    tables = {"drivers": {"pool": {"plugin": "thread_pool"}}, "packer": {"runs_in": "pool"}}

    async with open_kernel(**service(out=[Session], take=[Session], worker=Blocks, tables=tables)) as kernel:
        session.set("ann")
        await publish(kernel, 1)
        session.set("nobody")
        await kernel.wait_settled()

    assert seen == [("handled", 1, "ann")]


async def test_passages_are_told_around_them(autojump_clock: MockClock) -> None:
    Breaks.before = PermanentError("refused")

    async with open_kernel(**service(take=[Breaks]), expected=PermanentError) as kernel:
        heard: list[HandlerDone] = []
        kernel.kernel.hub.subscribe(heard.append, HandlerDone)  # type: ignore[arg-type]
        await publish(kernel, 1)
        await kernel.wait_settled()

    assert [type(event.error) for event in heard] == [PermanentError]


# --- their lives ------------------------------------------------------------------------------------------------------


async def test_they_are_given_what_workers_are_and_live_with_what_they_stand_at(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(take=[Wants])) as kernel:
        resource = kernel.resource("driver/out")
        await publish(kernel, 1)
        await kernel.wait_settled()

    assert seen[0] == ("dispatcher/take", "dispatcher/take", resource)
    assert seen[1:] == ["opened", ("handled", 1, "nobody"), "closed"]
    assert "driver/out" in kernel.plan.components["dispatcher/take"].uses


async def test_a_driver_has_its_own_for_each_life(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(call=[Wants])) as kernel:
        assert seen == [("driver/call", "driver/call", kernel.resource("driver/out")), "opened"]

    assert seen[2:] == ["closed"]


async def test_they_may_hear_events(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(take=[Hears])) as kernel:
        await publish(kernel, 1)
        await kernel.wait_settled()

    assert seen == ["StateChanged", ("handled", 1, "nobody")]


async def test_where_there_are_none_nothing_asks_for_them(autojump_clock: MockClock) -> None:
    async with open_kernel(**service()) as kernel:
        assert kernel.resource("driver/out")._context.intercept is None
        [intake] = kernel.kernel._tree.intakes.values()
        pipeline: Any = intake._pipeline

        assert pipeline.called is _called


@pytest.mark.parametrize("swallows", [Swallows, PlainSwallows, WrittenKeeps])
async def test_a_timeout_that_is_swallowed_is_one_all_the_same(
    swallows: type[object], autojump_clock: MockClock
) -> None:
    given = service(take=[Watch, swallows], tables={"packer": {"timeout": 5.0}}, expected=Exception)
    async with open_kernel(**given) as kernel:
        await publish(kernel, "hangs")
        settled = await kernel.wait_settled(2)

    assert [type(event.outcome) for event in settled] == [Retry, DeadLetter]
    assert seen.count("Cancelled") == 2


@pytest.mark.parametrize("swallows", [Swallows, PlainSwallows, WrittenKeeps])
async def test_a_stop_that_is_swallowed_loses_nothing(swallows: type[object], autojump_clock: MockClock) -> None:
    async with open_kernel(**service(take=[swallows], expected=Exception)) as kernel:
        await publish(kernel, "hangs")
        await trio.testing.wait_all_tasks_blocked()
        await kernel.stop()

    assert [type(event.outcome) for event in kernel.settled] == [Return]
    assert "Cancelled" in seen


@pytest.mark.parametrize("swallows", [Swallows, PlainSwallows, WrittenKeeps])
async def test_a_sender_that_is_cancelled_stays_so(swallows: type[object], autojump_clock: MockClock) -> None:
    async with open_kernel(**service(out=[swallows, Hangs])) as kernel:
        with trio.move_on_after(1.0) as scope:
            await publish(kernel, 1)

    assert scope.cancelled_caught


async def test_an_interceptor_may_cancel_what_is_inside_of_it(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(take=[OwnScope])) as kernel:
        await publish(kernel, "hangs")
        settled = await kernel.wait_settled(1)

    assert [type(event.outcome) for event in settled] == [Ack]


async def test_one_that_is_no_context_manager_is_named(autojump_clock: MockClock) -> None:
    async with open_kernel(**service(out=[NoManager])) as kernel:
        with pytest.raises(TypeError, match=r"NoManager\.sending returned NoneType, which is no async context manager"):
            await publish(kernel, 1)
