"""What beginners write, one mistake after the other, and what `kernel check` says: the place, and what to write instead.

`...` stands for anything: for lists that grow, and for what is as long as it is on this machine.
"""

from __future__ import annotations

from typing import Final, final

import attrs

MANIFEST: Final = "kernel.toml"
CODE: Final = "shop.py"
QUEUE: Final = "queue.py"

RIGHT: Final = {
    MANIFEST: """\
[kernel]
name = "shop"

[drivers.queue]
plugin = "memory"

[drivers.orders]
plugin = "publisher"
driver = "queue"
protocol = "json"

[drivers.desk]
plugin = "rpc_client"
driver = "queue"
protocol = "json"

[dispatchers.incoming]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "orders"
bindings = ["order.*", "stock.*"]
concurrency = 4

[dispatchers.clock]
plugin = "timer"
interval = 10.0

[dispatchers.web]
bind = "127.0.0.1:8080"

[workers.customer]
use = "shop:Customer"
config = { skus = ["tea"], every = 0.5 }

[workers.packer]
use = "shop:Packer"
dispatcher = "incoming"
timeout = 5.0
failure_worker = "mourner"
retry = { attempts = 4, backoff_initial = 0.5 }

[workers.mourner]
use = "shop:mourn"

[workers.reporter]
use = "shop:report"
dispatcher = "clock"

[workers.api]
use = "shop:Api"
dispatcher = "web"
""",
    CODE: """\
import attrs
import trio

from kernel import handles


@attrs.frozen
class Order:
    sku: str
    quantity: int = 1


@attrs.frozen
class CustomerConfig:
    skus: list[str]
    every: float = 1.0


class Customer:
    def __init__(self, orders, config: CustomerConfig):
        self.orders = orders
        self.config = config

    async def run(self):
        while True:
            await self.orders.publish("order.created", {"sku": "tea"})
            await trio.sleep(self.config.every)


class Packer:
    @handles("order.created")
    async def pack(self, order: Order):
        print(f"packed {order.sku}", flush=True)

    @handles("stock.packed")
    async def count(self, question: dict):
        return {"packed": 1}


async def mourn(failure):
    print(f"lost: {failure.reason}", flush=True)


async def report(tick):
    print("tick", flush=True)


class Api:
    def __init__(self, orders):
        self.orders = orders

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"ok"})
""",
}
"""A service in which nothing is wrong."""


@final
@attrs.frozen
class Mistake:
    """One mistake."""

    name: str
    changes: list[tuple[str, str | None, str | None]]
    """File, what stands in it, what a beginner writes instead; without the second the whole file, and without the third
    there is no such file."""
    printed: list[str]
    """What is printed, line by line."""
