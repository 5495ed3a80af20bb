"""The desk on three brokers: in virtual time on memory and sqlite, and on RabbitMQ as it would run."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
from trio_websocket import open_websocket_url

from kernel import DeliverySettled, Listening
from kernel.errors import PermanentError, TransientError, UnknownOutcomeError
from kernel.testing import Faults, OpenKernel

MANIFEST = Path(__file__).with_name("kernel.toml")
ANY_PORT = {"dispatchers.web": {"plugin": "web", "bind": "127.0.0.1:0"}}


@attrs.frozen
class Desk:
    """A running desk, and a client of it."""

    service: Any
    http: httpx.AsyncClient

    async def order(self, sku: str, quantity: int = 1) -> str:
        answer = await self.http.post("/orders", json={"sku": sku, "quantity": quantity})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def until(self, *workers: str, count: int = 1) -> None:
        """Wait until workers have handled so much together, or failure workers have taken it."""
        names = {f"worker/{worker}" for worker in workers}

        def is_theirs(event: DeliverySettled) -> bool:
            return bool(names & {event.worker, event.failure_worker})

        await self.service.wait_settled(count, matching=is_theirs)

    async def state(self, order_id: str) -> str:
        return str((await self.http.get(f"/orders/{order_id}")).json()["state"])

    async def packed(self) -> list[tuple[object, ...]]:
        async with self.service.resource("driver/store").transaction() as transaction:
            return list(await transaction.execute("SELECT sku, quantity FROM packed ORDER BY sku"))


@asynccontextmanager
async def in_virtual_time(
    open_kernel: OpenKernel, folder: Path, queue: dict[str, Any], **options: Any
) -> AsyncGenerator[Desk]:
    """The desk without sockets, so that the clock may jump."""
    environ, replace = {"ORDERDESK_DB": str(folder / "store.db")}, {**ANY_PORT, "drivers.queue": queue}
    async with open_kernel(MANIFEST, environ=environ, replace=replace, **options) as service:
        transport = httpx.ASGITransport(app=service.resource("worker/api").app)
        async with httpx.AsyncClient(transport=transport, base_url="http://desk", timeout=60) as http:
            yield Desk(service, http)


@pytest.fixture(params=["memory", "sqlite"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The table of the broker."""
    return {"plugin": request.param, **({"path": str(tmp_path / "queue.db")} if request.param == "sqlite" else {})}


@pytest.mark.slow
async def test_what_becomes_of_orders(
    open_kernel: OpenKernel, autojump_clock: object, tmp_path: Path, queue: dict[str, Any]
) -> None:
    expected = (PermanentError, TransientError)
    async with in_virtual_time(open_kernel, tmp_path, queue, expected=expected) as desk:
        tea, oil, poison = [await desk.order(sku, 2) for sku in ("tea", "oil", "poison")]
        accepted = await desk.state(oil)
        await desk.until("statistician", "mourner", count=3)
        states = [await desk.state(order) for order in (tea, oil, poison)]
        counted = await desk.packed()

    assert (accepted, states) == ("accepted", ["packed", "packed", "lost"])
    assert counted == [("oil", 2), ("tea", 2)]


@pytest.mark.slow
async def test_a_quote_is_the_answer_of_another_worker(
    open_kernel: OpenKernel, autojump_clock: object, tmp_path: Path, queue: dict[str, Any]
) -> None:
    async with in_virtual_time(open_kernel, tmp_path, queue, expected=PermanentError) as desk:
        known = await desk.http.get("/quote", params={"sku": "tea", "quantity": 3})
        unknown = await desk.http.get("/quote", params={"sku": "gold"})

    assert known.json() == {"sku": "tea", "cents": 1050}
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "nobody sells gold"})


async def test_the_timer_reports_what_was_packed(
    open_kernel: OpenKernel, autojump_clock: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with in_virtual_time(open_kernel, tmp_path, {"plugin": "memory"}) as desk:
        await desk.order("tea", 7)
        await desk.until("reporter")

    assert "packed so far: 7 x tea" in caplog.text


async def test_many_orders_are_counted_in_one_call(
    open_kernel: OpenKernel, autojump_clock: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with in_virtual_time(open_kernel, tmp_path, {"plugin": "memory"}) as desk:
        for _ in range(20):
            await desk.order("tea")
        await desk.until("statistician", count=20)
        total = await desk.packed()

    assert total == [("tea", 20)]
    assert "counted 20 orders" in caplog.text


async def test_an_order_is_not_lost_when_the_broker_is_away(
    open_kernel: OpenKernel, autojump_clock: object, tmp_path: Path
) -> None:
    """The customer is answered from the store; the outbox tries again."""
    faults = Faults()
    faults.fail("driver/queue", "send", error=UnknownOutcomeError("the broker is away"))
    async with in_virtual_time(open_kernel, tmp_path, {"plugin": "memory"}, faults=faults) as desk:
        order = await desk.order("tea")
        await desk.until("packer")

        assert await desk.state(order) == "packed"


async def test_what_no_order_can_be_is_refused(open_kernel: OpenKernel, autojump_clock: object, tmp_path: Path) -> None:
    async with in_virtual_time(open_kernel, tmp_path, {"plugin": "memory"}) as desk:
        refused = await desk.http.post("/orders", json={"sku": "tea", "quantity": 0})
        missing = await desk.http.get("/orders/none")

    assert (refused.status_code, missing.status_code) == (422, 404)


@pytest.mark.slow
@pytest.mark.parametrize("plugin", ["memory", "amqp"])
async def test_it_runs_as_it_would_with_its_port_and_its_websocket(
    open_kernel: OpenKernel, tmp_path: Path, plugin: str, request: pytest.FixtureRequest
) -> None:
    async with AsyncExitStack() as stack:
        broker: dict[str, Any] = {"plugin": plugin}
        if plugin == "amqp":
            broker["prefix"] = request.getfixturevalue("own_name")("orderdesk") + "."
            opened = request.getfixturevalue("open_example")(
                MANIFEST,
                {"ORDERDESK_DB": str(tmp_path / "store.db")},
                broker="driver/queue",
                replace={**ANY_PORT, "drivers.queue": broker},
            )
        else:
            opened = open_kernel(
                MANIFEST,
                environ={"ORDERDESK_DB": str(tmp_path / "store.db")},
                replace={**ANY_PORT, "drivers.queue": broker},
            )
        service = await stack.enter_async_context(opened)
        address = (await service.wait_event(Listening)).address
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=address))
        desk = Desk(service, http)
        with trio.fail_after(20):
            async with open_websocket_url(f"{address.replace('http', 'ws')}/watch") as watching:
                order = await desk.order("tea", 2)
                news = [json.loads(await watching.get_message())["state"] for _ in range(2)]
        quote = (await http.get("/quote", params={"sku": "tea"})).json()
        state = await desk.state(order)

    assert news == ["accepted", "packed"]
    assert (quote, state) == ({"sku": "tea", "cents": 350}, "packed")
