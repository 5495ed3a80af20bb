"""What is seen from outside of the shop, and that no secret is among it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from kernel import DeadLetter, Listening, handles
from kernel.testing import OpenKernel

MANIFEST = Path(__file__).with_name("kernel.toml")
ANYWHERE = {"HEALTH_BIND": "127.0.0.1:0", "METRICS_BIND": "127.0.0.1:0", "API_BIND": "127.0.0.1:0"}
CANARY = "yellow-feathers-0123456789"
LEAKS = f"""
[workers.leaks]
use = "{__name__}:Leaks"
essential = false
restart = {{ max_restarts = 0 }}
"""


@pytest.fixture(autouse=True)
def _own_metrics() -> Iterator[None]:
    """Each service imports the module of the workers anew, and with it makes their metrics."""
    _forget_metrics()  # of whoever imported it before
    yield
    _forget_metrics()


def _forget_metrics() -> None:
    for collector in {REGISTRY._names_to_collectors.get("shop_packed_total")} - {None}:  # noqa: SLF001
        REGISTRY.unregister(collector)


async def address(service: Any, name: str) -> str:
    found = await service.wait_event(Listening, lambda event: event.component == f"dispatcher/{name}")
    return str(found.address)


@pytest.mark.slow
async def test_an_order_is_seen_in_everything_that_looks_on(open_kernel: OpenKernel) -> None:
    async with open_kernel(MANIFEST, environ=ANYWHERE) as service, httpx.AsyncClient() as client:
        spans = InMemorySpanExporter()
        service.resource("driver/traces").add_span_processor(SimpleSpanProcessor(spans))
        answer = await client.post(f"{await address(service, 'api')}/orders", json={"sku": "tea"})
        await service.wait_settled(2)
        ready = await client.get(f"{await address(service, 'health')}/ready")
        metrics = await client.get(f"{await address(service, 'metrics')}/metrics")

    assert (answer.status_code, ready.text) == (202, "ready\n")
    assert (
        'kernel_deliveries_total{dispatcher="dispatcher/orders",outcome="ack",worker="worker/packer"} 1.0'
        in metrics.text
    )
    assert 'shop_packed_total{sku="tea"}' in metrics.text
    assert len({span.context.trace_id for span in spans.get_finished_spans()}) == 1
    assert {span.name for span in spans.get_finished_spans()} == {
        "POST", "send events", "process packer.pack", "call events", "process pricing.of",
    }  # fmt: skip


@pytest.mark.slow
async def test_a_canary_is_found_in_nothing_that_leaves(open_kernel: OpenKernel, tmp_path: Path) -> None:
    """A secret of the manifest that is the text of an exception, of a component's failure and of a subject's."""
    (tmp_path / "secret").write_text(CANARY)
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "observed_shop.py").write_text(MANIFEST.with_name("observed_shop.py").read_text())
    text = MANIFEST.read_text().replace("observed_shop:Packer", f"{__name__}:Leaky")
    secret = 'sample = 1.0\nheaders = { authorization = { file = "secret" } }'
    (tmp_path / "kernel.toml").write_text(text.replace("sample = 1.0", secret) + LEAKS)
    async with (
        open_kernel(tmp_path / "kernel.toml", environ=ANYWHERE, expected=Exception) as service,
        httpx.AsyncClient() as client,
    ):
        spans = InMemorySpanExporter()
        service.resource("driver/traces").add_span_processor(SimpleSpanProcessor(spans))
        await client.post(f"{await address(service, 'api')}/orders", json={"sku": "tea"})
        await service.wait_settled(matching=lambda event: isinstance(event.outcome, DeadLetter))
        status = (await client.get(f"{await address(service, 'health')}/status")).text
        ready = (await client.get(f"{await address(service, 'health')}/ready")).text
        metrics = (await client.get(f"{await address(service, 'metrics')}/metrics")).text

    traces = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "***" in next(one for one in json.loads(status)["components"] if one["id"] == "worker/leaks")["error"]
    assert "***" in traces
    assert [CANARY in text for text in (status, ready, metrics, traces)] == [False] * 4


class Leaky:
    """Says a secret when it fails."""

    def __init__(self, prices: Any) -> None: ...

    @handles("order.created")
    async def pack(self, payload: object) -> None:
        raise ValueError(f"https://user:{CANARY}@host and {CANARY}")


class Leaks:
    """Says it when it starts."""

    async def run(self) -> None:
        raise ValueError(f"password={CANARY}")
