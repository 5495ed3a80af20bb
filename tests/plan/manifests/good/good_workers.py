"""Workers of the good manifests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import attrs

from kernel import Envelope, handles
from kernel.abc import Delivery


class BusyError(Exception):
    pass


@attrs.frozen
class Config:
    warehouse: str
    shelves: int = 3


@attrs.frozen
class Order:
    number: int


class Fulfil:
    def __init__(self, store: object, events: object, config: Config, spare: object = None) -> None:
        self.config = config

    @handles("order.created", "order.paid")
    async def created(self, order: Order, envelope: Envelope) -> None: ...

    @handles("order.*")
    async def other(self, order: Mapping[str, object], delivery: Delivery, extra: int = 0) -> None: ...


async def rescue(failure: object) -> None: ...


@handles("tick.#")
async def tick(payload, envelope, db):  # noqa: ANN001, ANN201
    ...


class Loop:
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def run(self) -> None: ...


async def sweep(db: object) -> None: ...


async def page(scope: object, receive: object, send: object) -> None: ...
