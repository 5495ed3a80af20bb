"""What is measured of a service: its events are counted as they happen, the rest is read when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias, cast, final

import attrs
import trio

from kernel import (
    Ack,
    DeadLetter,
    DeliveryRevoked,
    DeliverySettled,
    HandlerCalled,
    HandlerDone,
    HookFailed,
    LoopBlocked,
    RequestDone,
    Retry,
    Return,
    SettleFailed,
    carried,
)

from ._config import MetricsConfig
from ._counting import Counter, Histogram, TurnTimes

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
    turns: TurnTimes = attrs.field(init=False, factory=lambda: TurnTimes(TURNS))

    def __attrs_post_init__(self) -> None:
        cap, buckets = self.config.max_series, self.config.buckets
        for name in ("deliveries", "running", "failed", "requests", "request_bytes", "unsettled", "revoked", "stalls"):
            setattr(self, name, Counter(cap))
        self.hook_failures = Counter(cap)
        for name in ("delivery_times", "handler_times", "request_times"):
            setattr(self, name, Histogram(buckets, cap))

    @property
    def capped(self) -> int:
        """How often there was no room for label values."""
        counters = (self.deliveries, self.requests, self.request_bytes, self.hook_failures)
        return sum(one.capped for one in (*counters, self.delivery_times, self.handler_times, self.request_times))

    @contextmanager
    def counting(self) -> Generator[None]:
        """Count while inside."""
        trio.lowlevel.add_instrument(self.turns)
        ends = [
            self.context.subscribe(cast("Hook", self._settled), DeliverySettled),
            self.context.subscribe(cast("Hook", self._requested), RequestDone),
            self.context.subscribe(self._seldom, SettleFailed, DeliveryRevoked, LoopBlocked, HookFailed),
        ]
        if self.config.handlers or self.config.micro_framework:
            ends.append(self.context.subscribe(cast("Hook", self._handled), HandlerDone))
        if self.config.micro_framework:
            ends.append(self.context.subscribe(cast("Hook", self._called), HandlerCalled))
        try:
            yield
        finally:
            for end in ends:
                end()
            trio.lowlevel.remove_instrument(self.turns)

    # --- hooks: each runs for each delivery, call or request ----------------------------------------------------

    def _settled(self, event: DeliverySettled) -> None:
        dispatcher = event.component
        self.deliveries.add((dispatcher, event.worker, _OUTCOMES[type(event.outcome)]))
        self.delivery_times.observe((dispatcher, event.worker), event.seconds)

    def _called(self, event: HandlerCalled) -> None:
        self.running.add((event.component, event.method))

    def _handled(self, event: HandlerDone) -> None:
        labels = (event.component, event.method)
        self.handler_times.observe(labels, event.seconds, trace_id())
        if self.config.micro_framework:
            self.running.add(labels, -1.0)
            if event.error is not None:
                self.failed.add(labels)

    def _requested(self, event: RequestDone) -> None:
        dispatcher, worker = event.component, event.worker
        method = event.method if event.method in _METHODS else "other"
        self.requests.add((dispatcher, worker, method, str(event.status)))
        self.request_times.observe((dispatcher, worker), event.seconds)
        self.request_bytes.add((dispatcher, worker, "received"), event.received)
        self.request_bytes.add((dispatcher, worker, "sent"), event.sent)

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
