"""Reports that do not get to Sentry are counted and told, whatever ails it."""

from __future__ import annotations

import http.server
import logging
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import attrs
import pytest
import sentry_sdk
import structlog
import trio
import trio.testing
from kernel_sentry import ReportsLost, SentryConfig, SentryDriver

from kernel import Event, Secret
from kernel.testing import fake_context


@attrs.define(eq=False)
class Sentry:
    """A server that answers as it is told."""

    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    port: int = 0
    came: threading.Event = attrs.field(factory=threading.Event)
    goes_on: threading.Event = attrs.field(factory=threading.Event)

    @property
    def dsn(self) -> Secret:
        return Secret(f"http://public@127.0.0.1:{self.port}/1")


@contextmanager
def sentry(*, status: int = 200, hangs: bool = False, **headers: str) -> Iterator[Sentry]:
    one = Sentry(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})
    if not hangs:
        one.goes_on.set()

    class Ingest(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            one.came.set()
            one.goes_on.wait(30)
            try:
                self.send_response(one.status)
                for name, value in one.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()
            except OSError:
                return  # nobody waits for it any more

        def log_message(self, *arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ingest) as server:
        one.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield one
        finally:
            one.goes_on.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@asynccontextmanager
async def opened(dsn: Secret, events: list[Event], *, stop_timeout: float = 30.0) -> AsyncIterator[None]:
    context = fake_context("driver/errors", events=events, stop_timeout=stop_timeout)
    context = attrs.evolve(context, log=structlog.get_logger())
    async with SentryDriver(config=SentryConfig(dsn=dsn), context=context).open():
        yield


async def report(count: int) -> None:
    for number in range(count):
        sentry_sdk.capture_message(f"failure {number}")
        await trio.to_thread.run_sync(sentry_sdk.flush, 30.0)
    await trio.testing.wait_all_tasks_blocked()


def lost(events: list[Event]) -> int:
    return sum(event.count for event in events if isinstance(event, ReportsLost))


def told(logs: list[Any]) -> list[Mapping[str, Any]]:
    return [{name: line[name] for name in ("event", "count", "lost") if name in line} for line in logs]


@pytest.mark.slow
async def test_what_a_stop_does_not_wait_for_is_told(logs: list[Any]) -> None:
    events: list[Event] = []
    with sentry(hangs=True) as away:
        async with opened(away.dsn, events, stop_timeout=0.2):
            for number in range(14):
                sentry_sdk.capture_message(f"failure {number}")

    assert told(logs) == [{"event": "reports_lost", "count": 14}]
    assert "0.12 s" in logs[0]["reason"]
    assert lost(events) == 14


@pytest.mark.slow
async def test_refusals_are_told_once_and_so_is_that_they_are_over(logs: list[Any]) -> None:
    events: list[Event] = []
    with sentry(status=503) as sick:
        async with opened(sick.dsn, events):
            await report(3)
            sick.status = 200
            await report(1)

    assert told(logs) == [{"event": "reports_lost", "count": 1}, {"event": "reports_sent_again", "lost": 2}]
    assert logs[0]["reason"] == "Sentry answered 503"
    assert lost(events) == 3


@pytest.mark.slow
@pytest.mark.parametrize("header", ["retry_after", "x_sentry_rate_limits"])
async def test_a_limited_rate_is_told_in_full(header: str, logs: list[Any]) -> None:
    events: list[Event] = []
    with sentry(status=429, **{header: "3600:error:key" if header.startswith("x") else "3600"}) as strict:
        async with opened(strict.dsn, events):
            await report(5)

    assert told(logs) == [{"event": "reports_lost", "count": 1}, {"event": "reports_lost", "count": 4}]
    assert {line["reason"] for line in logs} == {"Sentry limits the rate"}
    assert lost(events) == 5


@pytest.mark.slow
async def test_a_sentry_that_is_down_is_told_without_the_chatter_of_libraries(
    logs: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []
    with sentry() as gone:
        dsn = gone.dsn
    async with opened(dsn, events):
        await report(2)

    assert lost(events) == 2
    assert logs[0]["reason"] == "Sentry cannot be reached, or does not answer in time"
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


@pytest.mark.slow
async def test_what_a_full_queue_drops_is_counted(logs: list[Any]) -> None:
    events: list[Event] = []
    with sentry(hangs=True) as slow:
        async with opened(slow.dsn, events):
            sentry_sdk.capture_message("first")
            await trio.to_thread.run_sync(slow.came.wait)
            for number in range(150):
                sentry_sdk.capture_message(f"failure {number}")
            await trio.testing.wait_all_tasks_blocked()
            while_full = lost(events)
            slow.goes_on.set()

    assert while_full == 50
    assert lost(events) == 50
    assert told(logs)[-1]["event"] == "reports_sent_again"


async def test_a_stop_that_sends_all_says_nothing(logs: list[Any]) -> None:
    events: list[Event] = []
    with sentry() as well:
        async with opened(well.dsn, events):
            await report(2)

    assert not logs
    assert not lost(events)
