"""The order desk of the examples on every broker that is here: the table of one driver says which."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from kernel import DeliverySettled, Listening
from kernel.errors import PermanentError, TransientError
from kernel.testing import open_kernel

from .conftest import Table

pytestmark = pytest.mark.slow

MANIFEST = Path(__file__).parents[2] / "examples" / "orderdesk" / "kernel.toml"
WEB = {"plugin": "web", "bind": "127.0.0.1:0"}
ENDS = {"worker/statistician", "worker/mourner"}


async def test_orders_end_the_same_way_on_every_broker(queue: Table, tmp_path: Path) -> None:
    replaced = {"dispatchers.web": WEB, "drivers.queue": queue}
    environ, expected = {"ORDERDESK_DB": str(tmp_path / "store.db")}, (PermanentError, TransientError)
    async with open_kernel(MANIFEST, environ=environ, replace=replaced, expected=expected) as service:
        listening = await service.wait_event(Listening)
        async with httpx.AsyncClient(base_url=listening.address, timeout=30) as client:
            ids = [await _order(client, sku) for sku in ("tea", "oil", "poison")]
            await service.wait_settled(3, matching=_is_end)
            states = [(await client.get(f"/orders/{id_}")).json()["state"] for id_ in ids]
            quote = await client.get("/quote", params={"sku": "tea", "quantity": 3})

    assert states == ["packed", "packed", "lost"]
    assert quote.json() == {"sku": "tea", "cents": 1050}


async def _order(client: httpx.AsyncClient, sku: str) -> str:
    answer = await client.post("/orders", json={"sku": sku, "quantity": 2})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _is_end(event: DeliverySettled) -> bool:
    return bool(ENDS & {event.worker, event.failure_worker})
