"""Requests that are made while a delivery is handled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
import httpx
import trio

from kernel import Ack, Envelope
from kernel.abc import DEADLINE_HEADER

if TYPE_CHECKING:
    from kernel.testing import OpenKernel

MANIFEST: Final[dict[str, Any]] = {
    "kernel": {"name": "test"},
    "drivers": {
        "stock": {"plugin": "http", "base_url": "http://stock.test", "deadline": True, "mock": f"{__name__}:answer"},
        "queue": {"plugin": "memory"},
    },
    "dispatchers": {"incoming": {"plugin": "consumer", "driver": "queue", "protocol": "json", "queue": "q"}},
    "workers": {"asker": {"use": f"{__name__}:Asker", "dispatcher": "incoming", "timeout": 5.0}},
}


@attrs.define
class Shop:
    requests: list[httpx.Request] = attrs.field(factory=list[httpx.Request])
    status: int = 200


SHOP: Final = Shop()


def answer(request: httpx.Request) -> httpx.Response:
    SHOP.requests.append(request)
    return httpx.Response(SHOP.status, headers={"retry-after": "6"})


class Asker:
    def __init__(self, stock: httpx.AsyncClient) -> None:
        self.stock = stock

    async def __call__(self, payload: object) -> None:
        await self.stock.get("/x", headers={"tracestate": "mine"})


async def deliver(open_kernel: OpenKernel, headers: dict[str, object]) -> list[httpx.Request]:
    SHOP.requests.clear()
    async with open_kernel(MANIFEST) as service:
        envelope = Envelope(subject="q", body=b"{}", headers=headers, deadline=trio.current_time() + 4.0)
        await service.resource("driver/queue").send(envelope, exchange="")
        (settled,) = await service.wait_settled(1)
    assert isinstance(settled.outcome, Ack)
    return SHOP.requests


async def test_a_request_tells_what_time_is_left_and_goes_on_with_the_trace(
    open_kernel: OpenKernel, autojump_clock: trio.testing.MockClock
) -> None:
    (request,) = await deliver(open_kernel, {"traceparent": "00-1-2-01", "tracestate": "theirs", "other": "x"})

    assert request.headers["traceparent"] == "00-1-2-01"
    assert request.headers["tracestate"] == "mine"
    assert "other" not in request.headers
    assert 3000 < int(request.headers[DEADLINE_HEADER]) <= 4000


async def test_a_header_from_outside_that_is_none_is_not_taken_over(
    open_kernel: OpenKernel, autojump_clock: trio.testing.MockClock
) -> None:
    (request,) = await deliver(open_kernel, {"traceparent": "00\r\nhost: elsewhere"})

    assert "traceparent" not in request.headers


async def test_no_wait_is_begun_that_the_delivery_has_no_time_for(
    open_kernel: OpenKernel, autojump_clock: trio.testing.MockClock
) -> None:
    SHOP.status = 503
    try:
        requests = await deliver(open_kernel, {})
    finally:
        SHOP.status = 200

    assert len(requests) == 1
