"""What is recorded is what the sampler of the SDK has recorded, whoever decides; and what goes along says so."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import pytest
from kernel_otel._provider import Provider, bound_of
from kernel_otel._tracing import Tracing
from kernel_otel._unrecorded import shortcuts
from opentelemetry import propagate, trace
from opentelemetry.context import Context, detach, get_current
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanKind
from typing_extensions import override

from kernel import Ack, DeadLetter, Envelope, HandlerCalled, HandlerDone, Retry, Return, carried, carry
from kernel.abc import Context as KernelContext
from kernel.abc import Delivery, telling
from kernel.testing import fake_context

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-"
STATE = "a=1,b=2"


class Own(Sampler):
    """A sampler of the user's own: has even traces recorded, whoever has begun them."""

    @override
    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, kind: Any = None, attributes: Any = None,
        links: Any = None, trace_state: Any = None,
    ) -> SamplingResult:  # fmt: skip
        state = trace.get_current_span(parent_context).get_span_context().trace_state
        return SamplingResult(Decision.DROP if trace_id % 2 else Decision.RECORD_AND_SAMPLE, attributes, state)

    @override
    def get_description(self) -> str:
        return "Own"


ROOTS = [ALWAYS_ON, ALWAYS_OFF, *map(TraceIdRatioBased, (0.0, 0.01, 0.5, 1.0)), Own()]
SAMPLERS = [
    *ROOTS,
    *map(ParentBased, ROOTS),
    ParentBased(ALWAYS_OFF, remote_parent_not_sampled=ALWAYS_ON),
    ParentBased(ALWAYS_ON, remote_parent_sampled=ALWAYS_OFF),
    ParentBased(TraceIdRatioBased(0.5), remote_parent_sampled=Own(), remote_parent_not_sampled=Own()),
]
HEADERS: list[dict[str, str]] = [
    {},
    *({"traceparent": f"{PARENT}{flags}"} for flags in ("00", "01", "02", "03")),
    {"traceparent": f"{PARENT}00", "tracestate": STATE},
    {"traceparent": f"{PARENT}01", "tracestate": STATE},
    {"traceparent": f"{PARENT}00", "tracestate": "no state"},
]
by_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.get_description())


class Given(Delivery):
    """A delivery with headers, of which nothing becomes."""

    def __init__(self, headers: Mapping[str, object]) -> None:
        self._envelope = Envelope(id="1", subject="x", body=b"", headers=headers)

    @property
    @override
    def envelope(self) -> Envelope:
        return self._envelope

    @property
    @override
    def attempt(self) -> int:
        return 1

    @property
    @override
    def redelivered(self) -> bool:
        return False

    @override
    async def settle(self, outcome: Ack | Retry | DeadLetter | Return) -> None: ...


@contextmanager
def traced(sampler: Sampler) -> Iterator[tuple[KernelContext, InMemorySpanExporter]]:
    """What happens in a context of the kernel is traced."""
    context, provider, exporter = fake_context(), Provider(Resource({}), sampler), InMemorySpanExporter()
    provider.export_by(SimpleSpanProcessor(exporter))
    with Tracing(context, provider.backlog, bound_of(provider.sampler)).hearing():
        yield context, exporter
    provider.shutdown()


def handled(context: KernelContext, headers: Mapping[str, object]) -> Mapping[str, object]:
    """Call a handler, as the kernel does; return what goes along with what it sends."""
    deliveries = (Given(headers),)
    passed = context.passes_by(HandlerCalled, HandlerDone, deliveries)
    if isinstance(passed, Mapping):
        return passed
    end = context.begin(HandlerCalled(component="worker/w", method="m", deliveries=deliveries))
    along = carried()
    if end is not None:
        end(HandlerDone(component="worker/w", method="m", deliveries=deliveries, error=None, seconds=0.0))
    return along


