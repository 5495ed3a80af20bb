"""The promises of `kernel.abc.Protocol`."""

from __future__ import annotations

import gc
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import attrs
import msgpack  # pyright: ignore[reportMissingTypeStubs]  it has none
from kernel_msgpack import WORKFLOW_HEADER, MsgpackProtocol, ServiceFrameworkProtocol

from kernel import Message
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
    ids = count(1)
    protocol = ServiceFrameworkProtocol(make_id=lambda: f"{next(ids):032x}")
    bodies = {protocol.encode(Message(subject="s", payload={})).body for _ in range(2)}

    assert len(bodies) == 2


def test_answers_name_the_workflow_of_their_request_in_any_order_and_nothing_else_is_kept() -> None:
    protocol = ServiceFrameworkProtocol()
    requests = [
        attrs.evolve(
            protocol.encode(Message(subject="s", payload={}, headers={WORKFLOW_HEADER: name})), id="same", reply_to="r"
        )
        for name in ("first", "second", "third")
    ]
    for request in requests:
        protocol.decode(request)
    again = attrs.evolve(requests[1])  # as whatever wraps a delivery may make it

    replies = [protocol.encode_reply(request, None) for request in (requests[2], again, requests[0])]

    library: Any = msgpack
    told = [library.unpackb(reply.body)["workflow_id"] for reply in replies if reply is not None]
    assert told == ["third", "second", "first"]
    requests.clear()
    del request, again
    gc.collect()
    assert protocol._workflows == {}  # that what nobody answers is not kept is seen nowhere else
