"""Bodies that are no event become dead letters that say what is wrong, and where."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
from dataclasses import dataclass
from typing import Any

import attrs
import msgspec
import pydantic
import pytest
from kernel_events import event, listens
from trio.testing import MockClock

from kernel import DeadLetter, Envelope, new_id
from kernel._manifest.registry import Registry, discover
from kernel.testing import open_kernel

from .conftest import Table

heard: list[object] = []


class Size(enum.Enum):
    SMALL = "s"


@attrs.frozen
class Line:
    sku: str
    price: decimal.Decimal | None = None


@dataclass
class Address:
    city: str
    zip: int | str


@dataclass
class Customer:
    name: str
    address: Address


@event(name="placed")
@dataclass
class Placed:
    id: int
    at: datetime.datetime
    lines: list[Line]
    customer: Customer
    size: Size = Size.SMALL
    paid: bool = False
    tags: dict[str, int] | None = None
    pair: tuple[int, str] = (1, "a")
    amount: int | str = 0


@event(name="model")
class Model(pydantic.BaseModel):
    id: int
    inner: dict[str, list[int]]


@event(name="struct")
class Struct(msgspec.Struct):
    id: int
    inner: dict[str, list[int]]


class Listens:
    @listens(Placed)
    async def placed(self, event: Placed) -> None:
        heard.append(event)

    @listens(Model)
    async def model(self, event: Model) -> None:
        heard.append(event)

    @listens(Struct)
    async def struct(self, event: Struct) -> None:
        heard.append(event)


GOOD: dict[str, Any] = {
    "id": 1,
    "at": "2026-01-01T00:00:00Z",
    "lines": [{"sku": "tea", "price": "1.5"}],
    "customer": {"name": "ann", "address": {"city": "Ulm", "zip": 1}},
}


def but(**fields: object) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


def without(*names: str) -> bytes:
    return json.dumps({name: value for name, value in GOOD.items() if name not in names}).encode()


def living(**address: object) -> bytes:
    return but(customer={"name": "ann", "address": {"city": "Ulm", "zip": 1, **address}})


HOSTILE: list[tuple[str, bytes, str]] = [
    ("placed", b"", "body is not JSON: Expecting value: line 1 column 1 (char 0)"),
    ("placed", b"{", "line 1 column 2 (char 1)"),
    ("placed", b"\xff\xfe", "body is not UTF-8: invalid start byte at byte 0"),
    ("placed", b"[" * 100_000 + b"]" * 100_000, "body is nested more than max_depth = 64 levels deep"),
    ("placed", b'{"id":' + b"9" * 10_000 + b"}", "an integer has 10000 digits, more than 4300"),
    ("placed", b'{"id":NaN}', "NaN is not a number of JSON"),
    ("placed", b'{"id":1e999}', "a number is too large"),
    ("placed", b'{"id":1,"id":2}', 'key "id" occurs twice in one object'),
    ("placed", b'{"id":"\\ud800"}', "surrogates not allowed"),
    ("placed", b"null", "must be an object, got null"),
    ("placed", b"[]", "must be an object, got an array"),
    ("placed", b'"text"', 'must be an object, got "text"'),
    ("placed", but(id="1"), 'id: must be an integer, got "1"'),
    ("placed", but(id=1.5), "id: must be an integer, got 1.5"),
    ("placed", but(id=True), "id: must be an integer, got true"),
    ("placed", but(id=None), "id: must be an integer, got null"),
    ("placed", but(at="2026-13-01T00:00:00Z"), "at: must be a date and time, got"),
    ("placed", but(at=5), "at: must be a date and time, got 5"),
    ("placed", but(lines={}), "lines: must be an array, got an object"),
    ("placed", but(lines=[1]), "lines[0]: must be an object, got 1"),
    ("placed", but(lines=[{"sku": "a"}, {"sku": 2}]), "lines[1].sku: must be a string, got 2"),
    ("placed", but(lines=[{"price": "1"}]), "lines[0].sku: is missing"),
    ("placed", but(lines=[{"sku": "a", "price": "NaN"}]), "lines[0].price: must be a decimal number in a string"),
    ("placed", but(customer={"name": "ann"}), "customer.address: is missing"),
    ("placed", living(city=None), "customer.address.city: must be a string, got null"),
    ("placed", living(zip=[]), "customer.address.zip: must be an integer or a string, got an array"),
    ("placed", but(size="xl"), 'size: must be "s", got "xl"'),
    ("placed", but(paid="true"), 'paid: must be true or false, got "true"'),
    ("placed", but(tags={"a": "b"}), 'tags.a: must be an integer, got "b"'),
    ("placed", but(pair=[1]), "pair: must be an array of 2, got 1"),
    ("placed", but(pair=["a", 1]), 'pair[0]: must be an integer, got "a"; pair[1]: must be a string, got 1'),
    ("placed", but(amount={}), "amount: must be an integer or a string, got an object"),
    ("placed", without("at", "lines"), "at: is missing; lines: is missing"),
    ("model", b'{"id": "x", "inner": {}}', "id: Input should be a valid integer"),
    ("model", b'{"id": 1, "inner": {"a": ["x"]}}', "inner.a[0]: Input should be a valid integer"),
    ("struct", b'{"id": "x", "inner": {}}', "id: Expected `int`, got `str`"),
    ("struct", b'{"id": 1, "inner": {"a": ["x"]}}', "inner[0]: Expected `int`, got `str`"),
    ("struct", b'{"id": 1}', "missing required field `inner`"),
]
WIRED = {"driver": "queue", "protocol": "json"}


async def reasons_of(queue: Table) -> list[str]:
    """Send what is no event over a broker; return why each was put aside."""
    names = {"exchange": new_id()}
    own = Registry.of({"workers": {"listens": Listens}})
    manifest = {
        "kernel": {"name": f"shop-{new_id()}"},
        "drivers": {"queue": queue, "events": {"plugin": "event_sender", **WIRED, **names}},
        "dispatchers": {"heard": {"plugin": "event_listener", **WIRED, **names}},
        "workers": {"listens": {"use": "listens", "dispatcher": "heard"}},
    }
    registry = Registry((*discover().plugins, *own.plugins))
    reasons: list[str] = []
    async with open_kernel(manifest, registry=registry, expected=Exception) as kernel:
        broker = kernel.resource("driver/queue")
        for count, (subject, body, _) in enumerate(HOSTILE, start=1):
            await broker.send(Envelope(subject=subject, body=body), exchange=names["exchange"])
            outcome = (await kernel.wait_settled(count))[-1].outcome
            reasons.append(outcome.reason if isinstance(outcome, DeadLetter) else repr(outcome))
    return reasons


def unlike(reasons: list[str]) -> list[tuple[bytes, str]]:
    """Return what was put aside for another reason than what is wrong with it, or not at all."""
    return [(body, got) for (_, body, wanted), got in zip(HOSTILE, reasons, strict=True) if wanted not in got]


async def test_what_is_no_event_is_a_dead_letter_that_says_where(autojump_clock: MockClock) -> None:
    heard.clear()

    reasons = await reasons_of({"plugin": "memory"})

    assert len(HOSTILE) >= 30
    assert not unlike(reasons)
    assert heard == []


@pytest.mark.slow
async def test_it_is_one_over_each_transport(queue: Table) -> None:
    heard.clear()

    reasons = await reasons_of(queue)

    assert not unlike(reasons)
    assert heard == []
