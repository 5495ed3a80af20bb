"""Calls over ZeroMQ, through whole services: with our own client, with plain REQ, and with plain REP."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from typing import Any, Protocol

import attrs
import pytest
import trio
import trio.testing
import zmq

from kernel import DeliveryRevoked, Envelope, State, StateChanged, answers, contract
from kernel.errors import (
    CallTimeoutError,
    ContractError,
    ConversionError,
    RemoteError,
    UnavailableError,
    UnknownOutcomeError,
)

from .raw import Inbox, Socket, address_of, open_raw, serving


@attrs.frozen
class Order:
    sku: str
    quantity: int = 1


class Desk:
    """What is called."""

    def __init__(self) -> None:
        self.began, self.cancelled, self.gate = Inbox(), Inbox(), trio.Event()

    @answers("desk.order")
    async def order(self, order: Order, amount: int = 1) -> Any:  # what `kernel check` cannot see
        return f"{order.quantity * amount} {order.sku}"

    @answers("desk")
    async def plain(self, number: int, envelope: Envelope) -> int:
        self.began.put(envelope)
        return number * 2

    @answers("desk.wait")
    async def wait(self, name: str) -> str:
        self.began.put(name)
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.cancelled.put(name)
            raise
        return name

    @answers("desk.fail")
    async def fail(self) -> None:
        raise ValueError("the reason")


def desk_at(address: str, **table: Any) -> dict[str, Any]:
    return {"dispatchers": {"desk": {"plugin": "zmq_reply", "bind": [address], **table}}}


def calling(address: str, **table: Any) -> dict[str, Any]:
    return {"drivers": {"rpc": {"plugin": "zmq_request", "connect": [address], **table}}}


async def test_a_handler_is_called_like_a_function(address: str) -> None:
    async with serving({"desk": Desk}, **desk_at(address), **calling(address)) as service:
        rpc = service.resource("driver/rpc")

        assert await rpc.desk.order(Order("tea", 2), amount=3) == "6 tea"
        with pytest.raises(RemoteError, match="the reason") as raised:
            await rpc.desk.fail()
        assert raised.value.kind == "ValueError"
        with pytest.raises(RemoteError, match="amuont: is unexpected"):
            await rpc.desk.order(Order("tea"), amuont=3)
        assert (rpc.in_flight, rpc.late_replies) == (0, 0)


@contract("desk")
class Promised(Protocol):
    async def order(self, order: Order, amount: int = 1) -> list[int]: ...


async def test_a_call_is_held_against_the_contract_of_its_driver(address: str) -> None:
    table = calling(address, contract=f"{__name__}:Promised")
    async with serving({"desk": Desk}, **desk_at(address), **table) as service:
        rpc = service.resource("driver/rpc")

        with pytest.raises(ContractError, match=r"order.sku: must be a string, got 5"):
            await rpc.desk.order(Order(5))
        with pytest.raises(ContractError, match="is not in"):
            await rpc.desk.fail()
        with pytest.raises(ConversionError, match="result: must be an array"):
            await rpc.desk.order(Order("tea"))


@pytest.mark.parametrize("kind", ["tcp", "inproc"])
async def test_every_transport_carries_calls(kind: str) -> None:
    async with open_raw(zmq.ROUTER, bind="tcp://127.0.0.1:*") as free:
        address = address_of(free) if kind == "tcp" else "inproc://desk"
    async with serving({"desk": Desk}, **desk_at(address), **calling(address)) as service:
        assert await service.resource("driver/rpc").desk.order(Order("tea")) == "1 tea"


async def test_many_are_handled_at_a_time_and_each_gets_its_own_answer(address: str) -> None:
    async with serving({"desk": Desk}, **desk_at(address, concurrency=20), **calling(address)) as service:
        rpc, desk = service.resource("driver/rpc"), service.resource("worker/desk")
        answered: dict[str, object] = {}

        async def call(name: str) -> None:
            answered[name] = await rpc.desk.wait(name)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(call, str(number))
            await desk.began.get(20)
            desk.gate.set()

    assert answered == {str(number): str(number) for number in range(20)}


async def test_a_plain_req_is_served_and_a_wrong_argument_is_an_answer(address: str) -> None:
    async with serving({"desk": Desk}, **desk_at(address)), open_raw(zmq.REQ, connect=address) as req:
        answered = []
        for body in (b"[2]", b'["2"]', b"not json", b"[3]"):
            await req.send([body])
            answered.append(json.loads((await req.recv())[0]))

    assert [answer.get("result") for answer in answered] == [4, None, None, 6]
    assert answered[1]["error"] == {"type": "ArgumentsError", "message": 'number: must be an integer, got "2"'}
    assert answered[2]["error"]["type"] == "DecodeError"


async def test_a_plain_rep_gets_the_body_alone(address: str) -> None:
    seen: list[list[bytes]] = []
    async with open_raw(zmq.REP, bind=address) as rep, serving({}, **calling(address)) as service:

        async def answer() -> None:
            while True:
                seen.append(await rep.recv())
                await rep.send([b'{"result": 1}'])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with trio.fail_after(5):
                assert await service.call("rpc", "x", [1]) == 1
            nursery.cancel_scope.cancel()

    assert seen == [[b"[1]"]]


async def test_who_knows_nothing_of_cancellations_is_told_of_none(address: str) -> None:
    async with open_raw(zmq.ROUTER, bind=address) as peer, serving({}, **calling(address)) as service:
        for number in range(3):
            with trio.move_on_after(0.02):
                await service.resource("driver/rpc").x(number)
        bodies = [(await peer.recv())[-1] for _ in range(3)]
        with pytest.raises(trio.WouldBlock):
            peer.recv_nowait()

    assert [json.loads(body)["args"] for body in bodies] == [[0], [1], [2]]


async def test_a_cancelled_call_cancels_its_handler_and_no_other(address: str) -> None:
    async with serving({"desk": Desk}, **desk_at(address), **calling(address)) as service:
        rpc, desk = service.resource("driver/rpc"), service.resource("worker/desk")
        async with trio.open_nursery() as staying:
            staying.start_soon(rpc.desk.wait, "stays")
            async with trio.open_nursery() as leaving:
                leaving.start_soon(rpc.desk.wait, "leaves")
                await desk.began.get(2)
                leaving.cancel_scope.cancel()
            assert await desk.cancelled.get(1) == ["leaves"]
            await service.wait_event(DeliveryRevoked)
            desk.gate.set()

        assert rpc.in_flight == 0


async def test_a_call_that_waits_for_its_slot_is_cancelled_there(address: str) -> None:
    async with serving({"desk": Desk}, **desk_at(address, concurrency=1), **calling(address)) as service:
        rpc, desk = service.resource("driver/rpc"), service.resource("worker/desk")
        async with trio.open_nursery() as staying:
            staying.start_soon(rpc.desk.wait, "first")
            await desk.began.get(1)
            for _ in range(5):  # one waits in the intake, and the others in the dispatcher
                with trio.move_on_after(0.02):
                    await rpc.desk.wait("never begun")
            await trio.testing.wait_all_tasks_blocked(0.2)  # what cancels the last of them is on its way
            desk.gate.set()
        assert await rpc.desk.order(Order("tea")) == "1 tea"

        assert desk.began.seen == ["first"]


async def test_a_deadline_arrives_as_what_remains(address: str) -> None:
    async with serving({"desk": Desk}, **desk_at(address), **calling(address, timeout=60.0)) as service:
        with trio.fail_after(30):
            await service.call("rpc", "desk", [1])
        [envelope] = service.resource("worker/desk").began.seen

        assert 20 < envelope.deadline - trio.current_time() <= 30.1


async def test_an_answer_that_does_not_come_locks_nothing(address: str) -> None:
    async with open_raw(zmq.ROUTER, bind=address) as peer, serving({}, **calling(address, timeout=0.05)) as service:
        rpc = service.resource("driver/rpc")
        with pytest.raises(CallTimeoutError):
            await rpc.lost(1)
        lost = await peer.recv()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_one, peer, b'{"result": "second"}')
            with trio.fail_after(5):
                assert await service.resource("driver/rpc").second(2) == "second"
            await peer.send([*lost[: lost.index(b"") + 1], b'{"result": "late"}'])
            with trio.fail_after(5):
                while not rpc.late_replies:
                    await trio.lowlevel.checkpoint()


async def answer_one(peer: Socket, body: bytes) -> None:
    while True:
        frames = await peer.recv()
        if b"" in frames:
            await peer.send([*frames[: frames.index(b"") + 1], body])
            return


async def test_a_request_is_sent_again_where_that_is_asked_for(address: str) -> None:
    table = calling(address, timeout=0.05, attempts=3, tell_cancelled=False)
    async with (
        open_raw(zmq.ROUTER, bind=address) as peer,
        serving({}, **table) as service,
        trio.open_nursery() as nursery,
    ):

        async def answer_the_second() -> None:
            await peer.recv()
            await answer_one(peer, b'{"result": 1}')

        nursery.start_soon(answer_the_second)
        assert await service.call("rpc", "x", []) == 1


async def test_nobody_to_send_to_is_told_apart_from_no_answer(address: str) -> None:
    async with serving({}, **calling(address, timeout=0.02)) as service:
        with pytest.raises(UnavailableError, match="nobody was connected"):
            await service.call("rpc", "x", [])


async def test_a_broken_connection_ends_the_calls_under_way(address: str) -> None:
    raised: list[BaseException] = []
    async with serving({}, **calling(address)) as service:

        async def call() -> None:
            with pytest.raises(UnknownOutcomeError) as caught:
                await service.call("rpc", "x", [])
            raised.append(caught.value)

        async with open_raw(zmq.ROUTER, bind=address) as peer, trio.open_nursery() as nursery:
            nursery.start_soon(call)
            with trio.fail_after(5):
                await peer.recv()
            nursery.cancel_scope.shield = True
            peer.raw.close()
        await service.wait_event(StateChanged, lambda event: event.new is State.DEGRADED)
        async with open_raw(zmq.REP, bind=address) as peer, trio.open_nursery() as nursery:
            nursery.start_soon(answer_rep, peer)
            with trio.fail_after(10):
                assert await service.call("rpc", "x", []) == 1
            nursery.cancel_scope.cancel()
            await service.wait_event(StateChanged, lambda event: event.new is State.READY)

    assert len(raised) == 1


async def test_nothing_is_sent_between_the_news_of_a_broken_connection_and_the_next(address: str) -> None:
    async with open_raw(zmq.REP, bind=address) as peer, serving({}, **calling(address)) as service:
        rpc = service.resource("driver/rpc")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rpc.x, 1)
            assert json.loads((await peer.recv())[0])["args"] == [1]
            await peer.send([b'{"result": 1}'])

        rpc.disconnected()  # libzmq says so before it drops what is in the pipe
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rpc.x, 2)
            await trio.testing.wait_all_tasks_blocked(0.05)
            with pytest.raises(trio.WouldBlock):
                peer.recv_nowait()
            rpc.connected()
            with trio.fail_after(5):
                assert json.loads((await peer.recv())[0])["args"] == [2]
            await peer.send([b'{"result": 1}'])


async def answer_rep(peer: Socket) -> None:
    while True:
        await peer.recv()
        await peer.send([b'{"result": 1}'])


async def test_a_stop_answers_what_is_in_flight_and_refuses_what_waits(address: str) -> None:
    async with (
        open_raw(zmq.DEALER, connect=address) as peer,
        serving({"desk": Desk}, **desk_at(address, concurrency=1)) as service,
    ):
        desk = service.resource("worker/desk")
        for name in (b"a", b"b", b"c"):
            await peer.send([b"", b"desk.wait", b'["%s"]' % name])
        await desk.began.get(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.stop)
            refused = [json.loads((await peer.recv())[-1]) for _ in range(2)]
            desk.gate.set()
            done = json.loads((await peer.recv())[-1])

    assert [answer["error"]["type"] for answer in refused] == ["UnavailableError"] * 2
    assert done == {"result": "a"}


FLOOD: list[Callable[[], list[bytes]]] = [
    lambda: [b"no delimiter"],
    lambda: [b"", b"a", b"b", b"c"],
    lambda: [b""],
    lambda: [b"", b"[" * 5000],
    lambda: [b"", b'{"__class__": "builtins.exit"}'],
    lambda: [b"id", b"\1kernel {", b"", b"[1]"],
    lambda: [b"id", b'\1kernel {"kernel-deadline": "x", "headers": 5, "subject": []}', b"", b"[1]"],
    lambda: [b"\1kernel-cancel", b"x" * 300],
    lambda: [b"", b"\xff\xfe", b"[1]"],
]


async def test_nothing_that_is_sent_stops_the_next_good_call(address: str) -> None:
    chance = random.Random(2)
    async with serving({"desk": Desk}, **desk_at(address, max_bytes=65536), **calling(address)) as service:
        for options in ({}, {"rcvhwm": 1}):  # the second never reads, and its answers are dropped
            async with open_raw(zmq.DEALER, connect=address, **options) as peer:
                for _ in range(300):
                    await peer.send(chance.choice(FLOOD)())
                with trio.fail_after(5):
                    assert await service.resource("driver/rpc").desk.order(Order("tea")) == "1 tea"
        async with open_raw(zmq.DEALER, connect=address, reconnect_ivl=-1) as peer:
            await peer.send([b"", b"x" * 70000])  # is disconnected
            with trio.fail_after(5):
                assert await service.resource("driver/rpc").desk.order(Order("oil")) == "1 oil"


@pytest.mark.slow
async def test_calls_that_are_cancelled_at_random_end_once_and_lose_nothing(address: str) -> None:
    chance, ended = random.Random(3), dict[str, int]()
    async with serving({"desk": Desk}, **desk_at(address, concurrency=5), **calling(address)) as service:
        rpc = service.resource("driver/rpc")

        async def call(number: int) -> None:
            outcome = "cancelled"
            with trio.move_on_after(chance.random() * 0.004), contextlib.suppress(RemoteError):  # that it is expired
                assert await rpc.desk(number) == number * 2
                outcome = "answered"
            ended[outcome] = ended.get(outcome, 0) + 1

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(call, number)
                await trio.sleep(0.0002)
        with trio.fail_after(5):
            assert await rpc.desk(1) == 2

        assert (sum(ended.values()), rpc.in_flight) == (200, 0)


@pytest.mark.parametrize("frames", [[b"desk", b"[1]", b"more"], [b"\xff", b"[1]"], [b"x"] * 1000])
async def test_a_request_that_is_none_is_answered_with_an_error(address: str, frames: list[bytes]) -> None:
    async with serving({"desk": Desk}, **desk_at(address)), open_raw(zmq.DEALER, connect=address) as peer:
        await peer.send([b"", *frames])
        with trio.fail_after(10):
            answer = await peer.recv()

        assert answer[0] == b""
        assert json.loads(answer[1])["error"]["type"] == "DecodeError"


async def test_what_cannot_be_answered_is_a_warning(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Inbox()
    monkeypatch.setattr("kernel._core.seldom.Seldom.warn", lambda _self, *event, **facts: told.put((*event, facts)))

    async with serving({"desk": Desk}, **desk_at(address)), open_raw(zmq.DEALER, connect=address) as peer:
        await peer.send([b"[1]"])

        [(event, facts)] = await told.get(1)
        assert event == "malformed_request"
        assert "no empty frame" in facts["reason"]
