"""Bodies that two readers would understand differently, or not at all."""

from __future__ import annotations

import msgpack  # pyright: ignore[reportMissingTypeStubs]  it has none
import pytest
from kernel_msgpack import MsgpackProtocol, ServiceFrameworkProtocol

from kernel import Envelope
from kernel.errors import DecodeError

TWICE = b"\x82\xa1a\x01\xa1a\x02"
"""A map that has the key "a" twice."""
BODIES = {
    "a key twice": TWICE,
    "a key twice, within": b"\x91\x81\xa1b" + TWICE,
    "equal numbers as keys": b"\x82\x01\x00\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00\x00",
    "an array as a key": b"\x81\x91\x01\x00",
    "an extension type": msgpack.packb(msgpack.ExtType(5, b"x")),
    "two values": b"\x01\x02",
    "text that is not UTF-8": b"\xa1\xff",
    "a part of a value": b"\x92\x01",
    "nothing": b"",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize(
    "protocol", [MsgpackProtocol(), ServiceFrameworkProtocol()], ids=lambda one: type(one).__name__
)
def test_a_body_is_refused(protocol: MsgpackProtocol | ServiceFrameworkProtocol, body: bytes) -> None:
    with pytest.raises(DecodeError):
        protocol.decode(Envelope(subject="s", body=body))
