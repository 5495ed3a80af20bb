"""Events -> spans. Each hook runs in the task and the context in which the thing happens, and sets that context.

Names of attributes are those of OpenTelemetry's semantic conventions for messaging and HTTP; what they have no name for
begins with `kernel.`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Token
from typing import TYPE_CHECKING, Final, Literal, cast, final

import attrs
from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TraceState

from kernel import HandlerCalled, RequestBegan, RequestDone, Sending, carried, carry
from kernel.abc import hearing

from ._content import links_of, note_end, of_deliveries
from ._later import DRAWN, Backlog, Later, WithinLater
from ._parents import CARRIED, MORE, parent_of, written
from ._unrecorded import HEADER, LENGTH, SPAN_KEY, STATE, Unrecorded, Within, draw, is_unrecorded, shortcuts, told_by

if TYPE_CHECKING:
    from opentelemetry.context import Context as TraceContext

    from kernel import Event, HandlerDone, Sent
    from kernel.abc import Context, Delivery

    _Hook = Callable[[Event], object]

_MISSING: Final = Token.MISSING
_SERVER_ERROR: Final = 500


@final
@attrs.define(repr=False)
class _Open:
    """A span that is open, and what is to be put back when it ends."""

    span: Span
    before: TraceContext
    headers: Mapping[str, object]


@final
@attrs.define(eq=False, repr=False)
class Tracing:
    """Makes the spans of one life of the driver."""

    context: Context
    backlog: Backlog
    """Its tracer makes the spans; those of handlers and messages may wait there."""
    bound: int | None = None
    """What the low half of the id of a trace that begins here is below, if it is recorded; None has the sampler of the
    tracer decide about each span, whoever has begun its trace."""
    _is_plain: bool = attrs.field(init=False)
    """Whether context is carried as W3C has it, so that the usual one need not be given to the SDK to read or write."""
    _is_foretold: bool = attrs.field(init=False)
    """Whether what is recorded can be told without the SDK."""
    _ahead: list[int | Mapping[str, str]] = attrs.field(factory=list["int | Mapping[str, str]"], init=False)
    """Traces that may begin here: the ids of those to be recorded, and what the others take along."""
    _running: Callable[[], TraceContext] = attrs.field(init=False)
    """As `get_current` of OpenTelemetry."""
    _attach: Callable[[TraceContext], Token[TraceContext]] = attrs.field(init=False)
    """As `attach` of OpenTelemetry."""
    _requests: dict[int, _Open] = attrs.field(factory=dict[int, _Open], init=False)
    """By the identity of the request, which lives until its end is told."""

    def __attrs_post_init__(self) -> None:
        fields = propagate.get_global_textmap().fields
        self._is_plain = HEADER in fields and fields <= CARRIED
        self._running, self._attach = shortcuts()
        self._is_foretold = self.bound is not None and self._is_plain

    @contextmanager
    def hearing(self) -> Generator[None]:
        """Make spans while inside."""
        hear = self.context.subscribe
        is_foretold = self._is_foretold
        ends = (
            hear(cast("_Hook", self._called), HandlerCalled, unless=self._calls_unrecorded if is_foretold else None),
            hear(cast("_Hook", self._sending), Sending, unless=self._sends_unrecorded if is_foretold else None),
        )
        try:
            with hearing(self.context, (self._began, RequestBegan), (self._ended, RequestDone)):
                yield
        finally:
            for end in ends:
                end()

    # --- handlers -------------------------------------------------------------------------------------------------

    def _called(self, event: HandlerCalled) -> Callable[[HandlerDone], None] | None:
        deliveries = event.deliveries
        if self._is_foretold and (along := self._calls_unrecorded(deliveries)) is not False:
            carry(along)
            return None
        is_one = len(deliveries) == 1
        kind = SpanKind.SERVER if is_one and deliveries[0].envelope.reply_to else SpanKind.CONSUMER
        name = f"process {event.component.removeprefix('worker/')}{f'.{event.method}' if event.method else ''}"
        attributes = of_deliveries(event.component, deliveries)
        if is_one and (later := self._called_later(name, kind, deliveries[0].envelope.headers, attributes)):
            self._go_on_in(later)
            return lambda done: self._end_later(later, done.error)
        parents = [parent_of(one.envelope.headers, is_plain=self._is_plain) for one in deliveries]
        parent, links = (parents[0], ()) if is_one else (contexts.Context(), links_of(parents))
        span = self._start(name, kind, parent, attributes, links).span
        # Nothing is put back: each delivery has a context of its own, and later hooks may want to see this one.
        return lambda done: self._end(span, done.error)

    # --- messages and calls ---------------------------------------------------------------------------------------

    def _sending(self, event: Sending) -> Callable[[Sent], None] | None:
        if self._is_foretold and not DRAWN.get() and (along := self._sends_unrecorded(carried())) is not False:
            if along is not True:
                carry(along)
            return None
        kind = SpanKind.CLIENT if event.is_call else SpanKind.PRODUCER
        verb = "call" if event.is_call else "send"
        attributes: dict[str, str | int] = {
            "messaging.system": "kernel",
            "messaging.operation.name": verb,
            "messaging.operation.type": "send",
            "messaging.destination.name": event.exchange or event.subject,
            "messaging.kernel.subject": event.subject,
            "kernel.component": event.component,
        }
        name, current = f"{verb} {event.exchange or event.subject}", contexts.get_current()
        if later := self._sent_later(name, kind, current, attributes):
            before = self._go_on_in(later)

            def end_later(sent: Sent) -> None:
                self._end_later(later, sent.error)
                contexts.attach(current)
                carry(before)

            return end_later
        opened = self._start(name, kind, current, attributes)

        def end(sent: Sent) -> None:
            self._end(opened.span, sent.error)
            _put_back(opened)

        return end

    # --- requests -------------------------------------------------------------------------------------------------

    def _began(self, event: RequestBegan) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        attributes: dict[str, str | int] = {
            "http.request.method": event.method,
            "url.path": self.context.mask(event.path),
            "kernel.component": event.component,
            "kernel.worker": event.worker,
        }
        parent = parent_of(headers, is_plain=self._is_plain)
        self._requests[id(event.request)] = self._start(event.method, SpanKind.SERVER, parent, attributes)

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

    def _calls_unrecorded(self, deliveries: Sequence[Delivery]) -> Mapping[str, object] | Literal[False]:
        """Have a handler go on in a trace that is not recorded, if that is what its message is in or begins.

        Returns:
            What is sent from it takes along; False if its trace may be recorded.
        """
        if len(deliveries) != 1:
            return False
        headers = deliveries[0].envelope.headers
        header = headers.get(HEADER)
        along: Mapping[str, object] = headers
        # Nearly all look like this, and nothing more is asked of them before somebody makes something of one.
        if len(headers) != 1 or type(header) is not str or len(header) != LENGTH or header[-3:] != "-00":
            going_on = self._goes_on(header, headers)
            if going_on is None:
                return False
            along = going_on
        within = Within()
        within.along = along
        around = self._attach(within).old_value
        if around is not _MISSING and around:
            self._attach(contexts.Context({**around, SPAN_KEY: Unrecorded(along)}))
        return along

    def _goes_on(self, header: object, headers: Mapping[str, object]) -> Mapping[str, object] | None:
        """Return what goes along of a trace that is not recorded; None if it may be, or if there is more to it."""
        if "baggage" in headers:
            return None
        if header is None:
            return None if DRAWN.get() else self._drawn()
        if not (isinstance(header, str) and is_unrecorded(header)):
            return None
        state = TraceState.from_header([text]) if isinstance(text := headers.get(STATE), str) else None
        return {HEADER: header, STATE: state.to_header()} if state else {HEADER: header}

    def _sends_unrecorded(self, along: Mapping[str, object]) -> Mapping[str, object] | bool:
        """Whether what is sent next goes on in a trace that is not recorded; if it begins one, what it takes along.

        Args:
            along: What is taken along so far.
        """
        if along and (header := along.get(HEADER)) is not None:
            return bool(is_unrecorded(str(header)))
        if self._running() and trace.get_current_span() is not trace.INVALID_SPAN:
            return False  # within a span of the user's own
        ahead = self._ahead
        if ahead and not along and not isinstance(first := ahead[-1], int):  # as of nearly all: without another call
            ahead.pop()
            return first
        drawn = self._drawn()
        return False if drawn is None else {**along, **drawn} if along else drawn

    def _drawn(self) -> Mapping[str, str] | None:
        """Decide about a trace that would begin here: return what says that it is not recorded, or None."""
        if not self._ahead:
            self._ahead += draw(self.bound or 0)
        drawn = self._ahead.pop()
        if isinstance(drawn, int):
            DRAWN.set(drawn)
            return None
        return drawn

    # --- what is recorded, and made by the SDK with others ----------------------------------------------------------

    def _called_later(
        self, name: str, kind: SpanKind, headers: Mapping[str, object], attributes: Mapping[str, str | int]
    ) -> Later | None:
        """Return the span of a handler; None if it cannot wait, or if there is more to its parent than a header."""
        if not (self._is_foretold and self.backlog.is_open and MORE.isdisjoint(headers)):
            return None
        header = headers.get(HEADER)
        if header is None:
            return self._begun_later(name, kind, attributes)
        told = told_by(header) if isinstance(header, str) else None
        if told is None:
            return None
        return Later(
            backlog=self.backlog, name=name, kind=kind, attributes=attributes, trace_id=int(told[1], 16), parent=told[0]
        )

    def _sent_later(
        self, name: str, kind: SpanKind, within: TraceContext, attributes: Mapping[str, str | int]
    ) -> Later | None:
        """Return the span of a message that is sent; None if it cannot wait, or if it is sent within one of the user's."""
        if not (self._is_foretold and self.backlog.is_open):
            return None
        if type(within) is WithinLater:
            around = within.later
            return Later(
                backlog=self.backlog, name=name, kind=kind, attributes=attributes,
                trace_id=around.trace_id, parent=around.header, is_remote=False,
            )  # fmt: skip
        return None if within else self._begun_later(name, kind, attributes)

    def _begun_later(self, name: str, kind: SpanKind, attributes: Mapping[str, str | int]) -> Later | None:
        drawn = DRAWN.get()
        if not drawn:
            return None
        DRAWN.set(0)
        return Later(backlog=self.backlog, name=name, kind=kind, attributes=attributes, trace_id=drawn)

    def _go_on_in(self, later: Later) -> Mapping[str, object]:
        """Have what follows in this context belong to a span; return what has been taken along so far."""
        within = WithinLater()
        within.later = later
        contexts.attach(within)
        return carry({HEADER: later.header})

    def _end_later(self, later: Later, error: BaseException | None) -> None:
        if error is not None:
            note_end(later.made(), error, self.context.mask)
        self.backlog.end(later)

    # --- spans ----------------------------------------------------------------------------------------------------

    def _start(
        self,
        name: str,
        kind: SpanKind,
        parent: TraceContext,
        attributes: Mapping[str, str | int],
        links: Sequence[Link] = (),
    ) -> _Open:
        """Start a span, and have what follows in this context belong to it.

        It is given its attributes at once: a sampler may ask for them, and to add them afterwards takes as long again.
        """
        span = self.backlog.tracer.start_span(name, parent, kind, attributes, links)
        DRAWN.set(0)
        within = trace.set_span_in_context(span, parent)
        before = contexts.get_current()
        contexts.attach(within)
        return _Open(span, before, carry(written(within, span, is_plain=self._is_plain)))

    def _end(self, span: Span, error: BaseException | None) -> None:
        if error is not None:
            note_end(span, error, self.context.mask)
        span.end()


def _put_back(opened: _Open) -> None:
    contexts.attach(opened.before)
    carry(opened.headers)
