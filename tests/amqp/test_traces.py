"""One trace through a request, RabbitMQ and a call, as a collector of OpenTelemetry receives it over the wire."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kernel import Listening, handles
from kernel.testing import open_kernel


class Api:
    def __init__(self, events: Any) -> None:
        self.events = events

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await self.events.publish("order.created", {"sku": "tea"})
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Orders:
    def __init__(self, rpc: Any) -> None:
        self.rpc = rpc

    @handles("order.created")
    async def created(self, payload: object) -> None:
        await self.rpc.call("price.of", payload)


class Prices:
    @handles("price.of")
    async def of(self, payload: object) -> int:
        return 3


@contextmanager
def collecting() -> Iterator[tuple[str, list[Any]]]:
    """Be a collector: return where, and the spans that have come."""
    spans: list[Any] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
        finally:
            server.shutdown()
            thread.join()


def manifest(prefix: str, endpoint: str) -> dict[str, Any]:
    common = {"driver": "queue", "protocol": "json"}
    return {
        "kernel": {"name": "shop"},
        "drivers": {
            "queue": {"plugin": "amqp", "prefix": prefix},
            "events": {"plugin": "publisher", **common},
            "rpc": {"plugin": "rpc_client", **common},
            "traces": {"plugin": "otel", "endpoint": endpoint, "sample": 1.0},
        },
        "dispatchers": {
            "api": {"plugin": "web", "bind": "127.0.0.1:0"},
            "orders": {"plugin": "consumer", **common, "queue": "orders", "bindings": ["order.*"]},
            "prices": {"plugin": "consumer", **common, "queue": "prices", "bindings": ["price.*"]},
        },
        "workers": {
            "api": {"use": f"{__name__}:Api", "dispatcher": "api"},
            "orders": {"use": f"{__name__}:Orders", "dispatcher": "orders"},
            "prices": {"use": f"{__name__}:Prices", "dispatcher": "prices"},
        },
    }


async def test_a_collector_receives_one_connected_trace(mark: str) -> None:
    with collecting() as (endpoint, spans):
        async with open_kernel(manifest(f"{mark}traces-", endpoint)) as running:
            at = await running.wait_event(Listening)
            async with httpx.AsyncClient() as client:
                answer = await client.post(f"{at.address}/orders")
            await running.wait_settled(2)

    names = {span.span_id: span.name for span in spans}
    ways = {span.name: names.get(span.parent_span_id, "") for span in spans}
    assert answer.status_code == 202
    assert len({span.trace_id for span in spans}) == 1
    assert ways == {
        "POST": "",
        "send events": "POST",
        "process orders.created": "send events",
        "call events": "process orders.created",
        "process prices.of": "call events",
    }
