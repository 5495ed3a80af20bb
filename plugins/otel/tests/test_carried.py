"""Every protocol of this project carries the context of a trace: what is encoded with it is decoded with it."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from kernel import Arguments, Message
from kernel.errors import EncodeError
from kernel.testing import fake_context

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FOREIGN = {"ufw_backoff"}
"""What writes the retries of micro-framework, which have a payload of their own."""
PROTOCOLS = sorted(
    (point for point in entry_points(group="kernel.protocols") if point.name not in FOREIGN),
    key=lambda point: point.name,
)
PAYLOADS = (Arguments((), {"a": 1}), {"a": 1}, b"a")


@pytest.mark.parametrize("point", PROTOCOLS, ids=lambda point: point.name)
def test_a_protocol_carries_headers(point: object) -> None:
    cls = point.load()  # type: ignore[attr-defined]
    protocol = cls(config=cls.Config(), context=fake_context(f"protocol/{cls.__name__}"))
    for payload in PAYLOADS:
        try:
            envelope = protocol.encode(Message(subject="a.b", payload=payload, headers={"traceparent": PARENT}))
            break
        except EncodeError:
            continue

    assert envelope.headers["traceparent"] == PARENT
