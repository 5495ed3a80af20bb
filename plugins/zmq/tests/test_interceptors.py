"""Interceptors on the drivers that send over ZeroMQ, and on the dispatchers that deliver."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import pytest
import trio
import trio.testing
import zmq

from kernel import Incoming, Outgoing, answers, contract, handles
from kernel.errors import (
    CallTimeoutError,
    ContractError,
    ConversionError,
    EncodeError,
    PermanentError,
    RemoteError,
    SendError,
    TransientError,
)

from .raw import Inbox, open_raw, serving

CUSTOMER: ContextVar[str] = ContextVar("customer", default="nobody")
told: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_told() -> Generator[None]:
    told.clear()
    yield
    told.clear()


class Customers:
    """Takes the customer along, and tells how it went."""

    @contextmanager
    def sending(self, outgoing: Outgoing) -> Generator[None]:
        outgoing.headers["customer"] = CUSTOMER.get()
        told.append(("sending", outgoing.subject, outgoing.is_call))
        try:
            yield
        except BaseException as error:
            told.append(("not sent", type(error).__name__))
            raise
        told.append(("sent", outgoing.result, outgoing.answer is not None))

    @contextmanager
    def handling(self, incoming: Incoming) -> Generator[None]:
        CUSTOMER.set(str(incoming.headers.get("customer")))
        told.append(("handling", incoming.method))
        try:
            yield
        except BaseException as error:
            told.append(("not handled", type(error).__name__))
            raise
        told.append(("handled", incoming.result))


class Second(Customers):
    """Refuses one customer on either side, and keeps what is raised to itself for another."""

    @contextmanager
    def sending(self, outgoing: Outgoing) -> Generator[None]:
        if outgoing.headers["customer"] == "refused here":
            raise PermanentError("not this one")
        if outgoing.headers["customer"] == "strange":
            outgoing.headers["strange"] = b"bytes"
        try:
            yield
        except RemoteError:
            if outgoing.headers["customer"] != "kept":
                raise

    @contextmanager
    def handling(self, incoming: Incoming) -> Generator[None]:
        if incoming.headers["customer"] == "refused there":
            raise PermanentError("nor this one")
        yield


class Desk:
    def __init__(self) -> None:
        self.seen, self.cancelled, self.tries = Inbox(), Inbox(), 0

    @answers("desk.who")
    async def who(self, number: int = 0) -> Any:
        return [CUSTOMER.get(), number]

    @answers("desk.fail")
    async def fail(self) -> None:
        raise ValueError("the reason")

    @answers("desk.wait")
    async def wait(self) -> None:
        self.seen.put("wait")
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled.put("wait")
            raise


class Ear:
    def __init__(self) -> None:
        self.heard = Inbox()

    @handles("news")
    async def hear(self, payload: object) -> None:
        self.heard.put((CUSTOMER.get(), payload))
        if payload == "again" and len(self.heard.seen) < 2:
            raise TransientError("not yet", after=0.001)


BOTH = [f"{__name__}:Customers", f"{__name__}:Second"]


def calls(address: str, *, desk: list[str] | None = None, **table: Any) -> Any:
    reply = {"plugin": "zmq_reply", "bind": [address], "interceptors": BOTH if desk is None else desk}
    request = {"plugin": "zmq_request", "connect": [address], "interceptors": BOTH, **table}
    return serving({"desk": Desk}, dispatchers={"desk": reply}, drivers={"rpc": request})


async def test_what_a_call_takes_along_is_there_for_its_handler_and_the_first_is_outermost(address: str) -> None:
    async with calls(address) as service:
        CUSTOMER.set("ada")
        assert await service.resource("driver/rpc").desk.who(3) == ["ada", 3]

    assert told == [
        ("sending", "desk.who", True),
        ("handling", "who"),
        ("handled", ["ada", 3]),
        ("sent", ["ada", 3], True),
    ]


@pytest.mark.parametrize(
    ("customer", "error", "text"),
    [
        ("refused here", PermanentError, "not this one"),
        ("refused there", RemoteError, "nor this one"),
        ("strange", EncodeError, "bytes"),
    ],
)
async def test_what_an_interceptor_refuses_costs_no_other_call(
    address: str, customer: str, error: type[Exception], text: str
) -> None:
    async with calls(address) as service:
        rpc = service.resource("driver/rpc")
        CUSTOMER.set(customer)
        with pytest.raises(error, match=text):
            await rpc.desk.who()
        was_handled = any(one[0] == "handling" for one in told)
        CUSTOMER.set("ada")

        assert await rpc.desk.who() == ["ada", 0]
        assert was_handled == (customer == "refused there")
        assert rpc.in_flight == 0


async def test_an_error_of_the_handler_passes_all_of_them(address: str) -> None:
    async with calls(address) as service:
        with pytest.raises(RemoteError, match="the reason"):
            await service.resource("driver/rpc").desk.fail()
        CUSTOMER.set("kept")
        with pytest.raises(SendError, match="kept to itself"):
            await service.resource("driver/rpc").desk.fail()

    assert told[:4] == [
        ("sending", "desk.fail", True),
        ("handling", "fail"),
        ("not handled", "ValueError"),
        ("not sent", "RemoteError"),
    ]


async def test_a_cancelled_call_cancels_its_handler_through_the_interceptors_of_both_sides(address: str) -> None:
    async with calls(address) as service:
        rpc, desk = service.resource("driver/rpc"), service.resource("worker/desk")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rpc.desk.wait)
            await desk.seen.get(1)
            nursery.cancel_scope.cancel()
        await desk.cancelled.get(1)

        assert ("not sent", "Cancelled") in told
        assert await rpc.desk.who() == ["nobody", 0]
        assert ("not handled", "Cancelled") in told


async def test_each_attempt_has_its_own_and_its_time(address: str) -> None:
    async with open_raw(zmq.ROUTER, bind=address), calls_alone(address, timeout=0.05, attempts=3) as service:
        with pytest.raises(CallTimeoutError):
            await service.resource("driver/rpc").desk.who()

    assert told == [("sending", "desk.who", True), ("not sent", "Cancelled")] * 3


def calls_alone(address: str, **table: Any) -> Any:
    request = {"plugin": "zmq_request", "connect": [address], "interceptors": BOTH[:1], **table}
    return serving({}, drivers={"rpc": request})


@contract("desk")
class Promised(Protocol):
    async def who(self, number: int = 0) -> list[str]: ...


async def test_a_contract_stands_around_them_on_both_ways(address: str) -> None:
    async with calls(address, contract=f"{__name__}:Promised", desk=[]) as service:
        rpc = service.resource("driver/rpc")
        with pytest.raises(ContractError, match="number: must be an integer"):
            await rpc.desk.who("3")
        before = list(told)
        with pytest.raises(ConversionError, match=r"result\[1\]: must be a string"):
            await rpc.desk.who(3)

    assert before == []
    assert told == [("sending", "desk.who", True), ("sent", ["nobody", 3], True)]


@contract("")
class News(Protocol):
    @handles("news")
    async def news(self, payload: str) -> None: ...


async def test_what_is_published_passes_them_on_both_sides_and_again_when_it_is_tried_again(address: str) -> None:
    news = {
        "plugin": "zmq_publish",
        "bind": [address],
        "interceptors": BOTH[:1],
        "contract": f"{__name__}:News",
    }
    ear = {"plugin": "zmq_subscribe", "connect": [address], "topics": ["news"], "interceptors": BOTH[:1]}
    async with serving({"ear": Ear}, drivers={"news": news}, dispatchers={"ear": ear}) as service:
        CUSTOMER.set("ada")
        publisher, heard = service.resource("driver/news"), service.resource("worker/ear").heard
        with pytest.raises(ContractError, match="must be a string"):
            await publisher.publish("news", 5)
        assert told == []
        with trio.fail_after(10):
            while not heard.seen:
                await publisher.publish("news", "first")
                await trio.testing.wait_all_tasks_blocked(0.02)
        heard.seen.clear()
        told.clear()
        given = await publisher.publish("news", "again")
        await heard.get(2)

    assert heard.seen == [("ada", "again")] * 2
    assert sorted(map(str, told)) == sorted(
        map(
            str,
            [
                ("sending", "news", False),
                ("sent", given, False),
                ("handling", "hear"),
                ("not handled", "TransientError"),
                ("handling", "hear"),
                ("handled", None),
            ],
        )
    )
