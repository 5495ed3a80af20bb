"""The promises of `kernel.abc.Protocol`."""

from __future__ import annotations

from datetime import UTC, datetime

from kernel_bpm import BpmProtocol

from kernel.testing import check_protocol


def protocol() -> BpmProtocol:
    """Return a protocol at one moment: the format has a time and an id in every body."""
    return BpmProtocol(now=lambda: datetime(2021, 3, 10, 11, 0, 26, tzinfo=UTC), new_id=lambda: "id")


async def test_bpm_keeps_the_promises_of_a_protocol() -> None:
    await check_protocol(protocol, samples=[{}, {"a": [1, {"b": None}]}, {"data": "é\u2028😀"}, {"status": "open"}])
