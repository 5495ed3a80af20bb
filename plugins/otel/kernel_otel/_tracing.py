"""Events -> spans. Each hook runs in the task and the context in which the thing happens, and sets that context.

Names of attributes are those of OpenTelemetry's semantic conventions for messaging and HTTP; what they have no name for
begins with `kernel.`.
"""

from __future__ import annotations

import os
import random
import re
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeAlias, cast, final

import attrs
import trio
from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode

from kernel import HandlerCalled, HandlerDone, RequestBegan, RequestDone, Sending, Sent, carried, carry, new_id

if TYPE_CHECKING:
    from opentelemetry.context import Context as TraceContext
    from opentelemetry.trace import Tracer

    from kernel import Event
    from kernel.abc import Context, Delivery

Hook: TypeAlias = "Callable[[Event], object]"
_SERVER_ERROR: Final = 500
_HEADER: Final = "traceparent"
_UNRECORDED: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f][02468ace]").fullmatch
_TEXT_MAX: Final = 8 * 1024
"""Characters of a traceback."""


@final
@attrs.define(repr=False)
class _Open:
    """A span that is open, and what is to be put back when it ends."""

    span: Span
    before: TraceContext | None
    """None if it was not changed."""
    headers: Mapping[str, object]
    around: _Open | None


_open: Final[ContextVar[_Open | None]] = ContextVar("kernel_otel.open", default=None)


@final
@attrs.define(eq=False, repr=False)
class Tracing:
    """Makes the spans of one life of the driver."""

    context: Context
    tracer: Tracer
    sample: float | None = None
    """The share of traces that begin here which are recorded; None has the sampler of the tracer decide each."""
    _is_w3c: bool = attrs.field(factory=lambda: "tracecontext" in _propagators(), init=False)
    _requests: dict[int, _Open] = attrs.field(factory=dict[int, _Open], init=False)
    """By the identity of the request, which lives until its end is told."""

    @contextmanager
    def hearing(self) -> Generator[None]:
        """Make spans while inside."""
        hooks: Sequence[tuple[object, type[Event]]] = (
            (self._called, HandlerCalled),
            (self._done, HandlerDone),
            (self._sending, Sending),
            (self._sent, Sent),
            (self._began, RequestBegan),
            (self._ended, RequestDone),
        )
        ends = [self.context.subscribe(cast("Hook", hook), kind) for hook, kind in hooks]
        try:
            yield
        finally:
            for end in ends:
                end()

    # --- handlers -------------------------------------------------------------------------------------------------

    def _called(self, event: HandlerCalled) -> None:
        deliveries = event.deliveries
        if len(deliveries) == 1 and self._is_w3c:
            header = deliveries[0].envelope.headers.get(_HEADER)
            unrecorded = _unrecorded(header)
            if unrecorded is not None and "baggage" not in deliveries[0].envelope.headers:
                self._go_on_without(unrecorded, header)
                return
        parents = [_extracted(one) for one in deliveries]
        links = [Link(span) for one in parents if (span := trace.get_current_span(one).get_span_context()).is_valid]
        is_one = len(deliveries) == 1
        kind = SpanKind.SERVER if is_one and deliveries[0].envelope.reply_to else SpanKind.CONSUMER
        name = f"process {event.component.removeprefix('worker/')}{f'.{event.method}' if event.method else ''}"
        self._start(name, kind, parents[0] if is_one else contexts.Context(), [] if is_one else links)
        opened = _open.get()
        if opened is not None and opened.span.is_recording():
            opened.span.set_attributes(_of_deliveries(event.component, deliveries))

    def _done(self, event: HandlerDone) -> None:
        # Nothing is put back: each delivery has a context of its own, and later hooks may want to see this one.
        opened = _open.get()
        if opened is not None:
            self._end(opened.span, event.error)

    # --- messages and calls ---------------------------------------------------------------------------------------

    def _sending(self, event: Sending) -> None:
        if self._begins_unrecorded():
            header = f"00-{new_id()}-{new_id()[:16]}-00"
            _open.set(_Open(trace.INVALID_SPAN, None, carry({_HEADER: header}), _open.get()))
            return
        if (around := _open.get()) is not None and not around.span.is_recording() and self._is_w3c and carried():
            _open.set(_Open(trace.INVALID_SPAN, None, carried(), around))  # what is carried goes on as it is
            return
        kind = SpanKind.CLIENT if event.is_call else SpanKind.PRODUCER
        verb = "call" if event.is_call else "send"
        self._start(f"{verb} {event.exchange or event.subject}", kind, contexts.get_current(), [])
        opened = _open.get()
        if opened is not None and opened.span.is_recording():
            attributes = {
                "messaging.system": "kernel",
                "messaging.operation.name": verb,
                "messaging.operation.type": "send",
                "messaging.destination.name": event.exchange or event.subject,
                "messaging.kernel.subject": event.subject,
                "kernel.component": event.component,
            }
            opened.span.set_attributes(attributes)

    def _sent(self, event: Sent) -> None:
        opened = _open.get()
        if opened is not None:
            self._end(opened.span, event.error)
            _put_back(opened)

    # --- requests -------------------------------------------------------------------------------------------------

    def _began(self, event: RequestBegan) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        self._start(event.method, SpanKind.SERVER, propagate.extract(headers, contexts.Context()), [])
        opened = _open.get()
        if opened is None:
            return
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

    def _begins_unrecorded(self) -> bool:
        """Decide about a trace that would begin here."""
        if self.sample is None or not self._is_w3c or _open.get() is not None:
            return False
        is_within = trace.get_current_span() is not trace.INVALID_SPAN  # of the user's own
        return not is_within and random.random() >= self.sample

    def _go_on_without(self, parent: SpanContext, header: object) -> None:
        """Go on in a trace that is not recorded: the user's own spans belong to it, and what is sent says so."""
        span = trace.NonRecordingSpan(parent)
        before = contexts.get_current()
        contexts.attach(trace.set_span_in_context(span, before))
        _open.set(_Open(span, before, carry({_HEADER: header}), _open.get()))

    # --- spans ----------------------------------------------------------------------------------------------------

    def _start(self, name: str, kind: SpanKind, parent: TraceContext, links: Sequence[Link]) -> None:
        """Start a span, and have what follows in this context belong to it."""
        span = self.tracer.start_span(name, parent, kind, links=links)
        within = trace.set_span_in_context(span, parent)
        along: dict[str, str] = {}
        propagate.inject(along, within)
        before = contexts.get_current()
        contexts.attach(within)
        _open.set(_Open(span, before, carry(along), _open.get()))

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


def _propagators() -> str:
    return os.environ.get("OTEL_PROPAGATORS", "tracecontext,baggage")


def _unrecorded(header: object) -> SpanContext | None:
    """Return what a `traceparent` means if its trace is not recorded; None if it is, or if it makes no sense."""
    found = _UNRECORDED(header) if isinstance(header, str) else None
    if found is None:
        return None
    parent = SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True)
    return parent if parent.is_valid else None


def _put_back(opened: _Open) -> None:
    if opened.before is not None:
        contexts.attach(opened.before)
    carry(opened.headers)
    _open.set(opened.around)


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
