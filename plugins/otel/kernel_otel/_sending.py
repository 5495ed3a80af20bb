"""What becomes of spans that have ended: each is sent or counted as lost, around the SDK's own queue and exporter."""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, final

import attrs
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from typing_extensions import override

if TYPE_CHECKING:
    from opentelemetry.context import Context as TraceContext
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from kernel.abc import Losses

_TALKERS: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.trace.export",
    "urllib3.connectionpool",
)
"""The loggers that tell, with a traceback or for each span, of what is told here."""
_WHY: Final = (re.compile(r"Transient error (.+?) encountered"), re.compile(r"\bcode: (?:None, reason: )?(.+)"))
_GAVE_UP: Final = "due to timeout"
_QUERY: Final = re.compile(r"\?[^\s'\")]+")
"""Of an address: there may be a key in it."""
_LONGEST: Final = 200
_FULL: Final = "more ended than the collector took, and the queue is full"


@final
@attrs.define(eq=False, repr=False)
class Hush:
    """Has what the SDK says in some threads be no more than debugging output, and notes the first of it."""

    _threads: dict[int, list[str]] = attrs.field(factory=dict[int, list[str]], init=False)

    def begin(self) -> None:
        """Hear the SDK from now on."""
        for name in _TALKERS:
            logging.getLogger(name).addFilter(self._lower)

    def end(self) -> None:
        """Hear it no more: all threads have ended."""
        for name in _TALKERS:
            logging.getLogger(name).removeFilter(self._lower)

    @contextmanager
    def here(self) -> Generator[list[str]]:
        """Lower what is said in this thread while inside; yields what that is."""
        said: list[str] = []
        thread = threading.get_ident()
        before = self._threads.get(thread)
        self._threads[thread] = said
        try:
            yield said
        finally:
            if before is None:
                del self._threads[thread]
            else:
                self._threads[thread] = before

    def so_far(self) -> str:
        """Return, to be added to a sentence, what the SDK has said of what it is about now; empty if nothing."""
        said = next((said[:1] for said in tuple(self._threads.values()) if said), None)
        return f": {reason_of(said)}" if said else ""

    def _lower(self, record: logging.LogRecord) -> bool:
        said = self._threads.get(threading.get_ident())
        if said is not None and record.levelno > logging.DEBUG:
            said.append(record.getMessage())
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return True


@final
class CountingProcessor(SpanProcessor):
    """The SDK's queue of spans, which drops the oldest without a word when it is full."""

    def __init__(self, exporter: CountingExporter, hush: Hush) -> None:
        self._inner: Final = BatchSpanProcessor(exporter, max_queue_size=exporter.size)
        self._exporter: Final = exporter
        self._hush: Final = hush

    @override
    def on_start(self, span: Span, parent_context: TraceContext | None = None) -> None: ...

    @override
    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._exporter.lock, self._hush.here():  # in the order of the queue
            self._exporter.expect(span.context.span_id)
            self._inner.on_end(span)

    @override
    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._inner.force_flush(timeout_millis)

    @override
    def shutdown(self) -> None:
        self._inner.shutdown()  # type: ignore[no-untyped-call]  # the SDK forgot its type


@final
class CountingExporter(SpanExporter):
    """Says of each span that is exported, and of each that the queue has dropped before, what became of it."""

    def __init__(self, inner: SpanExporter, size: int, losses: Losses, hush: Hush) -> None:
        self.size: Final = size
        """How many spans may be in the queue."""
        self.lock: Final = threading.Lock()
        """Held by whoever changes what is expected."""
        self._inner: Final = inner
        self._losses: Final = losses
        self._hush: Final = hush
        self._expected: Final = deque[int]()
        """The ids of spans that were given to the queue, in its order."""

    def expect(self, span_id: int) -> None:
        """Note that a span is in the queue from now on. Called with the lock."""
        self._losses.take()
        self._expected.append(span_id)
        if len(self._expected) > 2 * self.size:  # a whole queue, and at most as many on their way out of it
            self._expected.popleft()
            self._losses.lose(1, _FULL)

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._pass_over(spans)
        if self._losses.is_over:
            return SpanExportResult.FAILURE
        with self._hush.here() as said:
            try:
                result = self._inner.export(spans)
            except Exception as error:  # noqa: BLE001  the SDK would log its traceback and go on
                result, said[:0] = SpanExportResult.FAILURE, [f"{type(error).__name__}: {error}"]
        if result is SpanExportResult.SUCCESS:
            self._losses.sent(len(spans))
        else:
            self._losses.lose(len(spans), reason_of(said))
        return result

    def _pass_over(self, spans: Sequence[ReadableSpan]) -> None:
        """Count what stood before these in the queue and did not come: it was full, and dropped it."""
        first = spans[0].context
        dropped = 0
        with self.lock:
            while first is not None and self._expected and self._expected[0] != first.span_id:
                self._expected.popleft()
                dropped += 1
            for _ in range(min(len(spans), len(self._expected))):
                self._expected.popleft()
        if dropped:
            self._losses.lose(dropped, _FULL)

    @override
    def shutdown(self) -> None:
        with self._hush.here():
            self._inner.shutdown()

    @override
    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._inner.force_flush(timeout_millis)


def reason_of(said: Sequence[str]) -> str:
    """Return what the SDK said first, which is what went wrong, and not that it gave up."""
    text = _QUERY.sub("?...", said[0]) if said else ""
    found = next((found[1] for found in (why.search(text) for why in _WHY) if found), text)
    if not found or _GAVE_UP in found:
        return "the collector is away, refuses them, or did not answer in time"
    return f"the collector did not take them: {found}"[:_LONGEST]
