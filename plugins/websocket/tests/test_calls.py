"""Calls over websockets through whole services: by our own client, and by texts that a plain peer would send."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest
import trio
from kernel_websocket import Handshake, RequestDelivery, WebSocketClient
from kernel_websocket._line import MOST_BEHIND
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection

from kernel import Envelope, Secret, State, StateChanged, answers, handles
from kernel.abc import Delivery
from kernel.errors import (
    CallTimeoutError,
    ContractError,
    ConversionError,
    RemoteError,
    UnavailableError,
    UnknownOutcomeError,
)
from kernel.testing import RunningService, open_proxy

from .service import Inbox, calling, double, open_socket, serving, url_of

pytestmark = pytest.mark.usefixtures("either_way")


class Desk:
    """What is called."""

    def __init__(self) -> None:
        self.began, self.cancelled, self.gate = Inbox(), Inbox(), trio.Event()

    @answers("add")
    async def add(self, a: int, b: int = 1) -> int:
        return a + b

    @answers("fail")
    async def fail(self) -> None:
        raise ValueError("the reason")

    @answers("wait")
    async def wait(self, name: str, envelope: Envelope) -> str:
        self.began.put((name, envelope))
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.cancelled.put(name)
            raise
        return name

    @answers("watch")
    async def watch(self, topic: str, delivery: Delivery) -> str:
        assert isinstance(delivery, RequestDelivery)
        self.line = delivery.line
        for number in range(3):
            self.line.notify("news", {"topic": topic, "number": number})
        return self.line.identity

    @handles("heard")
    async def heard(self, payload: Any) -> None:
        self.began.put(payload)


@asynccontextmanager
async def desk_and_client(**table: Any) -> AsyncGenerator[tuple[Desk, WebSocketClient, RunningService]]:
    async with serving({"desk": Desk}, **table) as service, calling(url_of(service)) as (_, rpc):
        yield service.resource("worker/desk"), rpc, service


@asynccontextmanager
async def desk_and_socket(**table: Any) -> AsyncGenerator[tuple[Desk, WebSocketConnection, RunningService]]:
    async with serving({"desk": Desk}, **table) as service, open_socket(url_of(service)) as socket:
        yield service.resource("worker/desk"), socket, service


async def ask(socket: WebSocketConnection, text: str) -> Any:
    await socket.send_message(text)
    with trio.fail_after(5):
        return json.loads(await socket.get_message())


# --- our own client -------------------------------------------------------------------------------------------------


async def test_a_handler_is_called_like_a_function() -> None:
    async with desk_and_client() as (_, rpc, _service):
        assert await rpc.add(1, 2) == 3
        assert await rpc.add(a=1) == 2
        assert await rpc.call("add", [1], returns=int) == 2
        with pytest.raises(RemoteError, match="the reason") as raised:
            await rpc.fail()
        assert raised.value.kind == "ValueError"
        with pytest.raises(RemoteError, match="c: is unexpected"):
            await rpc.add(a=1, c=2)


async def test_many_calls_are_under_way_on_one_connection() -> None:
    answered: list[object] = []
    async with desk_and_client(concurrency=16) as (desk, rpc, _service):

        async def call(number: int) -> None:
            answered.append(await rpc.wait(str(number)))

        async with trio.open_nursery() as nursery:
            for number in range(16):
                nursery.start_soon(call, number)
            await desk.began.get(16)
            desk.gate.set()

    assert sorted(answered) == sorted(map(str, range(16)))


async def test_a_cancelled_call_cancels_its_handler_and_no_other() -> None:
    async with desk_and_client() as (desk, rpc, _service), trio.open_nursery() as staying:
        staying.start_soon(rpc.wait, "stays")
        async with trio.open_nursery() as leaving:
            leaving.start_soon(rpc.wait, "leaves")
            await desk.began.get(2)
            leaving.cancel_scope.cancel()

        assert await desk.cancelled.get(1) == ["leaves"]
        desk.gate.set()


async def test_headers_and_what_remains_of_a_deadline_arrive() -> None:
    async with desk_and_client() as (desk, rpc, _service):
        desk.gate.set()
        with trio.fail_after(20):
            await rpc.call("wait", ["x"], headers={"k": "v"})
        [(_, envelope)] = desk.began.seen

        assert 10 < envelope.deadline - trio.current_time() <= 20.1
        assert envelope.headers == {"k": "v"}


async def test_a_broken_connection_ends_the_calls_and_is_made_again() -> None:
    async with serving({"desk": Desk}) as service:
        port = int(url_of(service).rpartition(":")[2].rstrip("/"))
        async with open_proxy("127.0.0.1", port) as proxy, calling(f"ws://127.0.0.1:{proxy.port}/") as (caller, rpc):
            desk = service.resource("worker/desk")

            async def call() -> None:
                with pytest.raises(UnknownOutcomeError):
                    await rpc.wait("broken")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                await desk.began.get(1)
                proxy.reset()
            assert await desk.cancelled.get(1) == ["broken"]  # nobody waits for it any more
            with trio.fail_after(5):
                assert await rpc.add(1) == 2
            await caller.wait_event(StateChanged, lambda event: event.new is State.DEGRADED)


async def test_no_connection_is_told_apart_from_no_answer() -> None:
    async with desk_and_client() as (_, _rpc, service):
        url = url_of(service)
        async with calling(url, timeout=0.05) as (_, rpc):
            with pytest.raises(CallTimeoutError):
                await rpc.wait("x")
    async with calling(url, timeout=0.05) as (_, rpc):
        with pytest.raises(UnavailableError, match="no connection"):
            await rpc.add(1)


class Micro:
    @answers("*.add")
    async def add(self, a: int) -> int:
        return a + 1


async def test_micro_frameworks_format_is_one_after_the_other() -> None:
    table = {"protocol": "ufw_websocket"}
    async with serving({"desk": Micro}, **table) as service, calling(url_of(service), **table) as (_, rpc):
        answered: list[object] = []

        async def call(number: int) -> None:
            answered.append(await rpc.micro.add(number))

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(call, number)
        with pytest.raises(RemoteError, match="RPCTargetDoesNotExist"):
            await rpc.micro.nobody()

    assert sorted(answered) == [1, 2, 3, 4, 5]


# --- plain peers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ('{"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}', {"result": 3, "id": 1}),
        ('{"jsonrpc": "2.0", "method": "add", "params": {"a": 1}, "id": "1"}', {"result": 2, "id": "1"}),
        ('{"jsonrpc": "2.0", "method": "nobody", "id": 1.5}', {"code": -32601, "id": 1.5}),
        ('{"jsonrpc": "2.0", "method": "add", "params": ["x"], "id": null}', {"code": -32602, "id": None}),
        ('{"jsonrpc": "2.0", "method": "fail", "id": 2}', {"code": -32000, "id": 2}),
        # Null is for an id that cannot be told: who can be answered does not wait for its timeout.
        ('{"jsonrpc": "2.0", "method": 5, "id": 2}', {"code": -32600, "id": 2}),
        ('{"jsonrpc": "2.0", "method": "add", "params": 5, "id": "1"}', {"code": -32600, "id": "1"}),
        ('{"jsonrpc": "2.0", "method": "add", "params": 5}', {"code": -32600, "id": None}),
        ('{"jsonrpc": "2.0", "method": "add", "id": {}}', {"code": -32600, "id": None}),
        ("[]", {"code": -32600, "id": None}),
        ("[[[[1]]]]", None),
        ('{"jsonrpc": "2.0", "method"', {"code": -32700, "id": None}),
        ("[" * 3000, {"code": -32700, "id": None}),
        ('{"jsonrpc": "2.0", "method": "__import__", "params": ["os"], "id": 3}', {"code": -32601, "id": 3}),
    ],
)
async def test_a_request_of_a_plain_peer_is_answered_as_the_specification_says(sent: str, answered: Any) -> None:
    async with desk_and_socket() as (_, socket, _service):
        answer = await ask(socket, sent)
        if answered is None:
            assert [part["error"]["code"] for part in answer] == [-32600]
        else:
            told = {"id": answer["id"], **({"result": answer["result"]} if "result" in answer else {})}
            assert {**told, **({"code": answer["error"]["code"]} if "error" in answer else {})} == answered
        assert (await ask(socket, '{"jsonrpc": "2.0", "method": "add", "params": [1], "id": 9}'))["result"] == 2


@pytest.mark.parametrize(
    "added",
    [
        "null",
        "[]",
        '"soon"',
        '{"deadline": -1}',
        '{"deadline": "-5"}',
        '{"deadline": null}',
        '{"deadline": 1.5}',
        '{"deadline": true}',
        '{"deadline": "soon"}',
        '{"headers": null}',
        '{"headers": [1]}',
        '{"deadline": "50", "headers": "x"}',
    ],
)
async def test_what_ours_add_to_a_request_makes_sense_or_it_is_no_request(added: str) -> None:
    asked = '{"jsonrpc": "2.0", "method": "add", "params": [1, 2], %s"kernel": %s}'
    async with desk_and_socket() as (_, socket, _service):
        answer, told = await ask(socket, asked % ('"id": 7, ', added)), await ask(socket, asked % ("", added))

    assert (answer["id"], answer["error"]["code"]) == (7, -32600)
    assert "kernel" in answer["error"]["message"]
    assert (told["id"], told["error"]["code"]) == (None, -32600)


@pytest.mark.parametrize(
    ("params", "key"), [("[]", None), ("{}", None), ('{"id": []}', None), ('{"id": {}}', 8), ('{"id": 1}', 8)]
)
async def test_what_takes_nothing_back_is_no_request(params: str, key: int | None) -> None:
    fields = f'"method": "$/cancelRequest", "params": {params}' + ("" if key is None else f', "id": {key}')
    async with desk_and_socket() as (_, socket, _service):
        answer = await ask(socket, f'{{"jsonrpc": "2.0", {fields}}}')

    assert (answer["id"], answer["error"]["code"]) == (key, -32600)


async def test_a_batch_is_answered_as_one_and_notifications_not_at_all() -> None:
    batch = [
        {"jsonrpc": "2.0", "method": "add", "params": [1], "id": 1},
        {"jsonrpc": "2.0", "method": "heard", "params": [5]},
        {"jsonrpc": "2.0", "method": "nobody", "id": 2},
        7,
    ]
    async with desk_and_socket() as (desk, socket, _service):
        answer = await ask(socket, json.dumps(batch))
        await socket.send_message(json.dumps(batch[1:2]))
        heard = await desk.began.get(2)

    assert {part["id"]: part.get("result", part.get("error", {}).get("code")) for part in answer} == {
        1: 2,
        2: -32601,
        None: -32600,
    }
    assert len(heard) == 2


async def test_who_leaves_has_its_requests_cancelled() -> None:
    async with serving({"desk": Desk}) as service:
        desk = service.resource("worker/desk")
        async with open_socket(url_of(service)) as socket:
            await socket.send_message('{"jsonrpc": "2.0", "method": "wait", "params": ["gone"], "id": 1}')
            await desk.began.get(1)

        assert await desk.cancelled.get(1) == ["gone"]


@pytest.mark.parametrize("key", ["", ', "id": 1'], ids=["notifications", "one id twice"])
async def test_who_leaves_has_all_cancelled_whatever_they_are_called(key: str) -> None:
    call = '{"jsonrpc": "2.0", "method": "%s", "params": ["gone"]%s}'
    async with serving({"desk": Desk}) as service:
        desk = service.resource("worker/desk")
        async with open_socket(url_of(service)) as socket:
            await socket.send_message(call % ("wait", key))
            await desk.began.get(1)
            await socket.send_message(call % ("heard", key))
            await desk.began.get(2)
            await socket.send_message('{"jsonrpc": "2.0", "method": "add", "params": [1], "id": 9}')
            await service.wait_settled(2)

        assert await desk.cancelled.get(1) == ["gone"]


async def test_a_handler_tells_its_caller_more_through_its_line() -> None:
    async with desk_and_socket() as (desk, socket, _service):
        await socket.send_message('{"jsonrpc": "2.0", "method": "watch", "params": ["tea"], "id": 1}')
        told = [json.loads(await socket.get_message()) for _ in range(4)]
        async with trio.open_nursery() as nursery:
            results: list[object] = []

            async def call_back() -> None:
                results.append(await desk.line.call("who", []))

            nursery.start_soon(call_back)
            asked = json.loads(await socket.get_message())
            await socket.send_message(json.dumps({"jsonrpc": "2.0", "result": "me", "id": asked["id"]}))

    assert [part["params"]["number"] for part in told[:3]] == [0, 1, 2]
    assert (told[3]["id"], asked["method"], results) == (1, "who", ["me"])


@pytest.mark.parametrize(("most", "size"), [(10, 10_000), (100_000, 1_000_000)], ids=["messages", "bytes"])
async def test_a_peer_that_does_not_read_is_disconnected(most: int, size: int) -> None:
    async with desk_and_socket(max_unsent=most) as (desk, socket, _service):
        await ask(socket, '{"jsonrpc": "2.0", "method": "watch", "params": ["x"], "id": 1}')
        for _ in range(10_000):
            if not desk.line.notify("news", ["x" * size]):
                break

        assert not desk.line.is_open
        assert desk.line._behind < MOST_BEHIND + 2 * size
        with trio.fail_after(5), contextlib.suppress(ConnectionClosed):
            while True:
                await socket.get_message()


async def test_a_token_is_sent_and_a_refused_client_tries_again(tmp_path: Any) -> None:
    names = {"authenticate": f"{admit.__module__}:admit"}
    async with serving({"desk": Desk}, **names) as service:
        async with calling(url_of(service), token=Secret("sesame")) as (_, rpc):
            assert await rpc.call("watch", ["tea"]) == "ada"
        async with calling(url_of(service), token=Secret("wrong"), timeout=0.2) as (caller, rpc):
            with pytest.raises(UnavailableError):
                await rpc.add(1)
            degraded = await caller.wait_event(StateChanged, lambda event: event.new is State.DEGRADED)
            assert "403" in degraded.reason


async def test_who_guesses_tokens_is_told_of_as_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there is a line in the log once in a while, however often it is tried and from whatever port."""
    told = list[tuple[str, dict[str, str]]]()
    monkeypatch.setattr("kernel._core.seldom.Seldom.warn", lambda _self, what, **facts: told.append((what, facts)))
    async with serving({"desk": Desk}, authenticate=f"{admit.__module__}:admit") as service:
        for _ in range(3):
            with pytest.raises(ConnectionRejected):
                async with open_socket(url_of(service)):
                    pass

    assert told == [("handshake_refused", {"status": "403", "remote": "ws://127.0.0.1"})] * 3


