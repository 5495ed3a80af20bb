"""Config and environment -> a provider of tracers that sends spans by OTLP."""

from __future__ import annotations

import os
import re
from contextvars import ContextVar
from typing import Final, final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from typing_extensions import override

from ._config import OtelConfig

DRAWN: Final[ContextVar[int]] = ContextVar("kernel_otel.drawn", default=0)
"""The id of the trace that the span which is started next begins, if it begins one; 0 if none has been drawn."""
_FORETOLD: Final = re.compile(
    r"ParentBased\{root:(?P<root>AlwaysOnSampler|AlwaysOffSampler|TraceIdRatioBased\{(?P<share>[^{}]+)\}),"
    r"remoteParentSampled:AlwaysOnSampler,remoteParentNotSampled:AlwaysOffSampler,"
    r"localParentSampled:AlwaysOnSampler,localParentNotSampled:AlwaysOffSampler\}"
).fullmatch
"""How a sampler describes itself that does as others did, and decides about what begins here by its id."""


def provider_for(config: OtelConfig, service: str) -> TracerProvider:
    """Return a provider; it becomes that of the process if there is none yet, for what asks for tracers anywhere."""
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": service}
    resource = Resource.create({**named, **config.resource})
    provider = TracerProvider(resource=resource, sampler=_sampler(config), id_generator=_Ids(), shutdown_on_exit=False)
    if config.exporter == "otlp":
        headers = {name: secret.reveal() for name, secret in config.headers.items()}
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(config.endpoint, headers=headers or None)))
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider)
    return provider


def _sampler(config: OtelConfig) -> Sampler | None:
    """Return the sampler that the manifest asks for; None leaves it to the environment."""
    return None if config.sample is None else ParentBased(TraceIdRatioBased(config.sample))


def bound_of(sampler: Sampler) -> int | None:
    """Return below which number the low half of its id has a trace recorded that begins here; None if nobody can tell.

    Nobody can of samplers that look at anything else, nor of those that decide anew about what others have begun.
    """
    if type(sampler) is not ParentBased:
        return None
    found = _FORETOLD(str(sampler.get_description()))  # type: ignore[no-untyped-call]  # the SDK forgot its type
    if found is None:
        return None
    if found["share"] is None:
        return 0 if found["root"] == "AlwaysOffSampler" else TraceIdRatioBased.get_bound_for_rate(1.0)
    return TraceIdRatioBased.get_bound_for_rate(float(found["share"]))


@final
class _Ids(RandomIdGenerator):
    """Gives a trace the id that has been drawn for it: another one might not be recorded, as that one is."""

    @override
    def generate_trace_id(self) -> int:
        return DRAWN.get() or super().generate_trace_id()
