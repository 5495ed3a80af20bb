"""Interceptors around calls over a websocket, on both sides, and together with a contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import pytest
import trio

from kernel import Incoming, Outgoing, answers, handles
from kernel.errors import ContractError, ConversionError, PermanentError, RemoteError

from .service import Inbox, calling, serving, url_of

pytestmark = pytest.mark.usefixtures("either_way")
SEEN: Final[list[object]] = []
HERE: Final = {"interceptors": [f"{__name__}:Seen"]}


@pytest.fixture(autouse=True)
def nothing_seen() -> Iterator[None]:
    SEEN.clear()
    yield
    SEEN.clear()


class Seen:
    """Notes what goes by, and refuses what is about `never`."""

    @contextmanager
    def sending(self, outgoing: Outgoing) -> Iterator[None]:
        if outgoing.subject == "never":
            raise PermissionError("not from here")
        outgoing.headers["customer"] = "ada"
        try:
            yield
        except BaseException as error:
            SEEN.append(("sending", outgoing.subject, type(error).__name__))
            raise
        SEEN.append(("sending", outgoing.subject, outgoing.is_call, outgoing.result))

    @contextmanager
    def handling(self, incoming: Incoming) -> Iterator[None]:
        if incoming.headers.get("customer") != "ada":
            raise PermanentError("of nobody")
        try:
            yield
        except BaseException as error:
            SEEN.append(("handling", incoming.method, type(error).__name__))
            raise
        SEEN.append(("handling", incoming.method, incoming.payload, incoming.result))


class Desk:
    def __init__(self) -> None:
        self.inbox = Inbox()

    @answers("double")
    async def double(self, number: int) -> int:
        self.inbox.put(number)
        return number * 2

    @answers("broken")
    async def broken(self, number: int) -> int:
        return str(number)  # type: ignore[return-value]  # that is what is wrong with it

    @answers("wait")
    async def wait(self) -> None:
        self.inbox.put("waits")
        await trio.sleep_forever()

    @answers("never")
    async def never(self) -> None:
        self.inbox.put("never")

    @handles("heard")
    async def heard(self, payload: Any) -> None:
        self.inbox.put(payload)


class Promised(Protocol):
    """What the caller takes the desk for."""

    @answers("double")
    async def double(self, number: int) -> str: ...

    @answers("broken")
    async def broken(self, number: int) -> int: ...


async def test_both_sides_stand_around_a_call_and_its_headers_go_along() -> None:
    async with serving({"desk": Desk}, **HERE) as service, calling(url_of(service), **HERE) as (_, rpc):
        assert await rpc.double(2) == 4

    handling, sending = SEEN
    assert handling[:2] == ("handling", "double")  # type: ignore[index]
    assert handling[3] == 4  # type: ignore[index]
    assert sending == ("sending", "double", True, 4)


async def test_what_is_told_is_sent_within_them_too() -> None:
    async with serving({"desk": Desk}, **HERE) as service, calling(url_of(service), **HERE) as (_, rpc):
        await rpc.notify("heard", [5])
        heard = await service.resource("worker/desk").inbox.get(1)

    assert len(heard) == 1
    assert ("sending", "heard", False, None) in SEEN


async def test_a_refusal_here_sends_nothing_and_one_there_is_an_answer() -> None:
    async with serving({"desk": Desk}, **HERE) as service:
        async with calling(url_of(service), **HERE) as (_, rpc):
            with pytest.raises(PermissionError, match="not from here"):
                await rpc.never()
        async with calling(url_of(service)) as (_, rpc):
            with pytest.raises(RemoteError, match="PermanentError: of nobody"):
                await rpc.double(2)
        inbox = service.resource("worker/desk").inbox.seen

    assert inbox == []


async def test_a_call_that_is_given_up_is_over_on_both_sides() -> None:
    async with serving({"desk": Desk}, **HERE) as service, calling(url_of(service), **HERE) as (_, rpc):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rpc.wait)
            await service.resource("worker/desk").inbox.get(1)
            nursery.cancel_scope.cancel()
        await service.wait_settled()

    assert sorted(SEEN, key=str) == [("handling", "wait", "Cancelled"), ("sending", "wait", "Cancelled")]


async def test_a_contract_is_held_outside_of_what_is_sent_and_within_what_comes_back() -> None:
    table = {**HERE, "contract": f"{__name__}:Promised"}
    async with serving({"desk": Desk}, **HERE) as service, calling(url_of(service), **table) as (_, rpc):
        with pytest.raises(ContractError, match="number: must be an integer"):
            await rpc.double("2")
        assert SEEN == []
        with pytest.raises(ConversionError, match="result: must be a string, got 4"):
            await rpc.double(2)
        with pytest.raises(RemoteError, match="result: must be an integer"):
            await rpc.broken(2)

    assert [each for each in SEEN if each[0] == "sending"] == [  # type: ignore[index]
        ("sending", "double", "ConversionError"),
        ("sending", "broken", "RemoteError"),
    ]
    assert [each[1] for each in SEEN if each[0] == "handling"] == ["double", "broken"]  # type: ignore[index]
