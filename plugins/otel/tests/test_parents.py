"""Headers are read and written as the SDK does it, with it or without."""

from __future__ import annotations

from typing import Any

import pytest
from kernel_otel._parents import parent_of, written
from opentelemetry import propagate, trace
from opentelemetry.baggage import get_all, set_baggage
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, TraceFlags, TraceState

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS: list[dict[str, Any]] = [
    {},
    {"traceparent": PARENT},
    {"traceparent": PARENT[:-2] + "00"},
    {"traceparent": PARENT[:-2] + "03", "other": "x", "number": 3},
    {"traceparent": PARENT, "tracestate": "a=1,b=2"},
    {"traceparent": PARENT, "baggage": "user=7"},
    {"baggage": "user=7"},
    {"traceparent": f" {PARENT} "},
    {"traceparent": "01" + PARENT[2:] + "-more"},
    {"traceparent": PARENT + "-more"},
    {"traceparent": PARENT.upper()},
    {"traceparent": PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32)},
    {"traceparent": PARENT.replace("b7ad6b7169203331", "0" * 16)},
    {"traceparent": "ff" + PARENT[2:]},
    {"traceparent": 7},
    {"traceparent": ""},
]


def told(context: Context) -> tuple[object, ...]:
    sent = trace.get_current_span(context).get_span_context()
    flags, state = sent.trace_flags, sent.trace_state
    return sent.trace_id, sent.span_id, flags, state, sent.is_remote, get_all(context)


@pytest.mark.parametrize("headers", HEADERS)
def test_headers_tell_what_the_sdk_reads_in_them(headers: dict[str, Any]) -> None:
    texts = {name: value for name, value in headers.items() if isinstance(value, str)}

    assert told(parent_of(headers, is_plain=True)) == told(propagate.extract(texts, Context()))
    assert told(parent_of(headers, is_plain=False)) == told(propagate.extract(texts, Context()))


@pytest.mark.parametrize(
    "sent",
    [
        SpanContext(TRACE := 2**127 + 1, 2**63 + 5, is_remote=False, trace_flags=TraceFlags(1)),
        SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(3)),
        SpanContext(TRACE, 5, is_remote=False, trace_flags=TraceFlags(1), trace_state=TraceState([("a", "1")])),
        INVALID_SPAN.get_span_context(),
    ],
)
@pytest.mark.parametrize("baggage", ["", "7"])
def test_what_goes_along_is_what_the_sdk_writes(sent: SpanContext, baggage: str) -> None:
    span = NonRecordingSpan(sent)
    within = trace.set_span_in_context(span, set_baggage("user", baggage, Context()) if baggage else Context())
    expected: dict[str, str] = {}
    propagate.inject(expected, within)

    assert written(within, span, is_plain=True) == expected
    assert written(within, span, is_plain=False) == expected
