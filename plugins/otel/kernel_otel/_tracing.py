"""Events -> spans. Each hook runs in the task and the context in which the thing happens, and sets that context.

Names of attributes are those of OpenTelemetry's semantic conventions for messaging and HTTP; what they have no name for
begins with `kernel.`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeAlias, cast, final

import attrs
import trio
from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from kernel import HandlerCalled, HandlerDone, RequestBegan, RequestDone, Sending, Sent, carry

if TYPE_CHECKING:
    from opentelemetry.context import Context as TraceContext
    from opentelemetry.trace import Tracer

    from kernel import Event
    from kernel.abc import Context, Delivery

Hook: TypeAlias = "Callable[[Event], object]"
_SERVER_ERROR: Final = 500
_TEXT_MAX: Final = 8 * 1024
"""Characters of a traceback."""


@final
@attrs.frozen
class _Open:
    """A span that is open, and what is to be put back when it ends."""

    span: Span
    before: TraceContext
    headers: Mapping[str, object]
    around: _Open | None


_open: Final[ContextVar[_Open | None]] = ContextVar("kernel_otel.open", default=None)


@final
@attrs.define(eq=False, repr=False)
class Tracing:
    """Makes the spans of one life of the driver."""

    context: Context
    tracer: Tracer
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


def _put_back(opened: _Open) -> None:
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
