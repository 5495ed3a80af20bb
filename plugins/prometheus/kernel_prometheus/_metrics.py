"""What is measured of a service: its events are counted as they happen, the rest is read when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias, cast, final

import attrs
import trio

from kernel import (
    Ack,
    CountsAsked,
    DeadLetter,
    DeliveryDone,
    DeliveryRevoked,
    DeliverySettled,
    HandlerCalled,
    HandlerDone,
    HookFailed,
    LoopBlocked,
    RequestCounted,
    RequestDone,
    RequestsDone,
    Retry,
    Return,
    SettleFailed,
    carried,
)
from kernel.abc import hearing

from ._config import MetricsConfig
from ._counting import Counter, Histogram, Labels, TurnTimes
from ._rows import DeliveryRow, RequestRow

if TYPE_CHECKING:
    from kernel import Event
    from kernel.abc import Context

Hook: TypeAlias = "Callable[[Event], object]"
_OUTCOMES: Final[dict[type[object], str]] = {
    Ack: "ack",
    Retry: "retry",
    DeadLetter: "dead_letter",
    Return: "return",
}
_METHODS: Final = frozenset({
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "CONNECT",
    "TRACE",
    "websocket",
})
_HOOK: Final = f"{__name__}:Metrics.count"
TURNS: Final = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Seconds: the upper bounds for turns of the event loop."""
_SAMPLED: Final = frozenset("13579bdf")
"""Last digits of the flags of a trace that is recorded."""


