"""A dispatcher on a path of a `web` dispatcher: what is not the same as at a port of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from kernel_websocket import Handshake, JsonRpcProtocol, RequestDelivery, WebSocketConfig, WebSocketDoor
from kernel_websocket._sessions import Sessions
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection

from kernel import Listening, State, StateChanged, answers
from kernel._manifest.registry import Registry, discover
from kernel.abc import Delivery, current_work
from kernel.errors import PlanError, StartupError
from kernel.testing import RunningService, fake_context, open_kernel

from .service import Inbox, open_socket

CALL = '{"jsonrpc": "2.0", "method": "%s", "id": %d}'


class Desk:
    """What is called."""

    def __init__(self) -> None:
        self.began, self.gate = Inbox(), trio.Event()

    @answers("wait")
    async def wait(self) -> str:
        self.began.put(current_work())
        await self.gate.wait()
        return "done"

    @answers("who")
    async def who(self, delivery: Delivery) -> str:
        assert isinstance(delivery, RequestDelivery)
        return delivery.line.identity

    @answers("long")
    async def long(self) -> str:
        self.began.put(None)
        await self.gate.wait()
        return "x" * 100_000


def admit(handshake: Handshake) -> str:
    """Say who it is by all that a peer says."""
    return f"{handshake.path} {handshake.headers['host']} {handshake.remote.rpartition(':')[0]}"


def tables(**table: Any) -> dict[str, Any]:
    return {
        "kernel": {"name": "test"},
        "drivers": {"entrance": {"plugin": "websocket"}},
        "dispatchers": {
            "api": {"plugin": "web", "bind": "127.0.0.1:0"},
            "calls": {"plugin": "websocket", "driver": "entrance", "protocol": "jsonrpc", **table},
        },
        "workers": {
            "desk": {"use": "desk", "dispatcher": "calls"},
            "gate": {
                "use": "kernel_websocket:WebSocketApp",
                "dispatcher": "api",
                "drivers": {"door": "entrance"},
                "options": {"prefix": "/calls"},
            },
        },
    }


def registry() -> Registry:
    return Registry((*discover().plugins, *Registry.of({"workers": {"desk": Desk}}).plugins))


@asynccontextmanager
async def behind(manifest: dict[str, Any], path: str = "/calls") -> AsyncGenerator[tuple[RunningService, str]]:
    async with open_kernel(manifest, registry=registry(), expected=Exception) as service:
        address = (await service.wait_event(Listening)).address
        yield service, address.replace("http:", "ws:") + path


async def answer_from(socket: WebSocketConnection) -> Any:
    with trio.fail_after(5):
        return json.loads(await socket.get_message())


@pytest.mark.parametrize(("path", "status"), [("/calls", None), ("/calls/", None), ("/calls/x", 404), ("/", 404)])
async def test_the_path_is_below_the_prefix(path: str, status: int | None) -> None:
    async with behind(tables(), path) as (_, url):
        if status is None:
            async with open_socket(url) as socket:
                await socket.send_message(CALL % ("nobody", 1))
                assert (await answer_from(socket))["error"]["code"] == -32601
            return
        with pytest.raises(ConnectionRejected) as raised:
            async with open_socket(url):
                raise AssertionError("it got in")
        assert raised.value.status_code == status


async def test_what_is_no_websocket_is_told_so() -> None:
    async with behind(tables()) as (_, url), httpx.AsyncClient() as client:
        answer = await client.get(url.replace("ws:", "http:"))
        head = await client.head(url.replace("ws:", "http:"))

    assert (answer.status_code, head.status_code) == (426, 426)
    assert answer.headers["upgrade"] == "websocket"
    assert "Upgrade" in answer.headers.get_list("connection", split_commas=True)


async def test_the_handshake_says_what_it_says_at_a_port() -> None:
    table = tables(authenticate=f"{__name__}:admit")
    async with behind(table, "/calls/?topic=tea") as (_, url), open_socket(url) as socket:
        await socket.send_message(CALL % ("who", 1))
        told = (await answer_from(socket))["result"]

    assert told == f"/?topic=tea {httpx.URL(url).netloc.decode()} ws://127.0.0.1"


async def test_a_page_of_the_same_address_may_connect_and_another_may_not() -> None:
    async with behind(tables()) as (_, url):
        own = url.replace("ws:", "http:").removesuffix("/calls").encode()
        async with open_socket(url, headers=[(b"Origin", own)]):
            pass
        with pytest.raises(ConnectionRejected):
            async with open_socket(url, headers=[(b"Origin", own.replace(b"127.0.0.1", b"evil.example"))]):
                raise AssertionError("it got in")


async def test_a_handler_does_not_work_for_the_websocket_that_brought_its_request() -> None:
    async with behind(tables()) as (service, url), open_socket(url) as socket:
        await socket.send_message(CALL % ("wait", 1))

        assert await service.resource("worker/desk").began.get(1) == [None]


async def test_a_stop_lets_all_have_their_answers_whoever_has_asked() -> None:
    async with behind(tables()) as (service, url), open_socket(url) as busy, open_socket(url) as idle:
        desk = service.resource("worker/desk")
        for number in range(20):
            await busy.send_message(CALL % ("long", number))
        await desk.began.get(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.stop)
            await service.wait_event(StateChanged, lambda event: event.new is State.DRAINING)
            await idle.send_message(CALL % ("wait", 1))
            refused = await answer_from(idle)
            desk.gate.set()
            answers = [await answer_from(busy) for _ in range(20)]
            with pytest.raises(ConnectionClosed) as closed, trio.fail_after(5):
                await busy.get_message()
            with pytest.raises(ConnectionClosed), trio.fail_after(5):
                await idle.get_message()

    assert refused["error"]["code"] == -32001
    assert sum("result" in answer for answer in answers) == 10  # so many slots there are; what waited is refused
    assert closed.value.reason.code == 1001


async def test_a_stop_with_nobody_asking_waits_for_nobody() -> None:
    async with behind(tables()) as (service, url), open_socket(url) as socket:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.stop)
            with pytest.raises(ConnectionClosed), trio.fail_after(5):
                await socket.get_message()

    assert trio.current_time() - began < 5  # and not the drain timeout of 30


async def test_who_comes_where_no_dispatcher_is_gets_503() -> None:
    manifest = tables()
    del manifest["dispatchers"]["calls"], manifest["workers"]["desk"]
    async with behind(manifest) as (_, url):
        with pytest.raises(ConnectionRejected) as raised:
            async with open_socket(url):
                raise AssertionError("it got in")

    assert raised.value.status_code == 503


def test_a_second_dispatcher_cannot_have_the_door() -> None:
    door, context = WebSocketDoor("driver/door"), fake_context("dispatcher/a", protocol=JsonRpcProtocol())
    sessions = Sessions(WebSocketConfig(), context)
    with (
        door.attended(sessions, context),
        pytest.raises(StartupError, match="driver/door leads to dispatcher/a, and cannot lead to dispatcher/b too"),
        door.attended(sessions, fake_context("dispatcher/b")),
    ):
        raise AssertionError("it got in")


async def test_neither_a_port_nor_a_door_is_an_error_of_the_manifest() -> None:
    manifest = tables()
    del manifest["dispatchers"]["calls"]["driver"]
    with pytest.raises(PlanError, match="needs a driver that provides WebSocketDoor"):
        async with open_kernel(manifest, registry=registry()):
            raise AssertionError("it started")


async def test_a_port_and_a_door_are_an_error_that_says_what_to_write() -> None:
    manifest = tables()
    manifest["dispatchers"]["calls"]["port"] = 0
    with pytest.raises(PlanError, match="take out `port` to be served at the door, or take out `driver`"):
        async with open_kernel(manifest, registry=registry()):
            raise AssertionError("it started")
