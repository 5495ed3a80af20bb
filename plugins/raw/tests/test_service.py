"""Shiva's `JSON_UnroutedALL` through a service: the bytes of each message go to every worker."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from kernel import handles
from kernel.errors import RemoteError

SEEN: list[tuple[str, object]] = []


class Archive:
    @handles("#")
    async def keep(self, body: bytes) -> None:
        await trio.lowlevel.checkpoint()
        SEEN.append(("archive", body))


@handles("#")
async def count(body: bytes) -> None:
    await trio.lowlevel.checkpoint()
    SEEN.append(("count", body))


@handles("image.turn")
async def turn(body: bytes) -> bytes:
    await trio.lowlevel.checkpoint()
    if not body:
        raise ValueError("there is nothing to turn")
    return body[::-1]


def user(plugin: str, **more: object) -> dict[str, object]:
    return {"plugin": plugin, "driver": "queue", "protocol": "raw", **more}


MANIFEST = {
    "drivers": {"queue": {"plugin": "memory"}, "events": user("publisher"), "rpc": user("rpc_client")},
    "dispatchers": {
        "incoming": user("consumer", queue="incoming", bindings=["any.thing"], fan_out=True),
        "images": user("consumer", queue="images", bindings=["image.*"]),
    },
    "workers": {
        "archive": {"use": f"{__name__}:Archive", "dispatcher": "incoming"},
        "count": {"use": f"{__name__}:count", "dispatcher": "incoming"},
        "turn": {"use": f"{__name__}:turn", "dispatcher": "images"},
    },
}


async def test_every_worker_gets_the_bytes(open_kernel: Any) -> None:
    SEEN.clear()
    async with open_kernel(MANIFEST) as service:
        await service.publish("events", "any.thing", b"\xff{")
        await service.wait_settled()

    assert sorted(SEEN) == [("archive", b"\xff{"), ("count", b"\xff{")]


async def test_bytes_are_answered_with_bytes_and_errors_in_headers(open_kernel: Any) -> None:
    async with open_kernel(MANIFEST) as service:
        assert await service.call("rpc", "image.turn", b"\x00\xff") == b"\xff\x00"
        with pytest.raises(RemoteError, match="ValueError: there is nothing to turn"):
            await service.call("rpc", "image.turn", b"")
