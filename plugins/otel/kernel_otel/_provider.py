"""Config and environment -> a provider of tracers that sends spans by OTLP."""

from __future__ import annotations

import os

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased

from ._config import OtelConfig


def provider_for(config: OtelConfig, service: str) -> TracerProvider:
    """Return a provider; it becomes that of the process if there is none yet, for what asks for tracers anywhere."""
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": service}
    resource = Resource.create({**named, **config.resource})
    provider = TracerProvider(resource=resource, sampler=_sampler(config), shutdown_on_exit=False)
    if config.exporter == "otlp":
        headers = {name: secret.reveal() for name, secret in config.headers.items()}
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(config.endpoint, headers=headers or None)))
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider)
    return provider


def _sampler(config: OtelConfig) -> Sampler | None:
    """Return the sampler that the manifest asks for; None leaves it to the environment."""
    return None if config.sample is None else ParentBased(TraceIdRatioBased(config.sample))
