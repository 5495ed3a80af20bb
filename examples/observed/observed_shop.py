"""A shop: an order comes in over HTTP, is priced by a call, and packed; poison fails."""

from __future__ import annotations

from typing import Any

import attrs
import trio
from prometheus_client import Counter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from kernel import handles

PACKED = Counter("shop_packed_total", "Orders that were packed.", ["sku"])


@attrs.frozen
class Order:
    """What a customer wants."""

    sku: str


def api(events: Any) -> Starlette:  # noqa: ANN401  what the driver gives
    """Return the application that takes orders."""

    async def order(request: Request) -> JSONResponse:
        body = await request.json()
        return JSONResponse({"id": await events.publish("order.created", {"sku": str(body["sku"])})}, status_code=202)

    return Starlette(routes=[Route("/orders", order, methods=["POST"])])


class Packer:
    """Packs what was ordered, when it knows what it costs."""

    def __init__(self, prices: Any) -> None:  # noqa: ANN401  as above
        self.prices = prices

    @handles("order.created")
    async def pack(self, order: Order) -> None:
        """Pack one order."""
        await self.prices.call("price.of", {"sku": order.sku})
        PACKED.labels(order.sku).inc()


class Pricing:
    """Knows what things cost."""

    @handles("price.of")
    async def of(self, order: Order) -> int:
        """Return the price in cents."""
        await trio.sleep(0.01)  # it looks that up
        if order.sku == "poison":
            raise ValueError("poison is not for sale")
        return 300
