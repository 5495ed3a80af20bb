"""A tap shows what passes, cut and masked, and costs the service what it is allowed to."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from kernel import Ack, Envelope
from kernel._control import client
from kernel._control.client import RefusedError
from kernel._control.tap import Tap

from ._shop import CANARY, looking


async def pack(payload: Any) -> None:
    await trio.lowlevel.checkpoint()
    if payload == "bad":
        raise ValueError("no boxes")


class Delivered:
    attempt = 1

    def __init__(self, body: bytes = b"", **headers: object) -> None:
        self.envelope = Envelope(subject="a.b", body=body, headers=headers)


def shown(body: bytes = b"", characters: int = 200, **headers: object) -> dict[str, Any]:
    tap = Tap(per_second=10, characters=characters)
    tap.take("worker/w", Delivered(body, **headers), Ack(), 0.5)  # type: ignore[arg-type]
    return json.loads(json.dumps(tap._shown(tap._noted.popleft())))


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"password": "hunter22"}).encode(),
        json.dumps([{"deep": {"api_key": "hunter22"}}]).encode(),
        json.dumps({"dsn": "redis://shop:hunter22@cache"}).encode(),
        json.dumps({"Authorization": "Bearer hunter22"}).encode(),
        b"password=hunter22&user=shop",
        b"amqp://shop:hunter22@host",
    ],
)
def test_what_is_called_like_a_password_is_masked(body: bytes) -> None:
    assert "hunter22" not in shown(body)["body"]
    assert "***" in shown(body)["body"]


def test_headers_are_masked_too() -> None:
    headers = shown(authorization="Bearer hunter22", token="hunter22", url="http://a:hunter22@b", order="7")["headers"]

    assert headers == {"authorization": "***", "token": "***", "url": "http://***@b", "order": "7"}


@pytest.mark.parametrize("body", [b"x" * 1_000_000, json.dumps("x" * 1_000_000).encode()])
def test_a_body_is_cut(body: bytes) -> None:
    made = shown(body, characters=10)

    assert len(made["body"]) == 13
    assert made["bytes"] == len(body)


@pytest.mark.parametrize("body", [b"\xff\x00", b"[" * 100_000, b"{", b'"\\ud800"', b"NaN"])
def test_any_body_can_be_shown(body: bytes) -> None:
    assert len(shown(body)["body"]) <= 203


def test_more_than_a_second_is_allowed_are_counted_and_not_kept() -> None:
    tap = Tap(per_second=3, characters=10)
    for _ in range(1000):
        tap.take("worker/w", Delivered(b"x" * 1000), Ack(), 0.0)  # type: ignore[arg-type]

    assert len(tap._noted) == 3
    assert tap._missed == 997


async def test_what_passes_is_told_until_the_client_has_gone(tmp_path: Path) -> None:
    async with looking(tmp_path, pack) as look:

        def listen() -> list[Any]:
            told = []
            for message in client.follow(look.place, "tap", {"dispatcher": "work"}, within=20):
                if "tapped" in message:
                    trio.from_thread.run_sync(tapped.set)
                else:
                    told.append(message)
                if len(told) == 2:
                    break
            return told

        tapped = trio.Event()
        told: list[Any] = []

        async def hear() -> None:
            told.extend(await trio.to_thread.run_sync(listen))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            await tapped.wait()
            with pytest.raises(RefusedError, match="tapped already"):
                await look.ask("tap", dispatcher="work")
            for payload in ({"sku": "tea", "note": CANARY}, {"sku": "coffee"}):
                await look.service.publish("orders", "order.created", payload)
        with trio.fail_after(20):
            while look.service.kernel._tree.taps:  # noqa: ASYNC110  there is nothing to wait for
                await trio.sleep(0.01)
        await look.service.publish("orders", "order.created", 3)
        await look.service.wait_settled(3)

    bodies = sorted((json.loads(one["body"]) for one in told), key=len)  # two handlers end in any order
    assert bodies == [{"sku": "coffee"}, {"sku": "tea", "note": "***"}]
    assert {"subject": "order.created", "outcome": "ack", "attempt": 1, "worker": "worker/packer"}.items() <= told[
        0
    ].items()


async def test_one_tap_may_follow_the_other_at_once(tmp_path: Path) -> None:
    """The first has gone, which the service has yet to notice."""
    async with looking(tmp_path, pack) as look:
        is_tapped, goes = trio.Event(), threading.Event()

        def first() -> None:
            for _ in client.follow(look.place, "tap", {"dispatcher": "work"}, within=20):
                trio.from_thread.run_sync(is_tapped.set)
                goes.wait(20)
                return

        def second() -> object:
            for message in client.follow(look.place, "tap", {"dispatcher": "work"}, within=20):
                return message
            return None

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, first)
            await is_tapped.wait()
            nursery.start_soon(trio.to_thread.run_sync, lambda: goes.wait(0.1) or goes.set())  # when it has been asked
            assert await trio.to_thread.run_sync(second) == {"tapped": "dispatcher/work"}


async def test_a_tap_outlives_a_restart(autojump_clock: Any) -> None:
    from kernel.testing import open_kernel  # noqa: PLC0415

    from ._shop import shop  # noqa: PLC0415

    heard: list[Any] = []
    async with open_kernel(**shop(pack)) as service:
        service.kernel.tap("dispatcher/work", lambda *what: heard.append(what))
        service.kernel.restart("driver/queue")
        await trio.sleep(1)
        await service.publish("orders", "a.b", 1)
        await service.wait_settled(1)

    [(worker, delivery, outcome, seconds)] = heard
    assert (worker, delivery.envelope.subject, type(outcome)) == ("worker/packer", "a.b", Ack)
    assert seconds >= 0


@pytest.mark.parametrize("plugin", ["health", "prometheus"])
async def test_a_dispatcher_that_delivers_no_messages_is_not_tapped(tmp_path: Path, plugin: str) -> None:
    async with looking(tmp_path, pack, dispatchers={"door": {"plugin": plugin, "bind": "127.0.0.1:0"}}) as look:
        with pytest.raises(RefusedError, match="dispatcher/door delivers no messages"):
            await look.ask("tap", dispatcher="door")
        await look.ask("ps")
