"""Headers <-> the context of a trace: as W3C has it without the SDK, since nearly all are just one `traceparent`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from opentelemetry import context as contexts
from opentelemetry import propagate
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from ._unrecorded import HEADER, SPAN_KEY, STATE, told_by

if TYPE_CHECKING:
    from opentelemetry.context import Context as TraceContext
    from opentelemetry.trace import Span

CARRIED: Final = frozenset({HEADER, STATE, "baggage"})
"""What may be carried along where this does what the SDK would."""
MORE: Final = CARRIED - {HEADER}
"""What goes along beside the header of a trace."""


def parent_of(headers: Mapping[str, object], *, is_plain: bool) -> TraceContext:
    """Return the context that headers tell of; an empty one if they tell of none.

    Args:
        headers: Of a message or request. What is no text is left out.
        is_plain: Whether context is carried as W3C has it.
    """
    header = headers.get(HEADER)
    if is_plain and MORE.isdisjoint(headers):
        if header is None:
            return contexts.Context()
        if isinstance(header, str) and (told := told_by(header)):
            trace_id, span_id, flags = told.groups()
            sent = SpanContext(
                int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
            )
            return contexts.Context({SPAN_KEY: NonRecordingSpan(sent)})
    texts = {name: value for name, value in headers.items() if isinstance(value, str)}
    return propagate.extract(texts, contexts.Context())


def written(within: TraceContext, span: Span, *, is_plain: bool) -> Mapping[str, str]:
    """Return the headers that tell of a context.

    Args:
        within: The context.
        span: The one that it holds.
        is_plain: Whether context is carried as W3C has it.
    """
    sent = span.get_span_context()
    if is_plain and len(within) == 1 and sent.is_valid and not sent.trace_state:
        return {HEADER: f"00-{sent.trace_id:032x}-{sent.span_id:016x}-{sent.trace_flags:02x}"}
    along: dict[str, str] = {}
    propagate.inject(along, within)
    return along
