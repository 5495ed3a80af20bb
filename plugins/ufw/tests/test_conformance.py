"""The promises of `kernel.abc.Protocol`."""

from __future__ import annotations

from kernel_ufw import BackOff, UfwBackoffProtocol, UfwRpcProtocol

from kernel import Arguments
from kernel.testing import check_protocol

VALUES = [None, True, 0, -1.5, "é\u2028😀", [], {"a": [1, {"b": None}]}, 2**70]


async def test_ufw_rpc_keeps_the_promises_of_a_protocol() -> None:
    calls = [Arguments(), Arguments((1, [2]), {"a": {"b": None}}), Arguments(("x",)), Arguments((), {"k": "v"})]

    await check_protocol(UfwRpcProtocol, samples=calls, results=VALUES)


async def test_ufw_backoff_keeps_the_promises_of_a_protocol() -> None:
    retries = [
        BackOff(),
        BackOff(args=({"id": 1},), kwargs={"a": "b"}, retry_count=3, last_retry=1700000000.5, delay=60.0),
    ]

    await check_protocol(UfwBackoffProtocol, samples=retries, results=VALUES)
