"""Workers with one fault each, and good ones for manifests whose fault lies elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

import attrs

from kernel import Batch, Envelope, answers, handles
from kernel.abc import Delivery

if TYPE_CHECKING:
    from decimal import Decimal


class Pool:
    """No driver provides it."""


@attrs.frozen
class Config:
    size: int = attrs.field(validator=attrs.validators.ge(1))
    name: str = "x"


# --- good ---------------------------------------------------------------------------------------------------------


async def handle(payload: object) -> None: ...


async def handle_all(payloads: list[object]) -> None: ...


async def loop() -> None: ...


class Good:
    def __init__(self, config: Config) -> None: ...

    @handles("order.created")
    async def created(self, payload: object) -> None: ...


class Any:
    async def __call__(self, payload: object) -> None: ...


class Free:
    """Takes its configuration as it is."""

    def __init__(self, config: dict[str, object]) -> None: ...

    async def run(self) -> None: ...


class Runs:
    async def run(self) -> None: ...


async def uses_store(payload: object, db: object) -> None: ...


async def wants_pool(payload: object, db: Pool) -> None: ...


# --- bad ----------------------------------------------------------------------------------------------------------


def plain(payload: object) -> None: ...


async def generator(payload: object):  # noqa: ANN201
    yield payload


INSTANCE = Runs()


class Unknown:
    def __init__(self, stor: object) -> None: ...

    async def __call__(self, payload: object) -> None: ...


class Lonely:
    def __init__(self, telephone: object) -> None: ...

    async def __call__(self, payload: object) -> None: ...


class Positional:
    def __init__(self, db: object, /) -> None: ...

    async def run(self) -> None: ...


class Silent:
    async def created(self, payload: object) -> None: ...


class Sync:
    @handles("order.created")
    def created(self, payload: object) -> None: ...


class NoPayload:
    @handles("order.created")
    async def created(self) -> None: ...


class EnvelopeFirst:
    @handles("order.created")
    async def created(self, envelope: Envelope) -> None: ...


class Extra:
    @handles("order.created")
    async def created(self, payload: object, db: object) -> None: ...


class Twice:
    @handles("order.created")
    async def created(self, payload: object) -> None: ...

    @handles("order.created", "order.paid")
    async def paid(self, payload: object) -> None: ...


class TwoEnvelopes:
    @handles("order.created")
    async def created(self, payload: object, one: Envelope, two: Envelope, delivery: Delivery) -> None: ...


class Private:
    @handles("order.created")
    async def _created(self, payload: object) -> None: ...


class MarkedRun:
    @handles("order.created")
    async def run(self, payload: object) -> None: ...


class BadPattern:
    @handles("order.*d")
    async def created(self, payload: object) -> None: ...


class HalfContext:
    async def __aenter__(self) -> Self:
        return self

    async def run(self) -> None: ...


class SyncRun:
    def run(self) -> None: ...


class RunWithParameters:
    async def run(self, db: object, often: int = 1) -> None: ...


class Unresolvable:
    @handles("order.created")
    async def created(self, price: Decimal) -> None: ...


class Abstract(ABC):
    @abstractmethod
    async def run(self) -> None: ...


class Misspelt:
    @handles("order.created")
    async def created(self, payload: object, *, enveloppe: object) -> None: ...


@handles("order.created")
async def marked_loop(db: object) -> None: ...


async def keyword_only(*, payload: object) -> None: ...


class NotAnException: ...


class Batches:
    @handles("one")
    async def one(self, payload: dict) -> None: ...  # type: ignore[type-arg]

    @handles("envelope")
    async def envelope(self, payloads: list[int], envelope: Envelope) -> None: ...

    @handles("bare")
    async def bare(self, payloads) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

    @handles("good")
    async def good(self, payloads: list[int], batch: Batch) -> None: ...

    @handles("first")
    async def first(self, batch: Batch) -> None: ...


class Calls:
    @answers("squeezed")
    async def squeezed(self, envelope: Envelope, *rest: int) -> None: ...

    @answers("enveloped")
    async def enveloped(self, envelope: Envelope, /) -> None: ...

    @answers("unconvertible")
    async def unconvertible(self, *, one: len) -> None: ...  # type: ignore[valid-type]

    @answers("good", "good.too")
    async def good(self, one: int, /, two: str = "", *rest: float, three: object, **others: bool) -> None: ...

    @answers("sync")
    def sync(self, one: int) -> None: ...

    @answers("private")
    async def _private(self, one: int) -> None: ...

    @answers("run")
    async def run(self) -> None: ...


@answers("#")
async def called(failure: object) -> None: ...


@handles("failing")
async def failing(payload: object) -> None: ...
