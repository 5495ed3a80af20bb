"""The truth table: what `/live` and `/ready` say of a service in each of its conditions."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import attrs
import pytest
import trio
from kernel_health import TruthConfig
from kernel_health._truth import answer
from typing_extensions import override

from kernel import Snapshot, handles
from kernel.abc import Context, Driver, NoConfig
from kernel.testing import open_kernel

OK, NO = HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE
LAX = TruthConfig()
STRICT = TruthConfig(degraded_is_ready=False)


class Stuck(Driver[object]):
    """Never opens."""

    def __init__(self, *, config: NoConfig, context: Context) -> None: ...

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[object]:
        await trio.sleep_forever()
        yield self


class Lost(Driver[object]):
    """Has lost its connection."""

    def __init__(self, *, config: NoConfig, context: Context) -> None:
        self.context = context

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[object]:
        await trio.lowlevel.checkpoint()
        self.context.report_degraded("the connection is lost")
        yield self


class Waiting:
    """Goes on for ever."""

    async def run(self) -> None:
        await trio.sleep_forever()


class Failing:
    """Fails a second after each start."""

    async def run(self) -> None:
        await trio.sleep(1)
        raise ValueError("broken")


class Handler:
    """Fails, or hangs, as it is told."""

    @handles("fail")
    async def fail(self, payload: object) -> None:
        raise ValueError("broken")

    @handles("hang")
    async def hang(self, payload: object) -> None:
        await trio.sleep(5)


def service(**tables: Any) -> dict[str, Any]:
    return {"kernel": {"name": "test", "drain_timeout": 10.0, "grace_period": 30.0}, **tables}


def messaging(**worker: Any) -> dict[str, Any]:
    return service(
        drivers={
            "queue": {"plugin": "memory"},
            "events": {"plugin": "publisher", "driver": "queue", "protocol": "json"},
        },
        dispatchers={
            "work": {"plugin": "consumer", "driver": "queue", "protocol": "json", "queue": "q", "bindings": ["#"]}
        },
        workers={"handler": {"use": f"{__name__}:Handler", "dispatcher": "work", **worker}},
    )


def says(snapshot: Snapshot, config: TruthConfig = LAX) -> tuple[HTTPStatus, HTTPStatus, str]:
    live, ready = (answer("GET", path, snapshot, config) for path in ("/live", "/ready"))
    return live.status, ready.status, ready.body.decode()


async def test_a_service_that_waits_for_a_blocked_driver_is_live_and_not_ready(autojump_clock: object) -> None:
    manifest = service(
        drivers={"db": {"use": f"{__name__}:Stuck"}},
        workers={"user": {"use": f"{__name__}:Failing", "depends": ["db"]}},
    )
    async with open_kernel(manifest, ready=False) as running:
        await trio.sleep(1)
        live, ready, text = says(running.kernel.snapshot())
        await running.stop()

    assert (live, ready) == (OK, NO)
    assert text == "not ready\ndriver/db is starting\nworker/user is created, waits for driver/db\n"


async def test_a_service_that_restarts_a_worker_is_live_and_not_ready(autojump_clock: object) -> None:
    manifest = service(workers={"w": {"use": f"{__name__}:Failing"}})
    async with open_kernel(manifest, expected=ValueError) as running:
        before = says(running.kernel.snapshot())
        await trio.sleep(1.1)
        while_down = says(running.kernel.snapshot())
        status = json.loads(answer("GET", "/status", running.kernel.snapshot(), TruthConfig()).body)

    assert before[:2] == (OK, OK)
    assert while_down[:2] == (OK, NO)
    assert "worker/w is backoff: restart in " in while_down[2]
    assert while_down[2].endswith(", after ValueError: broken\n")
    assert status["components"][0]["error"] == "ValueError: broken"


@pytest.mark.parametrize(("config", "ready"), [(TruthConfig(), OK), (STRICT, NO)])
async def test_whether_a_degraded_driver_is_ready_is_the_manifests_to_say(
    config: TruthConfig, ready: HTTPStatus, autojump_clock: object
) -> None:
    async with open_kernel(
        service(drivers={"db": {"use": f"{__name__}:Lost"}}, workers={"w": {"use": f"{__name__}:Failing"}})
    ) as running:
        said = says(running.kernel.snapshot(), config)

    assert said[:2] == (OK, ready)


@pytest.mark.parametrize(("seconds", "ready"), [(0.0, OK), (299.0, OK), (302.0, NO)])
async def test_a_driver_that_is_degraded_for_long_makes_the_service_not_ready(
    seconds: float, ready: HTTPStatus, autojump_clock: object
) -> None:
    async with open_kernel(
        service(drivers={"db": {"use": f"{__name__}:Lost"}}, workers={"w": {"use": f"{__name__}:Waiting"}})
    ) as running:
        await trio.sleep(seconds)
        said = says(running.kernel.snapshot())

    assert said[:2] == (OK, ready)
    assert ("driver/db is degraded for 302 s, more than degraded_timeout: the connection is lost" in said[2]) == (
        ready is NO
    )


async def test_a_driver_that_is_not_essential_may_be_degraded_for_ever(autojump_clock: object) -> None:
    drivers = {"db": {"use": f"{__name__}:Lost", "essential": False}}
    async with open_kernel(service(drivers=drivers, workers={"w": {"use": f"{__name__}:Waiting"}})) as running:
        await trio.sleep(3600)
        said = says(running.kernel.snapshot())

    assert said[:2] == (OK, OK)


async def test_a_paused_worker_is_degraded(autojump_clock: object) -> None:
    manifest = messaging(kill_switch={"minimum": 2, "pause": 100.0}, retry={"attempts": 1})
    async with open_kernel(manifest, expected=ValueError) as running:
        for _ in range(3):
            await running.publish("events", "fail", None)
        await trio.sleep(1)
        lax, strict = says(running.kernel.snapshot()), says(running.kernel.snapshot(), STRICT)

    assert (lax[:2], strict[:2]) == ((OK, OK), (OK, NO))
    assert "worker/handler is degraded: paused" in strict[2]


async def test_a_handler_that_hangs_keeps_nobody_from_being_ready(autojump_clock: object) -> None:
    async with open_kernel(messaging()) as running:
        await running.publish("events", "hang", None)
        await trio.sleep(1)
        seen = running.kernel.snapshot()

    assert says(seen)[:2] == (OK, OK)
    assert [one.in_flight for one in seen.components if one.id == "dispatcher/work"] == [1]


async def test_a_service_that_drains_is_live_and_not_ready(autojump_clock: object) -> None:
    async with open_kernel(messaging()) as running:
        await running.publish("events", "hang", None)
        await trio.sleep(1)
        running.kernel.request_stop("SIGTERM")
        at_once = says(running.kernel.snapshot())
        await trio.sleep(1)
        later = says(running.kernel.snapshot())

    assert at_once[:2] == later[:2] == (OK, NO)
    assert at_once[2].startswith("not ready\nstopping: SIGTERM\n")


BLOCKED = Snapshot(service="test", busy=3.0, blocked_at="shop.py:7")


@pytest.mark.parametrize(("busy", "live"), [(3.0, OK), (10.5, NO)])
def test_a_blocked_loop_is_not_ready_and_after_a_while_not_live(busy: float, live: HTTPStatus) -> None:
    said = says(attrs.evolve(BLOCKED, busy=busy))

    assert said == (live, NO, f"not ready\nthe event loop is blocked for {busy} s at shop.py:7\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/liveness", 200),
        ("GET", "/readiness", 503),
        ("HEAD", "/live", 200),
        ("POST", "/live", 405),
        ("GET", "/", 404),
        ("GET", "/live/", 404),
    ],
)
def test_there_are_these_paths(method: str, path: str, status: int) -> None:
    assert answer(method, path, Snapshot(service="test"), TruthConfig()).status == status
