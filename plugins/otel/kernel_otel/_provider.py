"""Config and environment -> a provider of tracers that sends spans by OTLP."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from typing_extensions import override

from ._config import OtelConfig

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, TraceState
    from opentelemetry.util.types import Attributes

IS_DRAWN: Final[ContextVar[bool]] = ContextVar("kernel_otel.is_drawn", default=False)
"""Whether it has been decided that the span which is started next is recorded, if it begins a trace."""


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
    return None if config.sample is None else ParentBased(_Share(config.sample))


@final
class _Share(TraceIdRatioBased):
    """Decides about traces that begin, if that is not done already: twice would be the share of a share."""

    @override
    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if IS_DRAWN.get():
            return ALWAYS_ON.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        return super().should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
