"""Spans that wait for others are those that the SDK makes at once, and are there when somebody asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import trio
from kernel_otel._provider import Provider
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.context import get_current as current
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kernel import handles
from kernel.testing import RunningService, open_kernel

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
COMMON = {"driver": "queue", "protocol": "json"}


class Many:
    """Does what makes spans of every kind."""

    def __init__(self, events: Any, rpc: Any, traces: Any) -> None:
        self.events = events
        self.rpc = rpc
        self.tracer = traces.get_tracer("user")

    @handles("calls")
    async def calls(self, payload: object) -> None:
        await self.events.publish("nothing", payload)
        with self.tracer.start_as_current_span("own"):
            await self.rpc.call("price", payload)
        trace.get_current_span().set_attribute("user.number", 7)

    @handles("price")
    async def price(self, payload: object) -> int:
        return 3

    @handles("nothing")
    async def nothing(self, payload: object) -> None: ...

    @handles("raises")
    async def raises(self, payload: object) -> None:
        raise ValueError("no")

    @handles("hangs")
    async def hangs(self, payload: object) -> None:
        await trio.sleep_forever()


class Keeps:
    contexts: ClassVar[list[Context]] = []

    @handles("#")
    async def any(self, payload: object) -> None:
        Keeps.contexts.append(current())


def manifest(use: str) -> dict[str, Any]:
    return {
        "kernel": {"name": "shop"},
        "drivers": {
            "queue": {"plugin": "memory"},
            "events": {"plugin": "publisher", **COMMON},
            "rpc": {"plugin": "rpc_client", **COMMON},
            "traces": {"plugin": "otel", "exporter": "none", "sample": 1.0},
        },
        "dispatchers": {"work": {"plugin": "consumer", **COMMON, "queue": "q", "bindings": ["#"]}},
        "workers": {"w": {"use": f"{__name__}:{use}", "dispatcher": "work", "timeout": 1.0, "retry": {"attempts": 1}}},
    }


def provider_of(running: RunningService) -> Provider:
    found = running.resource("driver/traces")
    assert isinstance(found, Provider)
    return found


def exporting(running: RunningService) -> InMemorySpanExporter:
    """Return what spans are exported to that may wait."""
    exporter = InMemorySpanExporter()
    provider_of(running).export_by(SimpleSpanProcessor(exporter))
    return exporter


def hearing(running: RunningService) -> InMemorySpanExporter:
    """Return what hears of spans as they happen."""
    exporter = InMemorySpanExporter()
    provider_of(running).add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def told(spans: Sequence[ReadableSpan]) -> list[tuple[object, ...]]:
    """Return what is the same whenever the same happens, in an order that is the same."""
    names = {span.context.span_id: span.name for span in spans}
    ids = {"messaging.message.id", "messaging.message.conversation_id"}
    all_ = [
        (
            span.name,
            span.kind,
            span.parent and (names.get(span.parent.span_id), span.parent.is_remote, span.parent.trace_flags),
            {key: value for key, value in (span.attributes or {}).items() if key not in ids},
            (span.status.status_code, [event.name for event in span.events]),
            (span.context.trace_flags, span.resource.attributes["service.name"], span.instrumentation_scope),
        )
        for span in spans
    ]
    return sorted(all_, key=repr)


async def scene(running: RunningService) -> None:
    await running.publish("events", "calls", 1)
    await running.wait_settled(3)
    await running.publish("events", "calls", 2, headers={"traceparent": PARENT})
    await running.wait_settled(6)
    await running.publish("events", "raises", 3)
    await running.wait_settled(7)
    await running.publish("events", "hangs", 4)
    await running.wait_settled(8)


async def test_spans_that_wait_are_those_that_are_made_at_once(autojump_clock: object) -> None:
    async with open_kernel(manifest("Many"), expected=Exception) as running:
        heard = hearing(running)
        await scene(running)
    async with open_kernel(manifest("Many"), expected=Exception) as running:
        exported = exporting(running)
        await scene(running)

    assert told(exported.get_finished_spans()) == told(heard.get_finished_spans())
    assert len(told(exported.get_finished_spans())) >= 16


async def test_what_has_ended_waits_for_a_second(autojump_clock: object) -> None:
    async with open_kernel(manifest("Keeps")) as running:
        exporter = exporting(running)
        await running.publish("events", "x", None)
        await running.wait_settled()
        before = len(exporter.get_finished_spans())
        await trio.sleep(1.1)
        after = exporter.get_finished_spans()

    assert (before, len(after)) == (0, 2)
    assert all((span.end_time or 0) >= (span.start_time or 0) for span in after)


async def test_no_more_than_a_few_wait(autojump_clock: object) -> None:
    async with open_kernel(manifest("Keeps")) as running:
        exporter = exporting(running)
        for _ in range(100):
            await running.publish("events", "x", None)
        await running.wait_settled(100)

        assert 200 - 32 < len(exporter.get_finished_spans()) <= 200


async def test_what_waits_is_made_for_who_flushes(autojump_clock: object) -> None:
    async with open_kernel(manifest("Keeps")) as running:
        exporter = exporting(running)
        await running.publish("events", "x", None)
        await running.wait_settled()
        await trio.to_thread.run_sync(provider_of(running).force_flush)

        assert len(exporter.get_finished_spans()) == 2


async def test_what_waits_is_made_before_somebody_hears_of_spans_and_then_none_waits(autojump_clock: object) -> None:
    async with open_kernel(manifest("Keeps")) as running:
        exporter = exporting(running)
        await running.publish("events", "x", None)
        await running.wait_settled()
        heard = hearing(running)
        counts = [len(exporter.get_finished_spans()), len(heard.get_finished_spans())]
        await running.publish("events", "x", None)
        await running.wait_settled(2)
        counts += [len(exporter.get_finished_spans()), len(heard.get_finished_spans())]

    assert counts == [2, 0, 4, 2]


async def test_what_waits_is_made_when_the_service_ends(autojump_clock: object) -> None:
    async with open_kernel(manifest("Keeps")) as running:
        exporter = exporting(running)
        await running.publish("events", "x", None)
        await running.wait_settled()

    assert len(exporter.get_finished_spans()) == 2


@pytest.mark.parametrize("when", ["waits", "made"])
async def test_a_context_that_is_kept_has_the_span_that_has_ended(when: str, autojump_clock: object) -> None:
    Keeps.contexts.clear()
    async with open_kernel(manifest("Keeps")) as running:
        exporter = exporting(running)
        await running.publish("events", "x", None, headers={"traceparent": PARENT})
        await running.wait_settled()
        await trio.sleep(1.1 if when == "made" else 0)
        span = trace.get_current_span(Keeps.contexts[0])
        name, is_recording = span.name, span.is_recording()  # type: ignore[attr-defined]

    assert (name, is_recording) == ("process w.any", False)
    assert [one.context for one in exporter.get_finished_spans() if one.name == name] == [span.get_span_context()]
