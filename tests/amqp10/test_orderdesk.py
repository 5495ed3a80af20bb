"""The order desk of the examples, moved to AMQP 1.0 by the table of one driver."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import trio

from kernel import Listening
from kernel.errors import PermanentError, TransientError
from kernel.testing import OpenKernel

from ._node import Amqp10Node

MANIFEST = Path(__file__).parents[2] / "examples" / "orderdesk" / "kernel.toml"
PATIENCE = 30.0


async def state_of(http: httpx.AsyncClient, order: str, wanted: str) -> str:
    """Return the state of an order, as soon as it is the one that is wanted, or patience is over."""
    state = ""
    with trio.move_on_after(PATIENCE):
        while state != wanted:
            state = (await http.get(f"/orders/{order}")).json()["state"]
            await trio.sleep(0.02)
    return state


@pytest.mark.slow
async def test_the_order_desk_runs_over_amqp_1_0(rabbit: Amqp10Node, open_kernel: OpenKernel, tmp_path: Path) -> None:
    queue = {**rabbit.table(), "hosts": [rabbit.node.address]}
    opened = open_kernel(
        MANIFEST,
        environ={"ORDERDESK_DB": str(tmp_path / "store.db")},
        replace={"dispatchers.web": {"plugin": "web", "bind": "127.0.0.1:0"}, "drivers.queue": queue},
        expected=(PermanentError, TransientError),
    )

    async with opened as service:
        address = (await service.wait_event(Listening)).address
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE) as http:
            orders = [
                (await http.post("/orders", json={"sku": sku, "quantity": 2})).json() for sku in ("tea", "poison")
            ]
            states = [
                await state_of(http, str(order["id"]), wanted)
                for order, wanted in zip(orders, ("packed", "lost"), strict=True)
            ]
            quote = await http.get("/quote", params={"sku": "tea", "quantity": 3})

    assert states == ["packed", "lost"]
    assert quote.json() == {"sku": "tea", "cents": 1050}