# --- who may connect ------------------------------------------------------------------------------------------------


async def admit(handshake: Handshake) -> str | None:
    """Know one token."""
    await trio.lowlevel.checkpoint()
    return "ada" if handshake.headers.get("authorization") == "Bearer sesame" else None


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ([(b"Origin", b"https://evil.example")], "/", 403),
        ([(b"Origin", b"https://shop.example")], "/", None),
        ([(b"Origin", b"http://127.0.0.1:1")], "/", 403),
        ([(b"Origin", b"null")], "/", 403),
        ([], "/other", 404),
    ],
)
async def test_origin_and_path_are_looked_at(headers: list[tuple[bytes, bytes]], path: str, status: int | None) -> None:
    async with serving({"desk": Desk}, origins=["https://shop.example"]) as service:
        url = url_of(service).rstrip("/") + path
        if status is None:
            async with open_socket(url, headers=headers) as socket:
                assert (await ask(socket, '{"jsonrpc": "2.0", "method": "add", "params": [1], "id": 1}'))["result"] == 2
            return
        with pytest.raises(ConnectionRejected) as raised:
            async with open_socket(url, headers=headers):
                raise AssertionError("it got in")
        assert raised.value.status_code == status


async def test_more_connections_than_there_may_be_are_refused() -> None:
    async with (
        serving({"desk": Desk}, max_connections=2) as service,
        open_socket(url_of(service)),
        open_socket(url_of(service)),
    ):
        with pytest.raises(ConnectionRejected):
            async with open_socket(url_of(service)):
                raise AssertionError("it got in")


