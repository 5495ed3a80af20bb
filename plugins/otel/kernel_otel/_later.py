"""Spans that are recorded, made by the SDK many at a time: one between a hundred messages takes it four times as long.

What is begun is noted, under the ids and at the time that its span has. The span itself is made when somebody asks for
it, or with others when they have ended.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping
from contextvars import ContextVar
from threading import RLock
from typing import TYPE_CHECKING, Final, final

import attrs
import trio
from opentelemetry import context as contexts
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from typing_extensions import override

from ._unrecorded import SPAN_KEY, Within, told_by

if TYPE_CHECKING:
    from opentelemetry.context import Context as TraceContext
    from opentelemetry.trace import Span, SpanKind, Tracer

DRAWN: Final[ContextVar[int]] = ContextVar("kernel_otel.drawn", default=0)
"""The id of the trace that the span which is started next begins, if it begins one; 0 if none has been drawn."""
_SPAN_ID: Final[ContextVar[int]] = ContextVar("kernel_otel.span_id", default=0)
"""The id of the span that is started next; 0 if it is to get a new one."""
_RANDOM: Final = 2
"""The flag of a trace whose id is drawn at random. Source: W3C Trace Context, level 2."""
_KEPT: Final = _RANDOM if hasattr(RandomIdGenerator, "is_trace_id_random") else 0
"""What a span has of the flags of its parent; releases of the SDK that do not know it give it to none."""
SAMPLED: Final = 1
_MANY: Final = 32
_DELAY: Final = 1.0
"""Seconds for which a span that has ended may wait for others; the exporter waits longer, for more of them."""


@final
class Ids(RandomIdGenerator):
    """Gives a span the ids that have been noted for it: those have been told to others.

    Another id of a trace might not be recorded, as the drawn one is.
    """

    @override
    def generate_trace_id(self) -> int:
        return DRAWN.get() or super().generate_trace_id()

    @override
    def generate_span_id(self) -> int:
        noted = _SPAN_ID.get()
        if not noted:
            return super().generate_span_id()
        _SPAN_ID.set(0)  # what a processor starts when it hears of this one is another
        return noted


@final
@attrs.define(eq=False, repr=False)
class Backlog:
    """Spans that have ended, until the SDK makes them: when there are 32, or after a second. Never more than that."""

    tracer: Tracer
    is_open: bool = True
    """Whether spans may wait: nobody but the exporter hears of them."""
    lock: RLock = attrs.field(factory=RLock, init=False)
    """A span may be asked for in any thread."""
    _ended: deque[Later] = attrs.field(factory=deque["Later"], init=False)
    _some: trio.Event = attrs.field(factory=trio.Event, init=False)

    def end(self, later: Later) -> None:
        """End a span now."""
        if later.end():
            return
        self._ended.append(later)
        if len(self._ended) >= _MANY or not self.is_open:
            self.flush()
        else:
            self._some.set()

    def flush(self) -> None:
        """Have all that have ended made. May be called from any thread."""
        before = contexts.attach(contexts.Context())  # of no span: what exports them looks at it
        try:
            for later in iter(self._next, None):
                later.made()
        finally:
            contexts.detach(before)

    def _next(self) -> Later | None:
        try:
            return self._ended.popleft()
        except IndexError:
            return None

    def close(self) -> None:
        """Have no span wait from now on."""
        self.is_open = False
        self.flush()

    async def run(self) -> None:
        """Have those made that have waited for long enough. Never returns unless cancelled."""
        while True:
            await self._some.wait()
            await trio.sleep(_DELAY)
            self._some = trio.Event()
            self.flush()


@final
@attrs.define(eq=False, repr=False, kw_only=True)
class Later:
    """A span that is recorded, of which nobody has asked the SDK yet."""

    backlog: Backlog
    name: str
    kind: SpanKind
    attributes: Mapping[str, str | int]
    trace_id: int
    parent: str = ""
    """The `traceparent` that tells of its parent; empty if it begins a trace."""
    is_remote: bool = True
    """Whether the parent is elsewhere."""
    span_id: int = attrs.field(factory=lambda: random.getrandbits(64) or 1, init=False)
    _flags: int = attrs.field(init=False)
    _began: int = attrs.field(factory=time.time_ns, init=False)
    _ended: int = attrs.field(default=0, init=False)
    _span: Span | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._flags = SAMPLED | (_KEPT & (int(self.parent[-2:], 16) if self.parent else _RANDOM))

    @property
    def header(self) -> str:
        """The `traceparent` that tells of it."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self._flags:02x}"

    def made(self) -> Span:
        """Return the span. It has ended if this has."""
        with self.backlog.lock:
            if self._span is None:
                self._span = self._start()
                if self._ended:
                    self._span.end(self._ended)
            return self._span

    def end(self) -> bool:
        """Note that it has ended; return whether its span is made."""
        with self.backlog.lock:
            self._ended = time.time_ns()
            if self._span is not None:
                self._span.end(self._ended)
            return self._span is not None

    def _start(self) -> Span:
        within = self._around()
        drawn, noted = DRAWN.set(self.trace_id), _SPAN_ID.set(self.span_id)
        before = contexts.attach(within)  # a processor that asks what runs is told of the parent
        try:
            return self.backlog.tracer.start_span(self.name, within, self.kind, self.attributes, start_time=self._began)
        finally:
            contexts.detach(before)
            _SPAN_ID.reset(noted)
            DRAWN.reset(drawn)

    def _around(self) -> TraceContext:
        told = told_by(self.parent)
        if told is None:
            return contexts.Context()
        _, span_id, flags = told.groups()
        parent = SpanContext(
            self.trace_id, int(span_id, 16), is_remote=self.is_remote, trace_flags=TraceFlags(int(flags, 16))
        )
        return contexts.Context({SPAN_KEY: NonRecordingSpan(parent)})


@final
class WithinLater(Within):
    """A context with nothing but a span that is made when somebody asks for it."""

    __slots__ = ("later",)
    later: Later

    @override
    def span(self) -> Span:
        return self.later.made()
