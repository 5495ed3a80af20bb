"""The desk over HTTP: a FastAPI application with a websocket, and the drivers that it was given."""

from __future__ import annotations

from typing import Annotated, Self

import attrs
import trio
from desk_store import Board, Order, enter, find, prepare
from fastapi import FastAPI, HTTPException, Query, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from kernel_messaging import Publisher, RpcClient
from pydantic import BaseModel, Field

from kernel import Arguments, new_id
from kernel.abc import Transactional
from kernel.errors import RemoteError, SendError, UnavailableError


class NewOrder(BaseModel):
    """What a customer sends."""

    sku: str = Field(min_length=1, max_length=40)
    quantity: int = Field(ge=1, le=1000)


@attrs.frozen(kw_only=True)
class Quote:
    """The answer of `pricing.quote`."""

    sku: str
    cents: int


async def away(request: Request, error: Exception) -> JSONResponse:
    """The broker or the store takes nothing for now: the client may try again."""
    await trio.lowlevel.checkpoint()
    return JSONResponse({"detail": "try again later"}, status_code=503, headers={"Retry-After": "5"})


class Api:
    """The worker of `dispatcher/web`."""

    def __init__(self, store: Transactional, outbox: Publisher, rpc: RpcClient, board: Board) -> None:
        self.store = store
        self.outbox = outbox
        self.rpc = rpc
        self.board = board
        self.app = FastAPI(title="orderdesk")
        self.app.add_exception_handler(SendError, away)
        self.app.add_exception_handler(UnavailableError, away)
        self.app.post("/orders", status_code=202)(self.accept)
        self.app.get("/orders/{order_id}")(self.show)
        self.app.get("/quote")(self.quote)
        self.app.websocket("/watch")(self.watch)

    async def __aenter__(self) -> Self:
        async with self.store.transaction() as transaction:
            await prepare(transaction)
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def accept(self, wanted: NewOrder) -> dict[str, str]:
        """Enter the order and announce it: both happen, or neither."""
        order = Order(id=new_id(), sku=wanted.sku, quantity=wanted.quantity)
        async with self.store.transaction() as transaction:
            await enter(transaction, order)
            await self.outbox.publish("order.accepted", order, headers={"order": order.id}, transaction=transaction)
        return {"id": order.id}

    async def show(self, order_id: str) -> dict[str, object]:
        """Show one order."""
        async with self.store.transaction() as transaction:
            order = await find(transaction, order_id)
        if order is None:
            raise HTTPException(404, "there is no such order")
        return attrs.asdict(order)

    async def quote(self, sku: Annotated[str, Query(max_length=40)], quantity: int = 1) -> dict[str, object]:
        """Ask another worker, which may be another service, what it costs."""
        try:
            quote = await self.rpc.call("pricing.quote", Arguments((sku,), {"quantity": quantity}), returns=Quote)
        except RemoteError as error:
            raise HTTPException(404, error.message) from error
        return attrs.asdict(quote)

    async def watch(self, socket: WebSocket) -> None:
        """Send what happens to orders, until the client leaves."""
        await socket.accept()
        with self.board.watch() as news:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_closed, socket, nursery.cancel_scope)
                async for order in news:
                    await socket.send_json(attrs.asdict(order))

    async def _until_closed(self, socket: WebSocket, scope: trio.CancelScope) -> None:
        await trio.lowlevel.checkpoint()
        try:
            while True:
                await socket.receive_text()
        except WebSocketDisconnect:
            scope.cancel()
