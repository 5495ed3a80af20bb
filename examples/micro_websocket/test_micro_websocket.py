"""The calls over a websocket: by its own client when the timer ticks, and as micro-framework writes them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from trio_websocket import open_websocket_url

from kernel.testing import RunningService, free_port

MANIFEST = Path(__file__).with_name("kernel.toml")
TASK = {
    "target": "websocket_task",
    "args": ["arg1", "arg2"],
    "kwargs": [],
    "docstring": "Return both, as one text.",
}
pytestmark = pytest.mark.slow


@asynccontextmanager
async def running(open_kernel: Any, interval: float = 60.0) -> AsyncGenerator[tuple[RunningService, str]]:
    port = free_port()
    url = f"ws://127.0.0.1:{port}/"
    changed = {
        "dispatchers.rpc.port": port,
        "drivers.rpc.url": url,
        "dispatchers.every_ten_seconds.interval": interval,
    }
    async with open_kernel(MANIFEST, set=changed) as service:
        yield service, url


async def test_the_caller_calls_when_the_timer_ticks(open_kernel: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="websocket_tasks")
    async with running(open_kernel, interval=0.2) as (service, _):
        await service.wait_settled(matching=lambda event: event.component == "dispatcher/every_ten_seconds")

    texts = [record.getMessage() for record in caplog.records if record.name == "websocket_tasks"]
    assert texts[0] == f"there are {[TASK]}"
    assert {text for text in texts if "answer" in text} >= {
        "the answer is argument1 - argument2",
        "the answer is argument3 - argument4",
    }


@pytest.mark.parametrize(
    ("command", "args", "data", "error"),
    [
        ("websocket_task", ["a", "b"], "a - b", None),
        ("__list_targets__", [], [TASK], None),
        ("__get_target__", ["websocket_task"], TASK, None),
        ("other", [], None, "RPCTargetDoesNotExist"),
        ("websocket_task", ["a"], None, "TypeError"),
    ],
)
async def test_a_text_of_micro_framework_is_answered_as_it_answers(
    open_kernel: Any, command: str, args: list[str], data: object, error: str | None
) -> None:
    async with running(open_kernel) as (_, url), open_websocket_url(url) as websocket:
        await websocket.send_message(json.dumps({"command": command, "command_args": args, "command_kwargs": {}}))
        answer: dict[str, Any] = json.loads(await websocket.get_message())

    assert answer["data"] == data
    assert (answer["exception"]["exception"] if answer["exception"] else None) == error
