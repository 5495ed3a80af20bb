"""Config and environment -> a provider of tracers that sends spans by OTLP."""

from __future__ import annotations

import os
import re
from typing import Final, final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from typing_extensions import override

from kernel import Secret
from kernel.abc import Context, Losses, parse_url
from kernel.errors import StartupError

from ._config import OtelConfig
from ._later import Backlog, Ids
from ._sending import CountingExporter, CountingProcessor, Hush

_FORETOLD: Final = re.compile(
    r"ParentBased\{root:(?P<root>AlwaysOnSampler|AlwaysOffSampler|TraceIdRatioBased\{(?P<share>[^{}]+)\}),"
    r"remoteParentSampled:AlwaysOnSampler,remoteParentNotSampled:AlwaysOffSampler,"
    r"localParentSampled:AlwaysOnSampler,localParentNotSampled:AlwaysOffSampler\}"
).fullmatch
"""How a sampler describes itself that does as others did, and decides about what begins here by its id."""


@final
class Provider(TracerProvider):
    """Has spans wait for each other, as long as nobody but the exporter hears of them."""

    def __init__(self, resource: Resource, sampler: Sampler | None) -> None:
        super().__init__(resource=resource, sampler=sampler, id_generator=Ids(), shutdown_on_exit=False)
        self.backlog: Final = Backlog(self.get_tracer("kernel"))

    def export_by(self, processor: SpanProcessor) -> None:
        """Have spans exported by what only cares for their end, and has them wait itself."""
        super().add_span_processor(processor)

    @override
    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        self.backlog.close()
        super().add_span_processor(span_processor)

    @override
    def force_flush(self, timeout_millis: int = 30000) -> bool:
        self.backlog.flush()
        return super().force_flush(timeout_millis)

    @override
    def shutdown(self) -> None:
        self.backlog.close()
        super().shutdown()


def provider_for(config: OtelConfig, context: Context, losses: Losses, hush: Hush) -> Provider:
    """Return a provider; it becomes that of the process if there is none yet, for what asks for tracers anywhere.

    Raises:
        StartupError: if a variable of the environment says what cannot be.
    """
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": context.service}
    resource = Resource.create({**named, **config.resource})
    provider = Provider(resource, _sampler(config))
    if config.exporter == "otlp":
        exporter = CountingExporter(_otlp(config, context), _queue_size(context), losses, hush)
        provider.export_by(_processor(exporter, context, hush))
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider)
    return provider


def _processor(exporter: CountingExporter, context: Context, hush: Hush) -> CountingProcessor:
    try:
        return CountingProcessor(exporter, hush)
    except ValueError as error:  # the SDK names an option, which is that of a variable
        raise StartupError(f"{context.id}: the variables OTEL_BSP_... do not go together: {error}") from error


def _otlp(config: OtelConfig, context: Context) -> OTLPSpanExporter:
    endpoint = config.endpoint.reveal() if isinstance(config.endpoint, Secret) else config.endpoint
    if not endpoint:
        _check_environment(context)
    headers = {name: secret.reveal() for name, secret in config.headers.items()}
    return OTLPSpanExporter(endpoint or None, headers=headers or None)


def _check_environment(context: Context) -> None:
    name = next(
        (name for name in (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT) if os.environ.get(name)), ""
    )
    try:
        if name:
            parse_url(os.environ[name], "http", "https")
    except ValueError as error:
        raise StartupError(
            f"{context.id}: {name} must be an address such as http://HOST:4318, or be left out: {error}"
        ) from None


def _queue_size(context: Context) -> int:
    text = os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, "") or "2048"  # the SDK's own default
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise StartupError(f"{context.id}: {OTEL_BSP_MAX_QUEUE_SIZE} must be a number of spans, more than 0")
    return int(text)


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