# --- a stop, and chance ---------------------------------------------------------------------------------------------


async def test_a_stop_answers_what_is_in_flight_and_refuses_what_comes() -> None:
    async with desk_and_socket(concurrency=1) as (desk, socket, service):
        await socket.send_message('{"jsonrpc": "2.0", "method": "wait", "params": ["a"], "id": 1}')
        await desk.began.get(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.stop)
            await service.wait_event(StateChanged, lambda event: event.new is State.DRAINING)
            refused = await ask(socket, '{"jsonrpc": "2.0", "method": "add", "params": [1], "id": 2}')
            desk.gate.set()
            done = json.loads(await socket.get_message())
            with pytest.raises(ConnectionClosed) as closed:
                await socket.get_message()

    assert (refused["id"], refused["error"]["code"], done["result"]) == (2, -32001, "a")
    assert closed.value.reason.code == 1001


async def test_a_stop_sends_what_is_unsent() -> None:
    async with desk_and_socket(concurrency=50, max_pending=50) as (desk, socket, service):
        for number in range(50):
            call = {"jsonrpc": "2.0", "method": "wait", "params": ["x" * 50_000], "id": number}
            await socket.send_message(json.dumps(call))
        await desk.began.get(50)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.stop)
            await service.wait_event(StateChanged, lambda event: event.new is State.DRAINING)
            desk.gate.set()
            answered = {json.loads(await socket.get_message())["id"] for _ in range(50)}

    assert answered == set(range(50))


@pytest.mark.slow
async def test_calls_that_are_cancelled_at_random_end_once_and_lose_nothing() -> None:
    chance, ended = random.Random(5), [0, 0]
    async with desk_and_client(concurrency=5) as (_, rpc, _service):

        async def call(number: int) -> None:
            with trio.move_on_after(chance.random() * 0.02) as scope:
                assert await rpc.add(number) == number + 1
            ended[scope.cancelled_caught] += 1

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(call, number)
        assert await rpc.add(1) == 2

    assert sum(ended) == 200


class Promised(Protocol):
    @answers("double")
    async def double(self, number: int) -> str: ...


async def test_a_call_is_held_against_the_contract_of_its_driver() -> None:
    async with (
        serving({"double": double}) as service,
        calling(url_of(service), contract=f"{__name__}:Promised") as (_, rpc),
    ):
        with pytest.raises(ContractError, match=r'number: must be an integer, got "2"'):
            await rpc.double("2")
        with pytest.raises(ContractError, match="is not in"):
            await rpc.notify("other", [])
        with pytest.raises(ConversionError, match="result: must be a string, got 4"):
            await rpc.double(2)
