"""The promises of `kernel.abc.Protocol`."""

from __future__ import annotations

from kernel_json import JsonProtocol

from kernel.testing import check_protocol


async def test_json_keeps_the_promises_of_a_protocol() -> None:
    samples = [None, True, 0, -1.5, "", "é\u2028😀", [], {}, {"a": [1, {"b": None}], "": "x" * 500}, [[[[1]]]], 2**70]

    await check_protocol(JsonProtocol, samples=samples)
