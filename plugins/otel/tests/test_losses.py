"""Spans that are not sent are counted and told, whatever ails the collector."""

from __future__ import annotations

import http.server
import logging
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import attrs
import pytest
import structlog
import trio
from kernel_otel import OtelConfig, OtelDriver, SpansLost
from kernel_otel._sending import reason_of
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider

from kernel import Event, Secret
from kernel.errors import StartupError
from kernel.testing import fake_context

KEY = "k3yk3yk3y"


@attrs.define(eq=False)
class Collector:
    """A server of OTLP that answers as it is told, and counts the spans that it took."""

    status: int = 200
    port: int = 0
    taken: int = 0
    came: threading.Event = attrs.field(factory=threading.Event)
    """Something has come, that is, whether or not it is answered."""
    goes_on: threading.Event = attrs.field(factory=threading.Event)
    """Answers are sent."""

    @property
    def url(self) -> Secret:
        return Secret(f"http://127.0.0.1:{self.port}/v1/traces?key={KEY}")

    def answer(self, body: bytes) -> int:
        self.came.set()
        self.goes_on.wait(30)
        status = self.status
        if status == 200:
            request = ExportTraceServiceRequest.FromString(body)
            self.taken += sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
        return status


@contextmanager
def collector(*, status: int = 200, hangs: bool = False) -> Iterator[Collector]:
    one = Collector(status=status)
    if not hangs:
        one.goes_on.set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status = one.answer(self.rfile.read(int(self.headers["content-length"])))
            try:
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()
            except OSError:
                return  # nobody waits for it any more

        def log_message(self, *arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        one.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield one
        finally:
            one.goes_on.set()
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only what is asked for is exported, and no attempt is made twice: that would take a second.
    for name, value in {"BSP_SCHEDULE_DELAY": "600000", "EXPORTER_OTLP_TIMEOUT": "0.3"}.items():
        monkeypatch.setenv(f"OTEL_{name}", value)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@asynccontextmanager
async def opened(
    url: Secret | str, events: list[Event], *, stop_timeout: float = 30.0
) -> AsyncIterator[TracerProvider]:
    context = fake_context("driver/traces", events=events, stop_timeout=stop_timeout)
    context = attrs.evolve(context, log=structlog.get_logger())
    async with OtelDriver(config=OtelConfig(endpoint=url), context=context).open() as provider:
        assert isinstance(provider, TracerProvider)
        yield provider


def end_spans(provider: TracerProvider, count: int) -> None:
    for number in range(count):
        provider.get_tracer("test").start_span(f"span {number}").end()


async def flush(provider: TracerProvider) -> None:
    await trio.to_thread.run_sync(provider.force_flush)
    await trio.testing.wait_all_tasks_blocked()


def lost(events: list[Event]) -> int:
    return sum(event.count for event in events if isinstance(event, SpansLost))


def told(logs: list[Any]) -> list[Mapping[str, Any]]:
    return [{name: line[name] for name in ("event", "count", "lost") if name in line} for line in logs]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (["Failed to export spans batch code: 400, reason: Bad Request"], "400, reason: Bad Request"),
        (["Failed to export spans batch code: None, reason: Read timed out."], "Read timed out."),
        (["Transient error Service Unavailable encountered while exporting"], "Service Unavailable"),
        (["Transient error Max retries exceeded with url: /v1/traces?key=k3y (refused) encountered"], "?... (refused)"),
        (["Failed to export spans batch due to timeout, max retries or shutdown."], "away"),
        ([], "away"),
    ],
)
def test_a_reason_is_what_went_wrong_first_without_keys(said: list[str], reason: str) -> None:
    assert reason in reason_of(said)
    assert "k3y" not in reason_of(said)


@pytest.mark.slow
async def test_what_a_stop_does_not_wait_for_is_told(logs: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []
    with collector(hangs=True) as away:
        async with opened(away.url, events, stop_timeout=0.1) as provider:
            end_spans(provider, 700)

    assert told(logs) == [{"event": "spans_lost", "count": 700}]
    assert "0.06 s" in logs[0]["reason"]
    assert lost(events) == 700
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 429, 503])
async def test_refusals_are_told_once_and_so_is_that_they_are_over(
    status: int, logs: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []
    with collector(status=status) as sick:
        async with opened(sick.url, events) as provider:
            for _ in range(3):
                end_spans(provider, 5)
                await flush(provider)
            sick.status = 200
            end_spans(provider, 5)
            await flush(provider)

    assert told(logs) == [{"event": "spans_lost", "count": 5}, {"event": "spans_sent_again", "lost": 10}]
    assert lost(events) == 15
    assert sick.taken == 5
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


@pytest.mark.slow
async def test_a_collector_that_is_down_costs_spans_that_are_told_without_its_key(
    logs: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []
    with collector() as gone:
        url = gone.url
    async with opened(url.reveal(), events) as provider:
        end_spans(provider, 3)
        await flush(provider)

    [line] = logs
    assert (line["event"], line["count"]) == ("spans_lost", 3)
    assert "the collector" in line["reason"]
    assert KEY not in line["reason"]
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


@pytest.mark.slow
async def test_what_a_full_queue_drops_is_counted(monkeypatch: pytest.MonkeyPatch, logs: list[Any]) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
    events: list[Event] = []
    with collector(hangs=True) as slow:
        async with opened(slow.url, events) as provider:
            end_spans(provider, 2)
            await trio.to_thread.run_sync(slow.came.wait)
            end_spans(provider, 40)
            await trio.testing.wait_all_tasks_blocked()
            while_full = lost(events)
            slow.goes_on.set()

    assert while_full >= 30
    assert slow.taken + lost(events) == 42
    assert told(logs)[0]["event"] == "spans_lost"


async def test_a_stop_that_sends_all_says_nothing(logs: list[Any]) -> None:
    events: list[Event] = []
    with collector() as well:
        async with opened(well.url, events) as provider:
            end_spans(provider, 3)

    assert well.taken == 3
    assert not logs
    assert not lost(events)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://127.0.0.1/s3cr3t"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "5"),
    ],
)
async def test_an_environment_that_cannot_be_is_told_at_the_start(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartupError, match="OTEL_") as caught:
        async with OtelDriver(config=OtelConfig(), context=fake_context("driver/traces")).open():
            pass

    assert "s3cr3t" not in str(caught.value)
