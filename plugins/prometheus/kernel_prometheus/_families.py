"""What has been counted, and what a snapshot says, as families of prometheus-client. May run in any thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, final

import attrs
import trio
from prometheus_client import REGISTRY
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Exemplar

import kernel
from kernel import State

from ._counting import Counter, Histogram, Labels, Series
from ._together import merged, told

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from kernel import Snapshot

    from ._metrics import Metrics

_STATES: Final = tuple(State)


async def scraped(metrics: Metrics, accept: str) -> tuple[bytes, str]:
    """Return what a scrape gets, and its content type; a thread writes it.

    Cancellation: Is a checkpoint.
    """
    metrics.count_all()
    return await trio.to_thread.run_sync(rendered, metrics, accept)


def rendered(metrics: Metrics, accept: str) -> tuple[bytes, str]:
    """Return what a scrape gets, and its content type: OpenMetrics if that is accepted.

    It waits for a second at most, for other processes of the service that do not tell.
    """
    encoder, content_type = choose_encoder(accept)
    is_open, context = "openmetrics" in content_type, metrics.context
    if context.crew.size == 1:
        return encoder(_Everything(metrics, is_open=is_open)), content_type
    return encoder(_OfAll(context.crew.collect(_offered(context.id, is_open=is_open)))), content_type


def offer(metrics: Metrics) -> Callable[[], None]:
    """Have the other processes of the service told what this one measures, if there are any; return what ends it."""
    context = metrics.context
    ends = [
        context.crew.offer(_offered(context.id, is_open=is_open), partial(_told, _Everything(metrics, is_open=is_open)))
        for is_open in (False, True)
    ]

    def end() -> None:
        for one in ends:
            one()

    return end


def _offered(component: str, *, is_open: bool) -> str:
    return f"{component} as OpenMetrics" if is_open else component


def _told(everything: _Everything) -> str:
    return told(everything.collect())


@final
@attrs.frozen(eq=False, repr=False)
class _OfAll:
    """What all processes measure, as a registry is read."""

    texts: Mapping[int, str]

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        return merged(self.texts)


@final
@attrs.frozen(eq=False, repr=False)
class _Everything:
    """What the user, prometheus-client and the kernel measure, as a registry is read."""

    metrics: Metrics
    is_open: bool

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        yield from REGISTRY.collect()
        yield from families(self.metrics)
        if self.metrics.config.micro_framework:
            yield from as_micro_framework(self.metrics, is_open=self.is_open)


def families(metrics: Metrics) -> Iterator[Metric]:
    """Yield what the kernel measures."""
    snapshot = metrics.context.snapshot()
    yield InfoMetricFamily("kernel", "The service.", {"service": snapshot.service, "version": kernel.__version__})
    yield from _of_events(metrics)
    yield from _of_snapshot(snapshot)
    yield from _of_backlogs(snapshot)
    yield _histogram(
        "kernel_loop_turn_seconds",
        "Time of each turn of the event loop.",
        (),
        metrics.turns.bounds,
        [((), metrics.turns.series)],
    )
    yield _counter(
        "kernel_loop_stalls", "Turns of the event loop of more than half a second.", (), metrics.stalls, zero=()
    )
    yield CounterMetricFamily(
        "kernel_series_capped", "Times that a metric had no room for label values.", metrics.capped
    )


def _of_events(metrics: Metrics) -> Iterator[Metric]:
    where, by = ("dispatcher", "worker"), metrics
    yield _counter("kernel_deliveries", "Deliveries settled.", (*where, "outcome"), by.deliveries)
    yield _times("kernel_delivery_seconds", "From taken to settled.", where, by.delivery_times)
    yield _times("kernel_queue_seconds", "From sent to taken, of first attempts.", where, by.queue_times)
    if by.config.handlers:
        yield _times("kernel_handler_seconds", "Time in handlers.", ("worker", "method"), by.handler_times)
    yield _counter("kernel_settle_failures", "Outcomes that the source did not take.", ("dispatcher",), by.unsettled)
    yield _counter("kernel_deliveries_revoked", "Deliveries that nobody waited for.", ("dispatcher",), by.revoked)
    yield _counter("kernel_requests", "Requests answered.", (*where, "method", "status"), by.requests)
    yield _times("kernel_request_seconds", "From the head of a request to its end.", where, by.request_times)
    yield _counter("kernel_request_bytes", "Bytes of bodies.", (*where, "direction"), by.request_bytes)
    yield _counter(
        "kernel_hook_failures", "Hooks that raised: their 1st, 10th, 100th time.", ("hook",), by.hook_failures
    )


def _of_snapshot(snapshot: Snapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily("kernel_ready", "Whether work may be sent.", float(snapshot.is_ready))
    yield GaugeMetricFamily("kernel_stopping", "Whether it was told to stop.", float(snapshot.is_stopping))
    yield GaugeMetricFamily("kernel_loop_busy_seconds", "Time that the present turn has taken.", snapshot.busy)
    in_flight = GaugeMetricFamily("kernel_in_flight", "Taken and not settled.", labels=["dispatcher"])
    slots = GaugeMetricFamily("kernel_slots", "How many may be in flight.", labels=["dispatcher"])
    states = GaugeMetricFamily(
        "kernel_component_state", "1 for the state that it is in.", labels=["component", "state"]
    )
    restarts = CounterMetricFamily("kernel_component_restarts", "Starts but the first.", labels=["component"])
    connections = GaugeMetricFamily(
        "kernel_connections", "Connections, or places, of a driver.", labels=["component", "state"]
    )
    waiting = GaugeMetricFamily("kernel_connections_waiting", "Tasks that wait for one.", labels=["component"])
    limits = GaugeMetricFamily("kernel_connections_limit", "How many there may be.", labels=["component"])
    for one in snapshot.components:
        if one.usage is not None:
            connections.add_metric([one.id, "used"], one.usage.used)
            connections.add_metric([one.id, "idle"], one.usage.idle)
            waiting.add_metric([one.id], one.usage.waiting)
            if one.usage.limit is not None:
                limits.add_metric([one.id], one.usage.limit)
        if one.in_flight is not None and one.slots is not None:
            in_flight.add_metric([one.id], one.in_flight)
            slots.add_metric([one.id], one.slots)
        for state in _STATES:
            states.add_metric([one.id, state.value], float(one.state is state))
        restarts.add_metric([one.id], one.restarts)
    yield from (in_flight, slots, states, restarts, connections, waiting, limits)


def _of_backlogs(snapshot: Snapshot) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("kernel_backlog", "Messages that wait to be passed on.", labels=["component"])
    failed = GaugeMetricFamily("kernel_backlog_failed", "Those that were tried, and not taken.", labels=["component"])
    oldest = GaugeMetricFamily("kernel_backlog_oldest_seconds", "For how long the oldest waits.", labels=["component"])
    for one in snapshot.components:
        if one.backlog is not None:
            waiting.add_metric([one.id], one.backlog.waiting)
            failed.add_metric([one.id], one.backlog.failed)
            oldest.add_metric([one.id], one.backlog.oldest)
    yield from (waiting, failed, oldest)


def as_micro_framework(metrics: Metrics, *, is_open: bool) -> Iterator[Metric]:
    """Yield what micro-framework called by other names; a worker and its method are the route.

    Its gauge and its counter of tasks have one name, which OpenMetrics does not allow: there, the gauge is left out.
    """
    snapshot = metrics.context.snapshot()
    context, labels = f"context_{snapshot.service}", ["context", "route"]
    if not is_open:
        running = GaugeMetricFamily("tasks_number", "Tasks that run.", labels=labels)
        for (worker, method), count in metrics.running.items():
            running.add_metric([context, _route(worker, method)], count)
        yield running
    done = CounterMetricFamily("tasks_number", "Tasks that have ended.", labels=labels)
    took = SummaryMetricFamily("task_duration_seconds", "Time of tasks.", labels=labels)
    for (worker, method), series in metrics.handler_times.items():
        route = [context, _route(worker, method)]
        done.add_metric(route, sum(series.counts))
        took.add_metric(route, sum(series.counts), series.total)
    failed = CounterMetricFamily("failed_tasks", "Tasks that have failed.", labels=labels)
    for (worker, method), count in metrics.failed.items():
        failed.add_metric([context, _route(worker, method)], count)
    slots = sum(one.slots or 0 for one in snapshot.components)
    free = slots - sum(one.in_flight or 0 for one in snapshot.components)
    info = GaugeMetricFamily("service_info", "The service.", labels=["context", "max_workers", "worker_mode"])
    info.add_metric([context, str(slots), "trio"], 1)
    available = GaugeMetricFamily("available_workers", "Slots that are free.", labels=["context"])
    available.add_metric([context], free)
    yield from (done, took, failed, info, available)


def _route(worker: str, method: str) -> str:
    return f"Route__{worker.removeprefix('worker/')}{f'.{method}' if method else ''}"


def _counter(name: str, text: str, labels: Sequence[str], counter: Counter, *, zero: Labels | None = None) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    items = counter.items() or ([] if zero is None else [(zero, 0.0)])
    for values, count in items:
        family.add_metric(values, count)
    return family


def _times(name: str, text: str, labels: Sequence[str], histogram: Histogram) -> Metric:
    return _histogram(name, text, labels, histogram.bounds, histogram.items())


def _histogram(
    name: str, text: str, labels: Sequence[str], bounds: Sequence[float], items: Iterable[tuple[Labels, Series]]
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, series in items:
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        count = 0
        for index, bound in enumerate((*bounds, math.inf)):
            count += series.counts[index]
            exemplar = _exemplar(series, index)
            buckets.append((_bound(bound), count) if exemplar is None else (_bound(bound), count, exemplar))
        family.add_metric(values, buckets, series.total)
    return family


def _bound(bound: float) -> str:
    return "+Inf" if bound == math.inf else repr(float(bound))


def _exemplar(series: Series, bucket: int) -> Exemplar | None:
    found = series.exemplars.get(bucket)
    return None if found is None else Exemplar({"trace_id": found[0]}, found[1], found[2])
