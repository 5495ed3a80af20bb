from __future__ import annotations

import os
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from typing import Any

import pytest

MANIFEST = Path(__file__).with_name("kernel.toml")
RPC = {"drivers.rpc.plugin": "rpc_client", "drivers.rpc.driver": "queue", "drivers.rpc.protocol": "json"}


@pytest.fixture(autouse=True, scope="session")
def resource_tracker() -> None:
    """Start the one process that Python keeps beside those that are spawned."""
    ensure_running()


@pytest.mark.slow
async def test_tasks_run_in_the_contexts_that_the_manifest_names(open_kernel: Any, caplog: Any) -> None:
    async with open_kernel(MANIFEST, set=RPC, expected=ValueError) as service:
        for name, payload in (
            ("test", {"name": "tea"}),
            ("test2", {"some_key": "some_value"}),
            ("test2", {"some_key": "x"}),
        ):
            await service.publish("publisher", f"task.{name}", payload)
        pids = [await service.call("rpc", "task.class_method", {}) for _ in range(4)]
        await service.wait_settled(8)

    logged = [record.getMessage() for record in caplog.records if record.name == "tasks"]
    assert sorted(logged) == ["called with some_value", "failed after 2 attempts: {'name': 'tea'}"]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert os.getpid() not in pids
