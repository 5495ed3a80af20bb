"""What happens in a service becomes spans that hang together."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import httpx
import pytest
import trio
from kernel_otel import OtelConfig, OtelDriver
from kernel_otel._provider import bound_of
from opentelemetry import propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach, set_value
from opentelemetry.context import get_current as current
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from kernel import HandlerCalled, Listening, handles
from kernel.errors import KernelError
from kernel.testing import RunningService, fake_context, open_kernel

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = int("0af7651916cd43dd8448eb211c80319c", 16)


class Api:
    def __init__(self, events: Any) -> None:
        self.events = events

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await self.events.publish("order.created", {"sku": "tea"})
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Orders:
    def __init__(self, rpc: Any) -> None:
        self.rpc = rpc

    @handles("order.created")
    async def created(self, payload: object) -> None:
        with trace.get_tracer("user").start_as_current_span("own"):
            await self.rpc.call("price.of", payload)


class Prices:
    @handles("price.of")
    async def of(self, payload: object) -> int:
        return 3


class Odd:
    @handles("raises")
    async def raises(self, payload: object) -> None:
        raise ValueError("the password is yellow-feathers")

    @handles("hangs")
    async def hangs(self, payload: object) -> None:
        await trio.sleep_forever()


class Plain:
    @handles("#")
    async def any(self, payload: object) -> None: ...


class Seen:
    spans: ClassVar[list[SpanContext]] = []

    @handles("#")
    async def any(self, payload: object) -> None:
        with trace.get_tracer("user").start_as_current_span("own") as span:
            Seen.spans.append(span.get_span_context())


class Batches:
    @handles("#")
    async def many(self, payloads: list[object]) -> None: ...


COMMON = {"driver": "queue", "protocol": "json"}


def manifest(**more: Any) -> dict[str, Any]:
    return {
        "kernel": {"name": "shop"},
        "drivers": {
            "queue": {"plugin": "memory"},
            "events": {"plugin": "publisher", **COMMON},
            "rpc": {"plugin": "rpc_client", **COMMON},
            "traces": {"plugin": "otel", "exporter": "none", **more},
        },
        "dispatchers": {
            "api": {"plugin": "web", "bind": "127.0.0.1:0"},
            "orders": {"plugin": "consumer", **COMMON, "queue": "orders", "bindings": ["order.*"]},
            "prices": {"plugin": "consumer", **COMMON, "queue": "prices", "bindings": ["price.*"]},
        },
        "workers": {
            "api": {"use": f"{__name__}:Api", "dispatcher": "api"},
            "orders": {"use": f"{__name__}:Orders", "dispatcher": "orders"},
            "prices": {"use": f"{__name__}:Prices", "dispatcher": "prices"},
        },
    }


def one_worker(use: str, **dispatcher: Any) -> dict[str, Any]:
    whole = manifest()
    return whole | {
        "dispatchers": {"work": {"plugin": "consumer", **COMMON, "queue": "q", "bindings": ["#"], **dispatcher}},
        "workers": {"w": {"use": f"{__name__}:{use}", "dispatcher": "work", "timeout": 1.0, "retry": {"attempts": 1}}},
    }


def spans_of(running: RunningService) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    running.resource("driver/traces").add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def headers_of(running: RunningService) -> list[str]:
    """Return the `traceparent` of each message that a handler is called with, as they come."""
    seen: list[str] = []
    running.kernel.hub.subscribe(
        lambda event: seen.append(str(event.deliveries[0].envelope.headers["traceparent"])),  # type: ignore[attr-defined]
        HandlerCalled,
    )
    return seen


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def parent_of(span: ReadableSpan) -> int:
    return span.parent.span_id if span.parent is not None else 0


def id_of(span: ReadableSpan) -> int:
    return span.context.span_id


@asynccontextmanager
async def asked(manifest: dict[str, Any], headers: dict[str, str]) -> AsyncIterator[InMemorySpanExporter]:
    """A service whose API was asked once, until its order was handled."""
    async with open_kernel(manifest) as running:
        exporter = spans_of(running)
        at = await running.wait_event(Listening)
        async with httpx.AsyncClient() as client:
            await client.get(f"{at.address}/orders?password=x", headers=headers)
        await running.wait_settled(2)
        yield exporter


async def test_a_request_a_message_and_a_call_are_one_trace() -> None:
    async with asked(manifest(), {"traceparent": PARENT}) as exporter:
        spans = by_name(exporter)

    web, sent, handled, called, answered = (
        spans[name] for name in ("GET", "send events", "process orders.created", "call events", "process prices.of")
    )
    assert {span.context.trace_id for span in spans.values() if span.name != "own"} == {TRACE}
    assert parent_of(web) == int("b7ad6b7169203331", 16)
    assert [parent_of(sent), parent_of(handled), parent_of(answered)] == [id_of(web), id_of(sent), id_of(called)]
    assert [span.kind for span in (web, sent, handled, called, answered)] == [
        SpanKind.SERVER,
        SpanKind.PRODUCER,
        SpanKind.CONSUMER,
        SpanKind.CLIENT,
        SpanKind.SERVER,
    ]
    assert web.attributes is not None
    assert (web.attributes["http.response.status_code"], web.attributes["url.path"]) == (202, "/orders")
    assert {span.resource.attributes["service.name"] for span in (web, answered)} == {"shop"}


@pytest.mark.parametrize(("sample", "count"), [(0.0, 0), (1.0, 5)])
async def test_what_begins_here_is_sampled(sample: float, count: int) -> None:
    async with asked(manifest(sample=sample), {}) as exporter:
        spans = by_name(exporter)

    assert len([name for name in spans if name != "own"]) == count


@pytest.mark.parametrize("propagator", [propagate.get_global_textmap(), W3CBaggagePropagator()], ids=["w3c", "baggage"])
async def test_the_share_of_what_begins_with_a_message_is_that_of_the_manifest(
    propagator: TextMapPropagator, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propagate, "propagator", propagator)
    random.seed(17)
    async with open_kernel(one_worker("Plain") | {"drivers": manifest(sample=0.5)["drivers"]}) as running:
        exporter = spans_of(running)
        for _ in range(400):
            await running.publish("events", "x", None)
        await running.wait_settled(400)
        names = [span.name for span in exporter.get_finished_spans()]

    assert 150 < names.count("send events") < 250  # five standard deviations; a share of a share would be 100


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
async def test_what_begins_here_is_recorded_by_its_id_as_every_service_of_the_same_share_would(
    share: float, autojump_clock: object
) -> None:
    async with open_kernel(one_worker("Plain") | {"drivers": manifest(sample=share)["drivers"]}) as running:
        seen = headers_of(running)
        for _ in range(100):
            await running.publish("events", "x", None)
        await running.wait_settled(100)

    bound = TraceIdRatioBased.get_bound_for_rate(share)
    ids = [header.split("-") for header in seen]
    assert [bool(int(flags, 16) & 1) for _, _, _, flags in ids] == [int(id_[16:], 16) < bound for _, id_, _, _ in ids]
    assert len({id_ for _, id_, _, _ in ids}) == 100


@pytest.mark.parametrize(
    ("sampler", "share", "own", "unrecorded", "recorded"),
    [
        ("always_on", "", 2, 2, 2),
        ("always_off", "", 0, 0, 0),
        ("traceidratio", "1.0", 2, 2, 2),
        ("traceidratio", "0.0", 0, 0, 0),
        ("parentbased_always_on", "", 2, 1, 2),
        ("parentbased_always_off", "", 0, 0, 1),
        ("parentbased_traceidratio", "1.0", 2, 1, 2),
        ("parentbased_traceidratio", "0.0", 0, 0, 1),
    ],
)
async def test_a_sampler_of_the_environment_decides(
    sampler: str, share: str, own: int, unrecorded: int, recorded: int,
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(
        trace, "get_tracer_provider", trace.NoOpTracerProvider
    )  # this one is not to stay the global one
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", share)
    counts: list[int] = []
    async with open_kernel(one_worker("Plain")) as running:
        exporter, seen = spans_of(running), headers_of(running)
        for number, headers in enumerate([{}, {"traceparent": f"{PARENT[:-1]}0"}, {"traceparent": PARENT}], 1):
            await running.publish("events", "x", None, headers=headers)
            await running.wait_settled(number)
            counts.append(len(exporter.get_finished_spans()))

    assert [counts[0], *(after - before for before, after in itertools.pairwise(counts))] == [own, unrecorded, recorded]
    assert int(seen[0][-2:], 16) & 1 == (own > 0)


@pytest.mark.parametrize(
    ("sampler", "bound"),
    [
        (ParentBased(TraceIdRatioBased(0.25)), 2**62),
        (ParentBased(TraceIdRatioBased(1e-9)), round(1e-9 * 2**64)),
        (ParentBased(ALWAYS_ON), 2**64),
        (ParentBased(ALWAYS_OFF), 0),
        (ParentBased(ALWAYS_OFF, remote_parent_not_sampled=ALWAYS_ON), None),
        (ParentBased(ALWAYS_ON, local_parent_sampled=TraceIdRatioBased(0.5)), None),
        (TraceIdRatioBased(0.25), None),
        (ALWAYS_OFF, None),
    ],
    ids=lambda value: value.get_description() if isinstance(value, Sampler) else str(value),
)
def test_only_what_does_as_others_did_is_foretold(sampler: Sampler, bound: int | None) -> None:
    assert bound_of(sampler) == bound


async def test_what_the_user_traces_belongs_to_what_is_not_recorded(autojump_clock: object) -> None:
    header = f"{PARENT[:-1]}0"
    Seen.spans.clear()
    async with open_kernel(one_worker("Seen")) as running:
        exporter = spans_of(running)
        await running.publish("events", "x", None, headers={"traceparent": header})
        await running.wait_settled()

    (span,) = Seen.spans
    assert (span.trace_id, span.trace_flags) == (TRACE, 0)
    assert {one.name for one in exporter.get_finished_spans()} == {"send events"}


async def test_what_is_not_recorded_carries_its_context_along(autojump_clock: object) -> None:
    seen: list[object] = []
    async with open_kernel(one_worker("Plain") | {"drivers": manifest(sample=0.0)["drivers"]}) as running:
        running.kernel.hub.subscribe(
            lambda event: seen.append(event.deliveries[0].envelope.headers["traceparent"]),  # type: ignore[attr-defined]
            HandlerCalled,
        )
        await running.publish("events", "x", None)
        await running.wait_settled()

    assert [int(str(one)[-2:], 16) & 1 for one in seen] == [0]


async def test_an_exception_is_told_without_the_secret_in_it(autojump_clock: object) -> None:
    tables = one_worker("Odd") | {"drivers": manifest(headers={"authorization": {"env": "TOKEN"}})["drivers"]}
    async with open_kernel(tables, expected=ValueError, environ={"TOKEN": "yellow-feathers"}) as running:
        exporter = spans_of(running)
        await running.publish("events", "raises", None)
        await running.wait_settled()
        span = by_name(exporter)["process w.raises"]

    (event,) = span.events
    assert event.attributes is not None
    assert (event.name, event.attributes["exception.type"]) == ("exception", "ValueError")
    assert event.attributes["exception.message"] == "the password is ***"
    assert span.status.status_code is StatusCode.ERROR


async def test_a_span_that_was_cancelled_says_so(autojump_clock: object) -> None:
    async with open_kernel(one_worker("Odd"), expected=Exception) as running:
        exporter = spans_of(running)
        await running.publish("events", "hangs", None)
        await running.wait_settled()
        span = by_name(exporter)["process w.hangs"]

    assert span.attributes is not None
    assert span.attributes["kernel.cancelled"] is True
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "cancelled")


async def test_a_message_that_cannot_be_sent_is_an_error(autojump_clock: object) -> None:
    async with open_kernel(one_worker("Odd", bindings=["other"])) as running:
        exporter = spans_of(running)
        with pytest.raises(KernelError):
            await running.publish("events", "x", None)
        span = by_name(exporter)["send events"]

    assert span.status.status_code is StatusCode.ERROR


async def test_a_batch_links_to_its_messages(autojump_clock: object) -> None:
    async with open_kernel(one_worker("Batches", batch={"size": 3, "wait": 1.0})) as running:
        exporter = spans_of(running)
        for _ in range(3):
            await running.publish("events", "x", None)
        await running.wait_settled(3)
        spans = exporter.get_finished_spans()

    sent = {id_of(span) for span in spans if span.name == "send events"}
    batch = next(span for span in spans if span.name == "process w.many")
    assert {link.context.span_id for link in batch.links} == sent
    assert (parent_of(batch), len(sent)) == (0, 3)


@pytest.mark.parametrize(
    "headers", [{}, {"traceparent": "nonsense"}, {"traceparent": 7}, {"traceparent": PARENT + "x"}]
)
async def test_headers_that_make_no_sense_begin_a_trace(headers: dict[str, Any], autojump_clock: object) -> None:
    async with open_kernel(one_worker("Plain")) as running:
        exporter = spans_of(running)
        await running.publish("events", "x", None, headers=headers)
        await running.wait_settled()

    assert len(exporter.get_finished_spans()) == 2


@pytest.mark.slow
async def test_a_collector_that_is_away_holds_up_nothing() -> None:
    before = set(threading.enumerate())
    config = OtelConfig(endpoint="http://127.0.0.1:9/v1/traces")
    driver = OtelDriver(config=config, context=fake_context("driver/traces", stop_timeout=0.5))
    async with driver.open() as provider:
        provider.get_tracer("t").start_span("s").end()  # type: ignore[attr-defined]
        began = trio.current_time()

    assert trio.current_time() - began < 2
    for thread in set(threading.enumerate()) - before:
        if "Otel" in thread.name:  # it tries again, and would draw random numbers within other tests
            await trio.to_thread.run_sync(thread.join)


UNRECORDED = f"{PARENT[:-2]}00"


class Keeps:
    contexts: ClassVar[list[Context]] = []

    def __init__(self, events: Any) -> None:
        self.events = events

    @handles("first")
    async def first(self, payload: object) -> None:
        Keeps.contexts.append(current())
        await self.events.publish("second", None)

    @handles("second")
    async def second(self, payload: object) -> None:
        Keeps.contexts.append(current())


async def kept(*headers: dict[str, Any]) -> list[Context]:
    """Return the contexts of two handlers, of which the first calls the second by a message, for each of the headers."""
    Keeps.contexts.clear()
    tables = one_worker("Keeps") | {"drivers": manifest(sample=0.0)["drivers"]}
    async with open_kernel(tables) as running:
        for number, some in enumerate(headers, 1):
            await running.publish("events", "first", None, headers=some)
            await running.wait_settled(2 * number)
    return list(Keeps.contexts)


def trace_of(context: Context) -> int:
    return trace.get_current_span(context).get_span_context().trace_id


async def test_a_context_of_what_is_not_recorded_may_be_kept(autojump_clock: object) -> None:
    other = UNRECORDED.replace("0af7", "1bf8")
    contexts = await kept({"traceparent": UNRECORDED}, {"traceparent": other})

    assert [trace_of(one) for one in contexts] == [TRACE, TRACE, *[int(other[3:35], 16)] * 2]
    assert [trace_of(Context({**one})) for one in contexts] == [trace_of(one) for one in contexts]
    assert [trace_of(set_value("key", 1, one)) for one in contexts] == [trace_of(one) for one in contexts]


@pytest.mark.parametrize("parent", ["traceparent", "nothing"])
async def test_a_context_of_what_is_not_recorded_is_a_mapping(parent: str, autojump_clock: object) -> None:
    one = (await kept({parent: UNRECORDED}))[0]
    (key,) = one

    assert (len(one), key in one, list(one.keys()), list(one.values())) == (1, True, [key], [one[key]])
    assert (dict(one.items()), one.copy(), one.get("other", 7)) == ({key: one[key]}, {key: one[key]}, 7)
    assert one == Context({key: one[key]})


@pytest.mark.parametrize(
    "header",
    [
        UNRECORDED.replace("0af7", "zzzz"),
        UNRECORDED.replace("-b7ad6b7169203331", "-0000000000000000"),
        f"00-{'0' * 32}-b7ad6b7169203331-00",
        f"00-{'x' * 49}-00",
    ],
    ids=["no digits", "no span", "no trace", "nothing"],
)
async def test_what_only_looks_unrecorded_begins_a_trace_when_something_is_sent(
    header: str, autojump_clock: object
) -> None:
    first, second = map(trace_of, await kept({"traceparent": header}))

    assert second not in {0, TRACE, first}


async def test_what_surrounds_a_handler_stays_in_its_context(autojump_clock: object) -> None:
    token = attach(set_value("tenant", "a"))
    try:
        contexts = await kept({"traceparent": UNRECORDED})
    finally:
        detach(token)

    assert [trace_of(one) for one in contexts] == [TRACE, TRACE]
