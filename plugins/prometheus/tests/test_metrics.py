"""What is measured adds up to what happened, is named as Prometheus wants it, and does not grow."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
import prometheus_client
import pytest
import trio
from kernel_prometheus import MetricsConfig
from kernel_prometheus._counting import Counter, Histogram
from kernel_prometheus._families import rendered, scraped
from kernel_prometheus._metrics import Metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from kernel import (
    Ack,
    Backlog,
    ComponentSnapshot,
    CountsAsked,
    DeadLetter,
    DeliveryDone,
    HandlerCalled,
    Listening,
    RequestCounted,
    RequestDone,
    RequestsDone,
    Snapshot,
    State,
    Usage,
    carry,
    handles,
)
from kernel.abc import hearing
from kernel.testing import RunningService, fake_context, open_kernel

OPEN = "application/openmetrics-text; version=1.0.0"
packed = prometheus_client.Counter("test_shop_packed_total", "Orders packed.", ["sku"])


class Worker:
    hanging = trio.Event()

    @handles("fine")
    async def fine(self, payload: object) -> None:
        packed.labels("tea").inc()
        await trio.sleep(0.2)

    @handles("broken")
    async def broken(self, payload: object) -> DeadLetter:
        return DeadLetter("broken")

    @handles("hang")
    async def hang(self, payload: object) -> None:
        Worker.hanging.set()
        await trio.sleep_forever()


class Api:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"four"})


def manifest(**metrics: Any) -> dict[str, Any]:
    common = {"driver": "queue", "protocol": "json"}
    return {
        "kernel": {"name": "test", "drain_timeout": 1.0},
        "drivers": {"queue": {"plugin": "memory"}, "events": {"plugin": "publisher", **common}},
        "dispatchers": {
            "work": {"plugin": "consumer", **common, "queue": "q", "bindings": ["#"], "concurrency": 7},
            "api": {"plugin": "web", "bind": "127.0.0.1:0"},
            "metrics": {"plugin": "prometheus", "bind": "127.0.0.1:0", "handlers": True, **metrics},
        },
        "workers": {
            "w": {"use": f"{__name__}:Worker", "dispatcher": "work"},
            "api": {"use": f"{__name__}:Api", "dispatcher": "api"},
            "mounted": {
                "use": "kernel_prometheus:MetricsApp",
                "dispatcher": "api",
                "options": {"prefix": "/metrics"},
                "config": {"handlers": True},
            },
        },
    }


async def scrape(running: RunningService, accept: str = "", component: str = "metrics", path: str = "/metrics") -> str:
    at = await running.wait_event(Listening, lambda event: event.component == f"dispatcher/{component}")
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{at.address}{path}", headers={"accept": accept})
    assert answer.is_success
    return answer.text


@asynccontextmanager
async def loaded(**metrics: Any) -> AsyncIterator[RunningService]:
    """A service that has done something of everything, and has one handler that hangs."""
    async with open_kernel(manifest(**metrics)) as running:
        for subject in ("fine", "fine", "broken"):
            await running.publish("events", subject, None)
        await running.wait_settled(3)
        Worker.hanging = trio.Event()
        await running.publish("events", "hang", None)
        await scrape(running, component="api", path="/x/created")
        await Worker.hanging.wait()
        yield running


def samples(text: str) -> dict[tuple[str, frozenset[str]], float]:
    """Return name and values of labels -> value."""
    found = {}
    for family in parse(text):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.values())] = sample.value
    return found


def of(text: str, name: str, *labels: str) -> float:
    return samples(text)[name, frozenset(labels)]


async def test_what_is_counted_adds_up_to_what_happened() -> None:
    async with loaded() as running:
        text = await scrape(running)
        mounted = await scrape(running, component="api")

    for where in (text, mounted):
        assert of(where, "kernel_deliveries_total", "dispatcher/work", "worker/w", "ack") == 2
        assert of(where, "kernel_deliveries_total", "dispatcher/work", "worker/w", "dead_letter") == 1
        assert of(where, "kernel_delivery_seconds_count", "dispatcher/work", "worker/w") == 3
        assert of(where, "kernel_requests_total", "dispatcher/api", "worker/api", "GET", "201") == 1
        assert of(where, "kernel_request_bytes_total", "dispatcher/api", "worker/api", "sent") == 4
        assert of(where, "kernel_handler_seconds_count", "worker/w", "fine") == 2
        assert of(where, "kernel_handler_seconds_sum", "worker/w", "fine") >= 0.4
        assert of(where, "kernel_handler_seconds_bucket", "worker/w", "fine", "0.1") == 0
        assert (of(where, "kernel_in_flight", "dispatcher/work"), of(where, "kernel_slots", "dispatcher/work")) == (
            1,
            7,
        )
        assert of(where, "kernel_component_state", "worker/w", "ready") == 1
        assert of(where, "kernel_component_state", "worker/w", "failed") == 0
        assert of(where, "kernel_component_restarts_total", "worker/w") == 0
        assert of(where, "kernel_ready") == 1
        assert of(where, "test_shop_packed_total", "tea") >= 2
        assert of(where, "process_resident_memory_bytes") > 0


async def test_what_it_says_is_what_promtool_and_openmetrics_accept() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool, of the Debian package prometheus")
    async with loaded() as running:
        text, as_open = await scrape(running), await scrape(running, OPEN)
    own = "\n".join(line for line in text.splitlines() if "kernel_" in line) + "\n"

    done = await trio.run_process(
        [promtool, "check", "metrics"], stdin=own.encode(), capture_stdout=True, capture_stderr=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert as_open.endswith("# EOF\n")
    assert list(parse_open(as_open))


@pytest.mark.parametrize("accept", ["", OPEN], ids=["text", "openmetrics"])
async def test_micro_frameworks_dashboards_go_on(accept: str) -> None:
    async with loaded(micro_framework=True) as running:
        text = await scrape(running, accept)
    found = samples(text) if not accept else {}
    parsed = list(parse_open(text)) if accept else []

    if accept:
        assert "task_duration_seconds" in {family.name for family in parsed}
    else:
        route = ("context_test", "Route__w.fine")
        assert found["tasks_number_total", frozenset(route)] == 2
        assert found["task_duration_seconds_count", frozenset(route)] == 2
        assert found["tasks_number", frozenset({"context_test", "Route__w.hang"})] == 1
        assert found["available_workers", frozenset({"context_test"})] < 7 + 1000 + 10
        assert ("service_info", frozenset({"context_test", "1017", "trio"})) in found


def settled(number: int) -> DeliveryDone:
    return DeliveryDone(
        component="dispatcher/d",
        worker="worker/w",
        delivery_id=str(number),
        subject=f"subject.{number}",
        attempt=1,
        outcome=Ack(),
        error=None,
        seconds=0.001,
    )


async def test_ten_thousand_subjects_are_one_series() -> None:
    context = fake_context("dispatcher/metrics")
    metrics = Metrics(context, MetricsConfig())
    with metrics.counting():
        for number in range(10_000):
            context.emit(settled(number))
    await trio.lowlevel.checkpoint()

    assert metrics.deliveries.counts == {("dispatcher/d", "worker/w", "ack"): 10_000}
    assert len(metrics.delivery_times.series) == 1


async def test_what_ends_in_one_turn_is_counted_for_each_worker_though_something_among_it_makes_no_sense() -> None:
    context = fake_context("dispatcher/metrics")
    metrics = Metrics(context, MetricsConfig())
    with metrics.counting():
        for worker in ("a", "b", "a"):
            context.emit(attrs.evolve(settled(1), worker=f"worker/{worker}", queued=0.5))
        context.emit(attrs.evolve(settled(1), component=[], worker="worker/a"))
        await trio.lowlevel.checkpoint()
        context.emit(attrs.evolve(settled(1), worker="worker/b"))
        await trio.lowlevel.checkpoint()

    acks = {labels[1]: count for labels, count in metrics.deliveries.counts.items()}
    assert acks == {"worker/a": 2, "worker/b": 2}
    assert [sum(series.counts) for series in metrics.delivery_times.series.values()] == [2, 2]
    assert [sum(series.counts) for series in metrics.queue_times.series.values()] == [2, 1]
    assert sum(metrics.hook_failures.counts.values()) == 1


async def test_label_values_are_capped_and_methods_known() -> None:
    context = fake_context("dispatcher/metrics")
    metrics = Metrics(context, MetricsConfig(max_series=5))
    request = RequestDone(
        component="dispatcher/api", worker="", method="BREW", path="/", version="1.1", status=0, seconds=0.1,
        received=0, sent=0, client="", request_id="",
    )  # fmt: skip
    with metrics.counting():
        for status in range(100):
            context.emit(attrs.evolve(request, status=status))
    await trio.lowlevel.checkpoint()
    text = rendered(metrics, "")[0].decode()

    assert len(metrics.requests.counts) == 6
    assert sum(metrics.requests.counts.values()) == 100
    assert ("dispatcher/api", "", "other", "0") in metrics.requests.counts
    assert of(text, "kernel_series_capped_total") == 95


async def test_requests_are_counted_once_whoever_tells_of_them() -> None:
    context = fake_context("dispatcher/metrics")
    metrics = Metrics(context, MetricsConfig())
    told = {"worker": "worker/w", "method": "GET", "status": 200, "seconds": 0.1, "received": 3, "sent": 5}
    more = {"path": "/", "version": "1.1", "client": "", "request_id": ""}
    unhashable: Any = ("worker/w", [], 200, 0.1, 3, 5)
    with metrics.counting():
        context.emit(RequestDone(component="dispatcher/other", **told, **more))
        context.emit(RequestCounted(component="dispatcher/api", **told, **more))
        rows = [("worker/w", "GET", 200, 0.1, 3, 5), unhashable, ("worker/w", "GET", 404, 0.1, 1, 1)]
        context.emit(RequestsDone(component="dispatcher/api", requests=rows))

    assert metrics.requests.counts == {
        ("dispatcher/other", "worker/w", "GET", "200"): 1,
        ("dispatcher/api", "worker/w", "GET", "200"): 1,
        ("dispatcher/api", "worker/w", "GET", "404"): 1,
    }
    assert metrics.request_bytes.counts["dispatcher/api", "worker/w", "sent"] == 6
    assert [sum(series.counts) for series in metrics.request_times.series.values()] == [1, 2]
    assert sum(metrics.hook_failures.counts.values()) == 1


async def test_a_scrape_has_counted_what_others_gather() -> None:
    context = fake_context("dispatcher/metrics")
    metrics = Metrics(context, MetricsConfig())
    rows = [("worker/w", "GET", 200, 0.1, 3, 5)]
    gathered = RequestsDone(component="dispatcher/api", requests=rows)
    with metrics.counting(), hearing(context, (lambda _: context.emit(gathered), CountsAsked)):
        text = (await scraped(metrics, ""))[0].decode()

    assert of(text, "kernel_requests_total", "dispatcher/api", "worker/w", "GET", "200") == 1


def test_a_histogram_is_capped_too() -> None:
    histogram = Histogram((1.0,), 2)
    for number in range(10):
        histogram.observe((str(number),), 0.5)

    assert sorted(histogram.series) == [("0",), ("1",), ("other",)]
    assert Counter(1).items() == []


@pytest.mark.parametrize(("flags", "count"), [("01", 1), ("00", 0)], ids=["sampled", "not sampled"])
async def test_a_value_of_a_sampled_trace_is_an_exemplar(flags: str, count: int) -> None:
    def trace(event: object) -> None:
        carry({"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-{flags}"})

    async with open_kernel(manifest()) as running:
        running.kernel.hub.subscribe(trace, HandlerCalled)
        await running.publish("events", "broken", None)
        await running.wait_settled(1)
        text = await scrape(running, OPEN)

    assert text.count(f'# {{trace_id="{"ab" * 16}"}}') == count


async def test_after_its_life_nothing_is_counted() -> None:
    context = fake_context("dispatcher/metrics")
    metrics = Metrics(context, MetricsConfig())
    with metrics.counting():
        pass
    context.emit(settled(1))
    await trio.lowlevel.checkpoint()

    assert metrics.deliveries.counts == {}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"200"),
        (b"HEAD / HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /x HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"\x16\x03\r\n\r\n", b"400"),
        (b"x" * 10_000, b"400"),
    ],
)
async def test_there_is_one_door(request_: bytes, status: bytes) -> None:
    async with open_kernel(manifest()) as running:
        at = await running.wait_event(Listening, lambda event: event.component == "dispatcher/metrics")
        stream = await trio.open_tcp_stream("127.0.0.1", int(at.address.rpartition(":")[2]))
        async with stream:
            await stream.send_all(request_)
            answer = b"".join([part async for part in stream])

    assert answer[9:12] == status


async def test_who_asks_nothing_keeps_no_scraper_out() -> None:
    async with open_kernel(manifest()) as running:
        at = await running.wait_event(Listening, lambda event: event.component == "dispatcher/metrics")
        port = int(at.address.rpartition(":")[2])
        held = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(40)]
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET /metrics HTTP/1.1\r\n\r\n")
        answer = b"".join([part async for part in stream])
        closed = [await one.receive_some() for one in held[:-16]]
        for one in [*held, stream]:
            await one.aclose()

    assert answer[9:12] == b"200"
    assert closed == [b""] * 24


def test_how_connections_are_used_is_measured() -> None:
    snapshot = Snapshot(
        service="shop",
        components=(
            ComponentSnapshot(id="driver/db", state=State.READY, usage=Usage(used=3, idle=1, waiting=2, limit=4)),
            ComponentSnapshot(id="driver/bus", state=State.READY, usage=Usage(used=2)),
            ComponentSnapshot(id="worker/w", state=State.READY),
        ),
    )
    context = attrs.evolve(fake_context("dispatcher/metrics"), snapshot=lambda: snapshot)
    text, _ = rendered(Metrics(context, MetricsConfig()), "")
    found = {(s.name, *s.labels.values()): s.value for family in parse(text.decode()) for s in family.samples}

    assert {labels: value for labels, value in found.items() if labels[0].startswith("kernel_connections")} == {
        ("kernel_connections", "driver/db", "used"): 3,
        ("kernel_connections", "driver/db", "idle"): 1,
        ("kernel_connections", "driver/bus", "used"): 2,
        ("kernel_connections", "driver/bus", "idle"): 0,
        ("kernel_connections_waiting", "driver/db"): 2,
        ("kernel_connections_waiting", "driver/bus"): 0,
        ("kernel_connections_limit", "driver/db"): 4,
    }


def test_what_a_component_has_to_pass_on_is_measured() -> None:
    backlog = Backlog(waiting=7, failed=3, oldest=2.5)
    relay = ComponentSnapshot(id="worker/relay", state=State.DEGRADED, backlog=backlog)
    snapshot = Snapshot(service="shop", components=(relay, ComponentSnapshot(id="worker/w", state=State.READY)))
    context = attrs.evolve(fake_context("dispatcher/metrics"), snapshot=lambda: snapshot)
    text, _ = rendered(Metrics(context, MetricsConfig()), "")
    found = {(s.name, *s.labels.values()): s.value for family in parse(text.decode()) for s in family.samples}

    assert {labels: value for labels, value in found.items() if labels[0].startswith("kernel_backlog")} == {
        ("kernel_backlog", "worker/relay"): 7,
        ("kernel_backlog_failed", "worker/relay"): 3,
        ("kernel_backlog_oldest_seconds", "worker/relay"): 2.5,
    }
