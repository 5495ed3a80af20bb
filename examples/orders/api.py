"""What the shop looks like over HTTP: an ASGI application (Starlette) with the drivers it was given."""

from __future__ import annotations

import json
import secrets
from json import JSONDecodeError

import attrs
from kernel_messaging import Publisher
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from kernel import payload_converter
from kernel.abc import Broker
from kernel.errors import ConversionError

from .book import Book, NewOrder, Order

as_new_order = payload_converter(NewOrder)


class Api:
    """The worker of the dispatcher `web`: its `app` answers the requests."""

    def __init__(self, events: Publisher, book: Book, broker: Broker) -> None:
        self.events = events
        self.book = book
        self.broker = broker
        self.app = Starlette(
            routes=[
                Route("/orders", self.accept, methods=["POST"]),
                Route("/orders/{id}", self.show),
                Route("/dead-letters", self.dead_letters),
            ]
        )

    async def accept(self, request: Request) -> JSONResponse:
        """Check the order, announce it, and answer before it is fulfilled."""
        body = await request.body()
        try:
            wanted = as_new_order(json.loads(body))
        except (ConversionError, JSONDecodeError, UnicodeDecodeError) as error:
            return JSONResponse({"error": str(error)}, status_code=422)
        order = Order(id=secrets.token_hex(8), sku=wanted.sku, quantity=wanted.quantity)
        self.book.enter(order)
        await self.events.publish("order.accepted", order, id=order.id)
        return JSONResponse({"id": order.id}, status_code=202)

    async def show(self, request: Request) -> JSONResponse:
        """Show one order."""
        dead = {letter["id"] for letter in await self._dead_letters()}
        order = self.book.find(request.path_params["id"])
        if order is None:
            return JSONResponse({"error": "there is no such order"}, status_code=404)
        if order.id in dead:
            order = attrs.evolve(order, state="dead")
        return JSONResponse(attrs.asdict(order))

    async def dead_letters(self, request: Request) -> JSONResponse:
        """Show what was put aside, and why."""
        return JSONResponse(await self._dead_letters())

    async def _dead_letters(self) -> list[dict[str, object]]:
        letters = [letter.envelope for letter in await self.broker.peek("orders.dead")]
        return [
            {
                "id": letter.id,
                "reason": letter.headers["kernel-death-reason"],
                "attempts": letter.headers["kernel-death-attempts"],
                "order": json.loads(letter.body),
            }
            for letter in letters
        ]
