"""What is said of a delivery while it is handled, and of who took it when it failed."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
import structlog
import trio

from kernel import DeadLetter, DeliverySettled, current_delivery, handles
from kernel._log.capture import capture
from kernel._log.levels import Levels
from kernel._log.log import Log, LogSettings
from kernel._log.sinks import Stream
from kernel._manifest.registry import Registry, discover
from kernel.testing import OpenKernel, open_kernel

BROKER = {"driver": "queue", "protocol": "json"}
ONCE = {"attempts": 1}


def service(*, fan_out: bool = False, **workers: tuple[type[object], dict[str, Any]]) -> dict[str, Any]:
    tables = {
        "drivers": {"queue": {"plugin": "memory"}, "orders": {"plugin": "publisher", **BROKER}},
        "dispatchers": {
            "work": {"plugin": "consumer", "queue": "work", "bindings": ["#"], "fan_out": fan_out, **BROKER}
        },
        "workers": {name: {"use": name, **table} for name, (_, table) in workers.items()},
    }
    given = Registry.of({"workers": {name: cls for name, (cls, _) in workers.items()}})
    return {"manifest": tables, "registry": Registry((*discover().plugins, *given.plugins))}


class Says:
    """Logs in every way from everywhere below a handler."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger, std: logging.Logger) -> None:
        self.log = log
        self.std = std

    @handles("#")
    async def on(self, payload: Any) -> None:
        self.log.info("own")
        self.std.info("own")
        structlog.get_logger().info("structlog")
        logging.getLogger("shop").info("logging")
        await trio.to_thread.run_sync(lambda: logging.getLogger("shop").info("thread"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._in_a_task)

    async def _in_a_task(self) -> None:
        await trio.lowlevel.checkpoint()
        structlog.get_logger().info("task")


async def test_what_is_logged_in_a_handler_says_who_handles_what() -> None:
    stream = io.StringIO()
    log = Log(LogSettings(sink=Stream(stream), as_json=True, levels=Levels()))
    tables = service(says=(Says, {"dispatcher": "work"}))
    with capture(log):
        logging.getLogger().handlers[:] = logging.getLogger().handlers[-1:]
        async with open_kernel(**tables) as kernel:
            await kernel.publish("orders", "a.b", 1)
            [done] = await kernel.wait_settled()
            structlog.get_logger().info("outside")

    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    inside = [record for record in records if record["event"] != "outside"]
    assert sorted(record["event"] for record in inside) == ["logging", "own", "structlog", "task", "thread"]
    for record in inside:
        assert (record["worker"], record["delivery"], record["attempt"]) == ("worker/says", done.delivery_id, 1)
    assert "worker" not in records[-1]


async def test_the_kernels_own_logger_says_it_too() -> None:
    said: list[dict[str, Any]] = []

    class Notes:
        @handles("#")
        async def on(self, payload: Any) -> None:
            stream = io.StringIO()
            Log(LogSettings(sink=Stream(stream), as_json=True)).logger().info("x")
            said.append(json.loads(stream.getvalue()))
            delivery = current_delivery()
            assert delivery is not None
            said.append({"id": delivery.envelope.id})

    async with open_kernel(**service(notes=(Notes, {"dispatcher": "work"}))) as kernel:
        await kernel.publish("orders", "a.b", 1)
        await kernel.wait_settled()

    assert (said[0]["worker"], said[0]["delivery"]) == ("worker/notes", said[1]["id"])


# --- failure workers --------------------------------------------------------------------------------------------------


class Fails:
    @handles("#")
    async def on(self, payload: Any) -> None:
        raise ValueError("why")


class Rescue:
    @handles("#")
    async def on(self, failure: Any) -> None:
        if failure.payload == "hopeless":
            raise OSError("no rescue")


class Fine:
    @handles("#")
    async def on(self, payload: Any) -> None: ...


FAILS = (Fails, {"dispatcher": "work", "retry": ONCE, "failure_worker": "rescue"})


async def settled(kernel: OpenKernel, payload: object) -> DeliverySettled:
    await kernel.publish("orders", "a.b", payload)
    [event] = await kernel.wait_settled()
    return event


@pytest.mark.parametrize("fan_out", [False, True])
async def test_what_a_failure_worker_took_is_told_with_its_name(fan_out: bool) -> None:
    others = {"fine": (Fine, {"dispatcher": "work"})} if fan_out else {}
    tables = service(fan_out=fan_out, fails=FAILS, rescue=(Rescue, {}), **others)
    async with open_kernel(**tables, expected=(ValueError, OSError)) as kernel:
        event = await settled(kernel, 1)

    assert event.failure_worker == "worker/rescue"
    assert isinstance(event.error, ValueError)


async def test_what_a_failure_worker_failed_at_was_taken_by_nobody() -> None:
    async with open_kernel(**service(fails=FAILS, rescue=(Rescue, {})), expected=(ValueError, OSError)) as kernel:
        event = await settled(kernel, "hopeless")

    assert event.failure_worker == ""
    assert isinstance(event.outcome, DeadLetter)
