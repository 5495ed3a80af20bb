"""The promises of `kernel.abc.Protocol`."""

from __future__ import annotations

from kernel_raw import RawProtocol

from kernel.testing import check_protocol


async def test_raw_keeps_the_promises_of_a_protocol() -> None:
    await check_protocol(RawProtocol, samples=[b"", b"\0\xff", b"text", bytes(1000)])