@final
@attrs.define(eq=False, repr=False)
class Metrics:
    """What has been counted in one life of a component."""

    context: Context
    config: MetricsConfig
    deliveries: Counter = attrs.field(init=False)
    """By dispatcher, worker and outcome."""
    delivery_times: Histogram = attrs.field(init=False)
    """By dispatcher and worker."""
    queue_times: Histogram = attrs.field(init=False)
    """By dispatcher and worker, where the source tells when it was sent."""
    handler_times: Histogram = attrs.field(init=False)
    """By worker and method."""
    failed: Counter = attrs.field(init=False)
    """Handlers that raised or were cut, by worker and method; for the names of micro-framework."""
    running: Counter = attrs.field(init=False)
    """Handlers that run, by worker and method."""
    requests: Counter = attrs.field(init=False)
    """By dispatcher, worker, method and status."""
    request_times: Histogram = attrs.field(init=False)
    """By dispatcher and worker."""
    request_bytes: Counter = attrs.field(init=False)
    """By dispatcher, worker and direction."""
    unsettled: Counter = attrs.field(init=False)
    """Outcomes that the source did not take, by dispatcher."""
    revoked: Counter = attrs.field(init=False)
    """By dispatcher."""
    stalls: Counter = attrs.field(init=False)
    """Without labels."""
    hook_failures: Counter = attrs.field(init=False)
    """By hook."""
    turns: TurnTimes = attrs.field(
        init=False, default=attrs.Factory(lambda self: TurnTimes(TURNS, self.count), takes_self=True)
    )
    _done: list[DeliveryDone] = attrs.field(factory=list[DeliveryDone], init=False)
    """Deliveries that ended in this turn, and are counted at its end: one after the other, that costs half."""
    _delivered: dict[Labels, DeliveryRow] = attrs.field(init=False, factory=dict[Labels, DeliveryRow])
    """By dispatcher and worker; with the next, whatever there was room for."""
    _answered: dict[tuple[str, str, str, int], RequestRow] = attrs.field(
        init=False, factory=dict["tuple[str, str, str, int]", RequestRow]
    )
    """By dispatcher, worker, method and status."""

    def __attrs_post_init__(self) -> None:
        cap, buckets = self.config.max_series, self.config.buckets
        for name in ("deliveries", "running", "failed", "requests", "request_bytes", "unsettled", "revoked", "stalls"):
            setattr(self, name, Counter(cap))
        self.hook_failures = Counter(cap)
        for name in ("delivery_times", "queue_times", "handler_times", "request_times"):
            setattr(self, name, Histogram(buckets, cap))

    @property
    def capped(self) -> int:
        """How often there was no room for label values."""
        counters = (self.deliveries, self.requests, self.request_bytes, self.hook_failures)
        times = (self.delivery_times, self.queue_times, self.handler_times, self.request_times)
        return sum(one.capped for one in (*counters, *times))

    @contextmanager
    def counting(self) -> Generator[None]:
        """Count while inside."""
        trio.lowlevel.add_instrument(self.turns)
        hooks: list[tuple[Callable[..., object], type[Event]]] = [(self._done.append, DeliveryDone)]
        hooks.append((self._answered_together, RequestsDone))
        hooks += [(self._seldom, kind) for kind in (SettleFailed, DeliveryRevoked, LoopBlocked, HookFailed)]
        if self.config.handlers or self.config.micro_framework:
            hooks.append((self._handled, HandlerDone))
        if self.config.micro_framework:
            hooks.append((self._called, HandlerCalled))
        subscribe = self.context.subscribe
        ends = [
            subscribe(cast("Hook", self._settled), DeliverySettled, but=(DeliveryDone,)),
            subscribe(cast("Hook", self._answered_alone), RequestDone, but=(RequestCounted,)),
        ]
        try:
            with hearing(self.context, *hooks):
                yield
        finally:
            for end in ends:
                end()
            trio.lowlevel.remove_instrument(self.turns)
            self.count()

    def count(self) -> None:
        """Count what has ended in this turn so far. Only in the thread of the event loop."""
        if self._done:
            self._count_rows(self._sorted())

    def count_all(self) -> None:
        """Count what has ended so far, also what others have gathered. Only in the thread of the event loop."""
        self.context.emit(CountsAsked(component=self.context.id))
        self.count()

    def _count_rows(self, rows: Iterable[DeliveryRow | RequestRow]) -> None:
        for row in rows:
            try:
                row.count()
            except Exception:  # noqa: BLE001  as below
                self.hook_failures.add((_HOOK,))

    def _sorted(self) -> Iterable[DeliveryRow]:
        """Return the rows of what has ended, each with its values: many a turn has but one."""
        rows: dict[int, DeliveryRow] = {}
        row = None
        for event in self._done:
            try:
                if row is None or event.worker is not row.worker or event.component is not row.dispatcher:
                    row = self._delivered.get((event.component, event.worker)) or self._row_of(event)
                    rows[id(row)] = row
                row.seconds.append(event.seconds)
                if event.queued is not None:
                    row.queued.append(event.queued)
            except Exception:  # noqa: BLE001  a plugin may tell of anything; trio would call this no more
                self.hook_failures.add((_HOOK,))
        self._done.clear()
        return rows.values()

    def _sorted_requests(self, event: RequestsDone) -> Iterable[RequestRow]:
        """Return the rows of requests that have ended, likewise."""
        rows: dict[int, RequestRow] = {}
        row = None
        for worker, method, status, seconds, received, sent in event.requests:
            try:
                if row is None or status != row.status or worker is not row.worker or method != row.method:
                    row = self._row_of_request(event.component, worker, method, status)
                    rows[id(row)] = row
                row.add(seconds, received, sent)
            except Exception:  # noqa: BLE001  as above
                self.hook_failures.add((_HOOK,))
        return rows.values()

    # --- hooks: each runs for each delivery, call or request --------------------------------------------------

    def _settled(self, event: DeliverySettled) -> None:
        self.deliveries.add((event.component, event.worker, _OUTCOMES[type(event.outcome)]))
        self.delivery_times.observe((event.component, event.worker), event.seconds)
        if event.queued is not None:
            self.queue_times.observe((event.component, event.worker), event.queued)

    def _row_of(self, event: DeliveryDone) -> DeliveryRow:
        labels, capped = (event.component, event.worker), self.capped
        acks = self.deliveries.room_for((*labels, "ack"))
        row = DeliveryRow(*labels, acks, self.deliveries.counts, self.delivery_times.of(labels), self.queue_times)
        if self.capped == capped:  # else others could fill the memory
            self._delivered[labels] = row
        return row

    def _called(self, event: HandlerCalled) -> None:
        self.running.add((event.component, event.method))

    def _handled(self, event: HandlerDone) -> None:
        labels = (event.component, event.method)
        self.handler_times.observe(labels, event.seconds, trace_id())
        if self.config.micro_framework:
            self.running.add(labels, -1.0)
            if event.error is not None:
                self.failed.add(labels)

    def _answered_together(self, event: RequestsDone) -> None:
        self._count_rows(self._sorted_requests(event))

    def _answered_alone(self, event: RequestDone) -> None:
        row = self._row_of_request(event.component, event.worker, event.method, event.status)
        row.add(event.seconds, event.received, event.sent)
        row.count()

    def _row_of_request(self, dispatcher: str, worker: str, method: str, status: int) -> RequestRow:
        key = (dispatcher, worker, method, status)
        return self._answered.get(key) or self._new_row_of_request(*key)

    def _new_row_of_request(self, dispatcher: str, worker: str, asked: str, status: int) -> RequestRow:
        labels, capped = (dispatcher, worker), self.capped
        method = asked if asked in _METHODS else "other"
        row = RequestRow(
            *labels,
            asked,
            status,
            by=self.requests.room_for((*labels, method, str(status))),
            counts=self.requests.counts,
            received_by=self.request_bytes.room_for((*labels, "received")),
            sent_by=self.request_bytes.room_for((*labels, "sent")),
            amounts=self.request_bytes.counts,
            times=self.request_times.of(labels),
        )
        if self.capped == capped and method == asked:  # as above
            self._answered[*labels, method, status] = row
        return row

    def _seldom(self, event: Event) -> None:
        match event:
            case SettleFailed():
                self.unsettled.add((event.component,))
            case DeliveryRevoked():
                self.revoked.add((event.component,))
            case LoopBlocked():
                self.stalls.add(())
            case HookFailed():
                self.hook_failures.add((event.hook,))
            case _:
                pass


def trace_id() -> str:
    """Return the id of the sampled trace that the current task belongs to; empty if there is none."""
    parts = str(carried().get("traceparent", "")).split("-")
    return parts[1] if len(parts) == 4 and parts[3][-1:] in _SAMPLED else ""
