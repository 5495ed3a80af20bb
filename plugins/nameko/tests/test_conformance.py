"""The promises of `kernel.abc.Protocol`."""

from __future__ import annotations

from kernel_nameko import NamekoEventsProtocol, NamekoRpcProtocol

from kernel import Arguments
from kernel.testing import check_protocol

VALUES = [None, True, 0, -1.5, "é\u2028😀", [], {"a": [1, {"b": None}]}, 2**70]


async def test_nameko_events_keeps_the_promises_of_a_protocol() -> None:
    await check_protocol(NamekoEventsProtocol, samples=VALUES)


async def test_nameko_rpc_keeps_the_promises_of_a_protocol() -> None:
    calls = [Arguments(), Arguments((1, [2]), {"a": {"b": None}}), Arguments(("x",)), Arguments((), {"k": "v"})]

    await check_protocol(NamekoRpcProtocol, samples=calls, results=VALUES)
