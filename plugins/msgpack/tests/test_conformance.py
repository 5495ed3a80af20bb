"""The promises of `kernel.abc.Protocol`."""

from __future__ import annotations

from decimal import Decimal
from itertools import count
from uuid import UUID

from kernel_msgpack import MsgpackProtocol, ServiceFrameworkProtocol

from kernel.testing import check_protocol

VALUES = [None, True, 0, -1.5, "é\u2028😀", [], {"a": [1, {"b": None}]}, 2**63, b"\0\xff"]


async def test_msgpack_keeps_the_promises_of_a_protocol() -> None:
    await check_protocol(MsgpackProtocol, samples=VALUES)


async def test_service_framework_keeps_the_promises_of_a_protocol() -> None:
    samples = [{}, {"a": value_of} if (value_of := [1, {"b": None}]) else {}, {"price": Decimal("1.50"), "ids": {1, 2}}]
    results = [*VALUES, {"id": UUID(int=1)}]

    await check_protocol(
        lambda: ServiceFrameworkProtocol(make_id=lambda: f"{1:032x}"), samples=samples, results=results
    )


def test_each_workflow_has_an_id_of_its_own() -> None:
    from kernel import Message  # noqa: PLC0415

    ids = count(1)
    protocol = ServiceFrameworkProtocol(make_id=lambda: f"{next(ids):032x}")
    bodies = {protocol.encode(Message(subject="s", payload={})).body for _ in range(2)}

    assert len(bodies) == 2
