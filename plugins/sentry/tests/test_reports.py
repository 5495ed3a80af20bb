"""What fails arrives at Sentry, over the wire, with what it belongs to and without secrets."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import httpx
import pytest
import sentry_sdk
import trio
import trio.lowlevel
from kernel_sentry import SentryConfig, SentryDriver

from kernel import Listening, Secret, handles
from kernel.errors import StartupError
from kernel.testing import RunningService, fake_context, open_kernel

SECRET = "yellow-feathers"


@attrs.frozen
class Settings:
    token: Secret


class Handlers:
    @handles("raises")
    async def raises(self, payload: object) -> None:
        sentry_sdk.set_tag("own", str(payload))
        sentry_sdk.add_breadcrumb(message=f"crumb {payload} {SECRET}")
        await trio.lowlevel.checkpoint()
        raise ValueError(f"broken {payload} {SECRET}")

    @handles("group")
    async def group(self, payload: object) -> None:
        raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])


@pytest.mark.parametrize(
    "dsn", ["canary", "https://host/1", "https://canary@host", "ftp://canary@host/1", "https://@/1"]
)
def test_a_dsn_that_is_none_is_told_before_the_start_and_not_shown(dsn: str) -> None:
    [problem] = SentryDriver.check(SentryConfig(dsn=Secret(dsn)))

    assert problem == "dsn must be as Sentry shows it: https://KEY@HOST/PROJECT"


@pytest.mark.parametrize("dsn", ["https://key@host/1", "http://key:secret@127.0.0.1:9000/path/1", None])
def test_a_dsn_is_one(dsn: str | None) -> None:
    assert not list(SentryDriver.check(SentryConfig(dsn=None if dsn is None else Secret(dsn))))


class Holder:
    def __init__(self, config: Settings) -> None: ...

    async def run(self) -> None:
        await trio.sleep_forever()


class Batches:
    @handles("#")
    async def many(self, payloads: list[object]) -> None:
        raise ValueError("broken")


class Api:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        raise RuntimeError(f"no {SECRET}")


class Failing:
    async def run(self) -> None:
        raise ValueError(f"worker {SECRET}")


@contextmanager
def sentry() -> Iterator[tuple[str, list[dict[str, Any]], list[bytes]]]:
    """Be Sentry: return a DSN, the events that have come, and all bytes."""
    events: list[dict[str, Any]] = []
    raw: list[bytes] = []

    class Ingest(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            raw.append(body)
            _, *rest = body.split(b"\n")
            for head, item in zip(rest[::2], rest[1::2], strict=False):
                if json.loads(head).get("type") == "event":
                    events.append(json.loads(item))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ingest) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://public@127.0.0.1:{server.server_port}/1", events, raw
        finally:
            server.shutdown()
            thread.join()


def manifest(use: str = "Handlers", dispatcher: dict[str, Any] | None = None, **errors: Any) -> dict[str, Any]:
    common = {"driver": "queue", "protocol": "json"}
    return {
        "kernel": {"name": "shop"},
        "drivers": {
            "queue": {"plugin": "memory"},
            "events": {"plugin": "publisher", **common},
            "errors": {"plugin": "sentry", "dsn": {"env": "DSN"}, "stop_timeout": 5.0, **errors},
        },
        "dispatchers": {
            "work": {"plugin": "consumer", **common, "queue": "q", "bindings": ["#"], **(dispatcher or {})}
        },
        "workers": {
            "w": {"use": f"{__name__}:{use}", "dispatcher": "work", "retry": {"attempts": 1}},
            "holder": {"use": f"{__name__}:Holder", "config": {"token": {"env": "CANARY"}}},
        },
    }


def opened(manifest: dict[str, Any], dsn: str) -> Any:
    tables = manifest | {"kernel": manifest["kernel"] | {"grace_period": 60.0}}
    return open_kernel(tables, environ={"DSN": dsn, "CANARY": SECRET}, expected=Exception)


def texts(event: dict[str, Any]) -> list[str]:
    return [one["value"].splitlines()[0] for one in event["exception"]["values"]]


async def publish(running: RunningService, subject: str, count: int = 1) -> None:
    for number in range(count):
        await running.publish("events", subject, number)
    await running.wait_settled(count)


async def test_a_failed_delivery_is_reported_with_a_scope_of_its_own() -> None:
    with sentry() as (dsn, events, raw):
        tables = manifest(environment="test", release="shop@1")
        async with opened(tables, dsn) as running:
            await publish(running, "raises", 3)

    assert sorted(event["tags"]["own"] for event in events) == ["0", "1", "2"]
    for event in events:
        number = event["tags"]["own"]
        tags = event["tags"]
        assert (tags["component"], tags["worker"], tags["subject"]) == ("dispatcher/work", "worker/w", "raises")
        assert (tags["outcome"], tags["attempt"], event["level"]) == ("DeadLetter", "1", "error")
        assert (event["environment"], event["release"]) == ("test", "shop@1")
        crumbs = [one["message"] for one in event["breadcrumbs"]["values"]]
        assert [one.split()[1] for one in crumbs if one.startswith("crumb")] == [number]
    assert raw


async def test_nothing_of_a_secret_leaves() -> None:
    with sentry() as (dsn, events, raw):
        async with opened(manifest(), dsn) as running:
            await publish(running, "raises")

    assert texts(events[0]) == ["broken 0 ***"]
    assert SECRET.encode() not in b"".join(raw)


async def test_a_group_is_reported_whole() -> None:
    with sentry() as (dsn, events, _):
        async with opened(manifest(), dsn) as running:
            await publish(running, "group")

    assert {"one", "'two'"} <= set(texts(events[0]))


async def test_a_failure_of_a_batch_is_reported_once() -> None:
    with sentry() as (dsn, events, _):
        async with opened(manifest("Batches", {"batch": {"size": 3, "wait": 5.0}}), dsn) as running:
            await publish(running, "x", 3)

    assert [texts(event) for event in events] == [["broken"]]


@pytest.mark.parametrize(("retries", "levels"), [(True, ["warning", "error"]), (False, ["error"])])
async def test_attempts_are_warnings_or_not_reported(retries: bool, levels: list[str], autojump_clock: object) -> None:
    with sentry() as (dsn, events, _):
        tables = manifest(retries=retries)
        tables["workers"]["w"]["retry"] = {"attempts": 2}
        async with opened(tables, dsn) as running:
            await publish(running, "raises")
            await running.wait_settled(2)
            await trio.to_thread.run_sync(sentry_sdk.flush, 5.0)

    assert [event["level"] for event in events] == levels


async def test_a_failed_request_and_a_failed_worker_are_reported() -> None:
    with sentry() as (dsn, events, _):
        tables = manifest()
        tables["dispatchers"]["api"] = {"plugin": "web", "bind": "127.0.0.1:0"}
        tables["workers"]["api"] = {"use": f"{__name__}:Api", "dispatcher": "api"}
        tables["workers"]["run"] = {"use": f"{__name__}:Failing", "essential": False, "restart": {"policy": "never"}}
        async with opened(tables, dsn) as running:
            at = await running.wait_event(Listening)
            async with httpx.AsyncClient() as client:
                answer = await client.get(f"{at.address}/orders/7?token=x")

    by = {event["tags"].get("worker", event["tags"]["component"]): event for event in events}
    assert answer.status_code == 500
    assert by["worker/api"]["tags"]["path"] == "/orders/7"
    assert texts(by["worker/api"]) == ["no ***"]
    assert by["worker/run"]["level"] in {"fatal", "error"}


async def test_without_a_dsn_nothing_is_sent_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENTRY_DSN", raising=False)
    tables = manifest()
    del tables["drivers"]["errors"]["dsn"]
    async with opened(tables, "x") as running:
        await publish(running, "raises")

    assert not sentry_sdk.get_client().is_active()


@pytest.mark.parametrize("dsn", ["canary", "https://canary@host:port/1"])
async def test_a_variable_that_is_no_dsn_is_told_at_the_start_and_not_shown(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTRY_DSN", dsn)
    with pytest.raises(StartupError, match="SENTRY_DSN") as caught:
        async with SentryDriver(config=SentryConfig(), context=fake_context("driver/errors")).open():
            pass

    assert "canary" not in str(caught.value)


async def test_a_sentry_that_is_away_holds_up_nothing() -> None:
    config = SentryConfig(dsn=Secret("http://key@127.0.0.1:9/1"))
    driver = SentryDriver(config=config, context=fake_context("driver/errors", stop_timeout=0.5))
    async with driver.open():
        sentry_sdk.capture_message("lost")
        began = trio.current_time()

    assert trio.current_time() - began < 2
