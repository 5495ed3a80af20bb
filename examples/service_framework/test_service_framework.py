"""Both services over a socket of ZeroMQ, and in one process without any socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kernel import KernelStopped
from kernel.abc import Caller
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


@pytest.mark.slow
def test_both_sides_agree() -> None:
    command = [sys.executable, "-m", "kernel", "check", "customer.toml", "desk.toml"]
    checked = subprocess.run(command, cwd=HERE, check=False, capture_output=True, text=True, timeout=60)

    assert checked.returncode == 0, checked.stderr


async def test_a_wrong_argument_is_an_answer(open_kernel: OpenKernel, address: str) -> None:
    table = {"plugin": "zmq_request", "connect": [address], "protocol": "service_framework"}
    caller = {"kernel": {"name": "caller"}, "drivers": {"desk": table}}
    async with open_kernel(HERE / "desk.toml", environ={"ADDRESS": address}), open_kernel(caller) as us:
        with pytest.raises(RemoteError, match="order_id: must be a string, got 5"):
            await us.resource("driver/desk").cancel_order(order_id=5)


async def test_both_in_one_process_say_the_same_and_open_no_socket(
    open_kernel: OpenKernel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="orders")
    before = sockets()
    async with open_kernel(HERE / "inline.toml", ready=False) as both:
        await both.wait_event(KernelStopped)
        during = sockets()

    assert "cancelled {'order_id': 'b5d5'}" in [record.getMessage() for record in caplog.records]
    assert during <= before


@pytest.mark.parametrize("order", [{"order_id": "b5d5"}, {"order_id": 5}, {"order": "b5d5"}, {}])
async def test_an_answer_is_the_same_over_a_socket_and_in_one_process(
    open_kernel: OpenKernel, address: str, order: dict[str, object]
) -> None:
    table = {"plugin": "zmq_request", "connect": [address], "protocol": "service_framework"}
    caller = {"kernel": {"name": "caller"}, "drivers": {"desk": table}}
    inline = {"services.customer.enabled": False}
    async with open_kernel(HERE / "desk.toml", environ={"ADDRESS": address}), open_kernel(caller) as us:
        over_a_socket = await answer(us.resource("driver/desk"), order)
    async with open_kernel(HERE / "inline.toml", set=inline) as both:
        in_one_process = await answer(both.resource("driver/calls"), order)

    assert in_one_process == over_a_socket


async def answer(desk: Caller, order: dict[str, object]) -> object:
    try:
        return await desk.cancel_order(**order)
    except RemoteError as error:
        return str(error)


def sockets() -> set[str]:
    """Return the sockets that this process has open."""
    found = set[str]()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the list itself
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {link for link in found if link.startswith("socket:")}
