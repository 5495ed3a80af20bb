"""Events -> spans. Each hook runs in the task and the context in which the thing happens, and sets that context.

Names of attributes are those of OpenTelemetry's semantic conventions for messaging and HTTP; what they have no name for
begins with `kernel.`.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from random import getrandbits
from typing import TYPE_CHECKING, Final, cast, final

import attrs
import trio
from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from typing_extensions import override

from kernel import HandlerCalled, RequestBegan, RequestDone, Sending, carried, carry
from kernel.abc import hearing

from ._provider import DRAWN

if TYPE_CHECKING:
    from opentelemetry.context import Context as TraceContext
    from opentelemetry.trace import Tracer

    from kernel import HandlerDone, Sent
    from kernel.abc import Context, Delivery

_SERVER_ERROR: Final = 500
_HEADER: Final = "traceparent"
_CARRIED: Final = frozenset({_HEADER, "tracestate", "baggage"})
"""What may be carried along where what is not recorded goes on without the SDK."""
_UNRECORDED: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]").fullmatch
_SPAN_KEY: Final = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, contexts.Context())))
"""What a context has its span under."""
_UNRECORDED_FLAGS: Final = frozenset("02468ace")
"""Last digits of them."""
_ID_BITS: Final = 128
_LOW_HALF: Final = 2**64 - 1
"""What samplers look at of an id, by the specification."""
_TEXT_MAX: Final = 8 * 1024
"""Characters of a traceback."""


@final
@attrs.define(repr=False)
class _Open:
    """A span that is open, and what is to be put back when it ends."""

    span: Span
    before: TraceContext
    headers: Mapping[str, object]


@final
class _Unrecorded(trace.NonRecordingSpan):
    """What goes on of a trace that is not recorded. Its ids are read when somebody asks for them, as few do."""

    def __init__(self, header: str) -> None:
        self._header = header

    @override
    def get_span_context(self) -> SpanContext:
        _, trace_id, span_id, _ = self._header.split("-")
        return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True)


@final
@attrs.define(eq=False, repr=False)
class Tracing:
    """Makes the spans of one life of the driver."""

    context: Context
    tracer: Tracer
    bound: int | None = None
    """What the low half of the id of a trace that begins here is below, if it is recorded; None has the sampler of the
    tracer decide about each span, whoever has begun its trace."""
    _is_foretold: bool = attrs.field(init=False)
    """Whether what is not recorded can be told without the SDK."""
    _requests: dict[int, _Open] = attrs.field(factory=dict[int, _Open], init=False)
    """By the identity of the request, which lives until its end is told."""

    def __attrs_post_init__(self) -> None:
        fields = propagate.get_global_textmap().fields
        self._is_foretold = self.bound is not None and _HEADER in fields and fields <= _CARRIED

    def hearing(self) -> AbstractContextManager[None]:
        """Make spans while inside."""
        return hearing(
            self.context,
            (self._called, HandlerCalled),
            (self._sending, Sending),
            (self._began, RequestBegan),
            (self._ended, RequestDone),
        )

    # --- handlers -------------------------------------------------------------------------------------------------

    def _called(self, event: HandlerCalled) -> Callable[[HandlerDone], None] | None:
        deliveries = event.deliveries
        is_one = len(deliveries) == 1
        if is_one and self._is_foretold and (header := self._unrecorded(deliveries[0].envelope.headers)):
            carry({_HEADER: header})
            within = {**contexts.get_current(), _SPAN_KEY: _Unrecorded(header)}
            contexts.attach(contexts.Context(within))
            return None
        parents = [_extracted(one) for one in deliveries]
        links = [Link(sent) for one in parents if (sent := trace.get_current_span(one).get_span_context()).is_valid]
        kind = SpanKind.SERVER if is_one and deliveries[0].envelope.reply_to else SpanKind.CONSUMER
        name = f"process {event.component.removeprefix('worker/')}{f'.{event.method}' if event.method else ''}"
        span = self._start(name, kind, parents[0] if is_one else contexts.Context(), [] if is_one else links).span
        if span.is_recording():
            span.set_attributes(_of_deliveries(event.component, deliveries))
        # Nothing is put back: each delivery has a context of its own, and later hooks may want to see this one.
        return lambda done: self._end(span, done.error)

    # --- messages and calls ---------------------------------------------------------------------------------------

    def _sending(self, event: Sending) -> Callable[[Sent], None] | None:
        if self._is_foretold and self._goes_unrecorded():
            return None
        kind = SpanKind.CLIENT if event.is_call else SpanKind.PRODUCER
        verb = "call" if event.is_call else "send"
        opened = self._start(f"{verb} {event.exchange or event.subject}", kind, contexts.get_current(), [])
        if opened.span.is_recording():
            attributes = {
                "messaging.system": "kernel",
                "messaging.operation.name": verb,
                "messaging.operation.type": "send",
                "messaging.destination.name": event.exchange or event.subject,
                "messaging.kernel.subject": event.subject,
                "kernel.component": event.component,
            }
            opened.span.set_attributes(attributes)

        def end(sent: Sent) -> None:
            self._end(opened.span, sent.error)
            _put_back(opened)

        return end

    # --- requests -------------------------------------------------------------------------------------------------

    def _began(self, event: RequestBegan) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        opened = self._start(event.method, SpanKind.SERVER, propagate.extract(headers, contexts.Context()), [])
        self._requests[id(event.request)] = opened
        if opened.span.is_recording():
            attributes: dict[str, str] = {
                "http.request.method": event.method,
                "url.path": self.context.mask(event.path),
                "kernel.component": event.component,
                "kernel.worker": event.worker,
            }
            opened.span.set_attributes(attributes)

    def _ended(self, event: RequestDone) -> None:
        opened = self._requests.pop(id(event.request), None)
        if opened is None:
            return
        if opened.span.is_recording():
            attributes: dict[str, str | int] = {
                "http.response.status_code": event.status,
                "http.request.body.size": event.received,
                "http.response.body.size": event.sent,
                "network.protocol.version": event.version,
                "client.address": event.client,
            }
            opened.span.set_attributes(attributes)
            if event.status >= _SERVER_ERROR:
                opened.span.set_status(Status(StatusCode.ERROR))
            elif not event.status:
                opened.span.set_attribute("kernel.cancelled", value=True)
                opened.span.set_status(Status(StatusCode.ERROR, "the client left, or the request was cut"))
        opened.span.end()
        _put_back(opened)

    # --- what is not recorded: a message of which 99 in 100 are should not pay for the hundredth -----------------------

    def _unrecorded(self, headers: Mapping[str, object]) -> str:
        """Return the `traceparent` with which a message goes on, if its trace is not recorded; empty if it may be."""
        header = headers.get(_HEADER)
        if "baggage" in headers:
            return ""
        if header is None:
            return self._drawn()
        return header if isinstance(header, str) and _UNRECORDED(header) else ""

    def _goes_unrecorded(self) -> bool:
        """Have what is sent next go on in a trace that is not recorded, if that is what it is in or begins."""
        header = carried().get(_HEADER)
        if header is not None:
            return str(header)[-1:] in _UNRECORDED_FLAGS
        is_within = contexts.get_current() and trace.get_current_span() is not trace.INVALID_SPAN  # of the user's own
        drawn = "" if is_within else self._drawn()
        if not drawn:
            return False
        carry({_HEADER: drawn})
        return True

    def _drawn(self) -> str:
        """Decide about a trace that would begin here: return what says that it is not recorded, or nothing."""
        drawn = getrandbits(_ID_BITS)
        if drawn & _LOW_HALF < (self.bound or 0):
            DRAWN.set(drawn)
            return ""
        ids = drawn.to_bytes(16, "big").hex()
        return f"00-{ids}-{ids[16:]}-00"  # there is no span that the second one could be confused with

    # --- spans ----------------------------------------------------------------------------------------------------

    def _start(self, name: str, kind: SpanKind, parent: TraceContext, links: Sequence[Link]) -> _Open:
        """Start a span, and have what follows in this context belong to it."""
        span = self.tracer.start_span(name, parent, kind, links=links)
        DRAWN.set(0)
        within = trace.set_span_in_context(span, parent)
        along: dict[str, str] = {}
        propagate.inject(along, within)
        before = contexts.get_current()
        contexts.attach(within)
        return _Open(span, before, carry(along))

    def _end(self, span: Span, error: BaseException | None) -> None:
        if error is not None and span.is_recording():
            if _is_cut(error):
                span.set_attribute("kernel.cancelled", value=True)
                span.set_status(Status(StatusCode.ERROR, "cancelled"))
                span.add_event("cancelled")
            else:
                self._note_error(span, error)
        span.end()

    def _note_error(self, span: Span, error: BaseException) -> None:
        mask, kind = self.context.mask, type(error)
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        try:
            text, stack = str(error), "".join(traceback.format_exception(error))
        except Exception:  # noqa: BLE001  the text of an exception is the user's code
            text = stack = "(no text)"
        attributes = {
            "exception.type": name,
            "exception.message": mask(text)[:_TEXT_MAX],
            "exception.stacktrace": mask(stack)[-_TEXT_MAX:],
        }
        span.set_attribute("error.type", name)
        span.add_event("exception", attributes)
        span.set_status(Status(StatusCode.ERROR, mask(f"{name}: {text}")[:200]))


def _put_back(opened: _Open) -> None:
    contexts.attach(opened.before)
    carry(opened.headers)


def _extracted(delivery: Delivery) -> TraceContext:
    headers = {name: value for name, value in delivery.envelope.headers.items() if isinstance(value, str)}
    return propagate.extract(headers, contexts.Context())


def _of_deliveries(worker: str, deliveries: Sequence[Delivery]) -> dict[str, str | int]:
    first = deliveries[0]
    attributes: dict[str, str | int] = {
        "messaging.system": "kernel",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": first.envelope.subject,
        "kernel.worker": worker,
    }
    if len(deliveries) > 1:
        return {**attributes, "messaging.batch.message_count": len(deliveries)}
    attributes["messaging.message.id"] = first.envelope.id
    attributes["messaging.message.body.size"] = len(first.envelope.body)
    attributes["kernel.attempt"] = first.attempt
    if first.envelope.correlation_id:
        attributes["messaging.message.conversation_id"] = first.envelope.correlation_id
    return attributes


def _is_cut(error: BaseException) -> bool:
    """Whether an exception is nothing but a cancellation."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_cut, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    return isinstance(error, trio.Cancelled)