def sent(context: KernelContext) -> Mapping[str, object]:
    """Send something; return what it takes along."""
    with telling(context, "x", is_call=False):
        return carried()


def sent_within(context: KernelContext, along: Mapping[str, object]) -> Mapping[str, object]:
    carry(along)
    return sent(context)


def told(along: Mapping[str, object]) -> trace.SpanContext:
    texts = {name: str(value) for name, value in along.items()}
    return trace.get_current_span(propagate.extract(texts, Context())).get_span_context()


def decided(sampler: Sampler, trace_id: int, headers: Mapping[str, str]) -> SamplingResult:
    """Ask the sampler, as the SDK does."""
    return sampler.should_sample(propagate.extract(headers, Context()), trace_id, "x", SpanKind.CONSUMER, {}, ())


@by_sampler
@pytest.mark.parametrize("headers", HEADERS, ids=str)
def test_a_handler_is_recorded_if_the_sampler_says_so_and_tells_what_the_sdk_would(
    sampler: Sampler, headers: dict[str, str]
) -> None:
    with traced(sampler) as (context, exporter):
        one = told(copy_context().run(handled, context, headers))

    expected = decided(sampler, one.trace_id, headers)
    recorded = expected.decision.is_sampled()
    assert (one.trace_flags.sampled, one.trace_state) == (recorded, expected.trace_state or trace.TraceState())
    assert one.trace_id == (int(TRACE, 16) if headers else one.trace_id) != 0
    assert [span.context for span in exporter.get_finished_spans()] == ([sent_by_us(one)] if recorded else [])


def sent_by_us(one: trace.SpanContext) -> trace.SpanContext:
    return trace.SpanContext(
        one.trace_id, one.span_id, is_remote=False, trace_flags=one.trace_flags, trace_state=one.trace_state
    )


@by_sampler
def test_what_is_sent_begins_a_trace_that_is_recorded_if_the_sampler_says_so(sampler: Sampler) -> None:
    random.seed(17)
    with traced(sampler) as (context, exporter):
        all_ = [told(copy_context().run(sent, context)) for _ in range(500)]

    recorded = [one for one in all_ if one.trace_flags.sampled]
    assert [one.trace_flags.sampled for one in all_] == [
        decided(sampler, one.trace_id, {}).decision.is_sampled() for one in all_
    ]
    assert [span.context for span in exporter.get_finished_spans()] == [sent_by_us(one) for one in recorded]
    assert len({one.trace_id for one in all_}) == 500


@pytest.mark.parametrize("flags", ["00", "02"])
def test_what_is_sent_from_what_is_not_recorded_takes_it_along_as_it_is(flags: str) -> None:
    headers = {"traceparent": f"{PARENT}{flags}", "tracestate": STATE}
    with traced(ParentBased(ALWAYS_ON)) as (context, exporter):
        along = copy_context().run(lambda: sent_within(context, handled(context, headers)))

    assert along == headers
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize("headers", [one for one in HEADERS if one.get("traceparent", "1")[-1] in "13"], ids=str)
def test_a_span_has_the_flags_and_the_parent_that_the_sdk_gives_it(headers: dict[str, str]) -> None:
    with traced(ParentBased(ALWAYS_ON)) as (context, exporter):
        along = told(copy_context().run(handled, context, headers))
    reference = TracerProvider(sampler=ParentBased(ALWAYS_ON)).get_tracer("t")
    expected = reference.start_span("x", propagate.extract(headers, Context()))

    (span,) = exporter.get_finished_spans()
    assert along.trace_flags == expected.get_span_context().trace_flags
    assert span.parent == expected.parent  # type: ignore[attr-defined]


def test_the_context_that_runs_is_that_of_opentelemetry() -> None:
    one = Context({"key": 1})
    running, attach = shortcuts()
    token = attach(one)
    seen = running(), get_current()
    detach(token)

    assert seen == (one, one)
    assert running() is get_current() is not one
