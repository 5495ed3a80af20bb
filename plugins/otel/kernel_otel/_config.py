"""What the user writes: the table of a driver `otel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import attrs
from attrs.validators import ge, in_, le, optional

from kernel import Secret
from kernel.abc import check_http_headers, check_http_url


@final
@attrs.frozen(kw_only=True)
class OtelConfig:
    """The table of a driver `otel`. What it does not say is read from the `OTEL_` variables of the environment."""

    endpoint: str | Secret | None = attrs.field(default=None, validator=check_http_url)
    """URL that spans are posted to, such as `http://127.0.0.1:4318/v1/traces`; a secret where there is a key in it."""
    sample: float | None = attrs.field(default=None, validator=optional([ge(0), le(1)]))
    """The share of traces that begin here which are recorded; what others began is recorded if they did."""
    headers: Mapping[str, Secret] = attrs.field(factory=dict[str, Secret], validator=check_http_headers)
    """Sent with spans, such as a token."""
    resource: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Attributes of the service, such as `deployment.environment.name`; `service.name` is the kernel's name."""
    exporter: str = attrs.field(default="otlp", validator=in_(("otlp", "none")))
    """`none` sends nothing, and context is carried along all the same."""
