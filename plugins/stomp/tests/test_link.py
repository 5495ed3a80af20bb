"""One connection, to a server that says what a test wants, in virtual time."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing
from kernel_stomp._errors import LateError, LinkError, LinkLostError, LoginRefusedError
from kernel_stomp.core import Frame
from kernel_stomp.link.connect import LinkSettings, shake_hands
from kernel_stomp.link.link import Link
from kernel_stomp.link.receipts import LONGEST, Receipt

from .far_side import Server, linked

SETTINGS = LinkSettings(hosts=(("127.0.0.1", 1),), headers={"login": "guest", "passcode": "secret"}, heartbeat=10.0)


async def lost_after(link: Link) -> tuple[float, str]:
    began = trio.current_time()
    error = await link.wait_lost()
    return trio.current_time() - began, str(error)


async def test_a_server_that_falls_silent_is_given_up_after_two_heartbeats(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = Server()
    async with linked(server) as link:
        seconds, reason = await lost_after(link)

    assert seconds <= 20
    assert "nothing" in reason


async def test_a_server_that_does_not_hear_us_is_given_up_though_it_is_heard(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = Server()
    async with trio.open_nursery() as nursery, linked(server) as link:
        nursery.start_soon(server.beat)
        nursery.start_soon(partial(server.answer, probes=False))
        seconds, reason = await lost_after(link)
        nursery.cancel_scope.cancel()

    assert 15 <= seconds <= 20
    assert "answered nothing" in reason


@pytest.mark.parametrize("hears", [True, False])
async def test_a_server_that_answers_is_kept_and_hears_from_us(
    hears: bool, autojump_clock: trio.testing.MockClock
) -> None:
    server = Server()
    async with trio.open_nursery() as nursery, linked(server, hears=hears) as link:
        nursery.start_soon(server.answer)
        await trio.sleep(1000)
        lost = link.lost
        nursery.cancel_scope.cancel()

    assert lost is None
    assert len(server.heard) >= 200
    assert {frame.command for frame in server.heard} == {"BEGIN", "ABORT"}


async def test_a_receipt_that_does_not_come_is_late(autojump_clock: trio.testing.MockClock) -> None:
    server = Server()
    async with trio.open_nursery() as nursery, linked(server, hears=False) as link:
        nursery.start_soon(partial(server.answer, others=False))
        began = trio.current_time()
        with pytest.raises(LateError):
            await link.request(Frame("SEND", {"destination": "/queue/a"}))
        seconds = trio.current_time() - began
        nursery.cancel_scope.cancel()

    assert LONGEST <= seconds <= LONGEST + 5


async def test_a_receipt_that_somebody_holds_is_waited_for_however_long_it_takes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server, receipts = Server(), list[Receipt]()
    async with trio.open_nursery() as nursery, linked(server, hears=False) as link:
        nursery.start_soon(partial(server.answer, others=False))
        with trio.move_on_after(10 * LONGEST) as patience:
            await link.request(Frame("SEND", {"destination": "/queue/a"}), on_written=receipts.append)
        sent = [frame for frame in server.heard if frame.command == "SEND"]
        await server.say(f"RECEIPT\nreceipt-id:{sent[0].headers['receipt']}\n\n\0".encode())
        await receipts[0].wait()
        nursery.cancel_scope.cancel()

    assert patience.cancelled_caught
    assert len(sent) == 1


@pytest.mark.parametrize(
    "data",
    [b"ERROR\nmessage:not_found\n\nno queue\0", b"NONSENSE\n\n\0", b"MESSAGE\na\n\n\0"],
)
async def test_whatever_ends_a_connection_ends_those_who_wait(
    data: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    server = Server()
    errors: list[LinkLostError] = []
    async with linked(server) as link, trio.open_nursery() as nursery:

        async def ask() -> None:
            try:
                await link.request(Frame("SEND", {"destination": "/queue/a"}))
            except LinkLostError as error:
                errors.append(error)

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await server.say(data)
        await link.wait_lost()
        with pytest.raises(LinkLostError) as caught:
            link.write(Frame("SEND", {}))

    assert [error.written for error in errors] == [True]
    assert not caught.value.written
    assert ("no queue" in errors[0].text) == data.startswith(b"ERROR")


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (b"ERROR\nmessage:Bad CONNECT\n\nAccess refused for user 'guest'\0", LoginRefusedError, "Access refused"),
        (b"ERROR\nmessage:Bad CONNECT\n\nconnection limit reached\0", LinkError, "limit"),
        (b"CONNECTED\nversion:1.0\n\n\0", LinkError, "1.2 or 1.1"),
        (b"CONNECTED\n\n\0", LinkError, "1.2 or 1.1"),
        (b"RECEIPT\nreceipt-id:1\n\n\0", LinkError, "RECEIPT"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", LinkError, "no STOMP"),
    ],
)
async def test_an_answer_to_the_login_that_is_none_is_told(answer: bytes, kind: type[Exception], text: str) -> None:
    server = Server()
    await server.say(answer)

    with pytest.raises(kind, match=text) as caught:
        await shake_hands(server.near, "here:1", SETTINGS, host="here")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("version", ["1.2", "1.1"])
@pytest.mark.parametrize(
    ("beats", "beat", "hears"),
    [("5000,30000", 30.0, True), ("0,0", 10.0, False), ("1,1", 10.0, True), ("nonsense", 10.0, False)],
)
async def test_what_the_server_offers_is_agreed_on(version: str, beats: str, beat: float, hears: bool) -> None:
    server = Server()
    await server.say(f"CONNECTED\nversion:{version}\nheart-beat:{beats}\n\n\0".encode())

    joined = await shake_hands(server.near, "here:1", SETTINGS, host="there")

    assert (joined.parser.version, joined.beat, joined.hears) == (version, beat, hears)
    server.parser.feed(await server.stream.receive_some())
    connect = server.parser.next_frame()
    assert connect is not None
    assert connect.headers["host"] == "there"
    assert connect.headers["accept-version"] == "1.2,1.1"
