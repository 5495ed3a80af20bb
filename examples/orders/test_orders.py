"""The shop as its customers see it: the manifest of this repository over HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from kernel import DeadLetter, Listening
from kernel.testing import OpenKernel

MANIFEST = Path(__file__).parents[2] / "kernel.toml"
ANY_PORT = {"dispatchers.web": {"plugin": "web", "bind": "127.0.0.1:0"}}


@asynccontextmanager
async def shop(open_kernel: OpenKernel, **options: Any) -> AsyncGenerator[tuple[Any, httpx.AsyncClient]]:
    async with open_kernel(MANIFEST, replace=ANY_PORT, **options) as service:
        listening = await service.wait_event(Listening)
        async with httpx.AsyncClient(base_url=listening.address) as client:
            yield service, client


@pytest.mark.slow
async def test_an_order_is_accepted_and_then_fulfilled(open_kernel: OpenKernel) -> None:
    async with shop(open_kernel) as (service, client):
        accepted = await client.post("/orders", json={"sku": "tea", "quantity": 2})
        path = f"/orders/{accepted.json()['id']}"
        before = (await client.get(path)).json()
        await service.wait_settled(matching=lambda event: event.worker == "worker/fulfil")
        after = (await client.get(path)).json()

    assert accepted.status_code == 202
    assert before == {"id": accepted.json()["id"], "sku": "tea", "quantity": 2, "state": "accepted"}
    assert after == {**before, "state": "fulfilled"}


@pytest.mark.slow
async def test_poison_is_tried_three_times_and_ends_as_dead(open_kernel: OpenKernel) -> None:
    async with shop(open_kernel, expected=ValueError) as (service, client):
        accepted = await client.post("/orders", json={"sku": "poison", "quantity": 1})
        await service.wait_settled(matching=lambda event: isinstance(event.outcome, DeadLetter))
        order = (await client.get(f"/orders/{accepted.json()['id']}")).json()
        [letter] = (await client.get("/dead-letters")).json()

    assert order["state"] == "dead"
    assert (letter["id"], letter["attempts"]) == (order["id"], 3)
    assert "nobody can fulfil an order for poison" in letter["reason"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"sku": "tea", "quantity": "2"}', 'quantity: must be an integer, got "2"'),
        (b'{"sku": "tea", "quantity": 0}', "quantity: must be at least 1, got 0"),
        (b'{"quantity": 1}', "sku"),
        (b"{", "Expecting property name"),
        (b"\xff", "utf-8"),
    ],
    ids=["type", "range", "missing", "no-json", "no-text"],
)
async def test_a_wrong_order_is_refused_with_the_reason(open_kernel: OpenKernel, body: bytes, reason: str) -> None:
    async with shop(open_kernel) as (_, client):
        refused = await client.post("/orders", content=body)

    assert refused.status_code == 422
    assert reason in refused.json()["error"]


async def test_an_order_that_nobody_made_is_not_found(open_kernel: OpenKernel) -> None:
    async with shop(open_kernel) as (_, client):
        missing = await client.get("/orders/none")

    assert missing.status_code == 404
