"""The answers as an application below a prefix of a `web` dispatcher, and the dispatcher inside of a whole service."""

from __future__ import annotations

from typing import Any

import httpx
import trio

from kernel import Listening
from kernel.testing import open_kernel

MANIFEST: dict[str, Any] = {
    "kernel": {"name": "test"},
    "dispatchers": {
        "api": {"plugin": "web", "bind": "127.0.0.1:0"},
        "health": {"plugin": "health", "bind": "127.0.0.1:0"},
    },
    "workers": {
        "probes": {
            "use": "kernel_health:HealthApp",
            "dispatcher": "api",
            "options": {"prefix": "/health"},
            "config": {"stall": 5},
        }
    },
}


async def test_both_doors_say_the_same() -> None:
    async with open_kernel(MANIFEST) as running, httpx.AsyncClient() as client:
        api = await running.wait_event(Listening, lambda event: event.component == "dispatcher/api")
        own = await running.wait_event(Listening, lambda event: event.component == "dispatcher/health")
        mounted = [await client.get(f"{api.address}/health/{path}") for path in ("live", "readiness", "status", "x")]
        async with httpx.AsyncClient() as other:
            direct = await other.get(f"{own.address}/status")
        await trio.lowlevel.checkpoint()

    assert [one.status_code for one in mounted] == [200, 200, 200, 404]
    assert mounted[1].text == "ready\n"
    assert mounted[2].json().keys() == direct.json().keys()
    assert direct.json()["components"][0] | {"seconds": 0} == {
        "id": "dispatcher/health",
        "state": "ready",
        "reason": "",
        "seconds": 0,
        "essential": True,
        "restarts": 0,
        "error": "",
        "waits_for": [],
        "in_flight": 0,
        "slots": 10,
        "taken": 0,
        "usage": None,
        "backlog": None,
    }
