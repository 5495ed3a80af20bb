"""Both services over a socket of ZeroMQ."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel import KernelStopped
from kernel.errors import RemoteError
from kernel.testing import OpenKernel

HERE = Path(__file__).parent


@pytest.fixture
def address() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="kz")
    yield f"ipc://{folder}/s"
    shutil.rmtree(folder)


async def test_the_customer_cancels_an_order(
    open_kernel: OpenKernel, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="orders")
    environ = {"ADDRESS": address}
    async with (
        open_kernel(HERE / "desk.toml", environ=environ),
        open_kernel(HERE / "customer.toml", environ=environ, ready=False) as customer,
    ):
        await customer.wait_event(KernelStopped)

    assert "cancelled {'order_id': 'b5d5'}" in [record.getMessage() for record in caplog.records]


async def test_a_wrong_argument_is_an_answer(open_kernel: OpenKernel, address: str) -> None:
    table = {"plugin": "zmq_request", "connect": [address], "protocol": "service_framework"}
    caller = {"kernel": {"name": "caller"}, "drivers": {"desk": table}}
    async with open_kernel(HERE / "desk.toml", environ={"ADDRESS": address}), open_kernel(caller) as us:
        with pytest.raises(RemoteError, match="order_id: must be a string, got 5"):
            await us.resource("driver/desk").cancel_order(order_id=5)
