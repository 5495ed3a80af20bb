"""What the user writes: the table of a driver `sentry`."""

from __future__ import annotations

from typing import final

import attrs
from attrs.validators import ge, le

from kernel import Secret
from kernel.abc import parse_url


def is_dsn(text: str) -> bool:
    """Return whether a text is an address as Sentry hands it out."""
    try:
        parts = parse_url(text, "http", "https")
    except ValueError:
        return False
    project = parts.path.rpartition("/")[2]
    return bool(parts.username) and project.isascii() and project.isdecimal()


@final
@attrs.frozen(kw_only=True)
class SentryConfig:
    """The table of a driver `sentry`."""

    dsn: Secret | None = None
    """Where reports are sent; None takes `SENTRY_DSN` from the environment, and sends nothing where that is empty."""
    environment: str | None = None
    """None takes `SENTRY_ENVIRONMENT`."""
    release: str | None = None
    """None takes `SENTRY_RELEASE`."""
    sample: float = attrs.field(default=1.0, validator=[ge(0), le(1)])
    """The share of failures that are reported."""
    retries: bool = True
    """Whether attempts that will be tried again are reported; if not, only what has failed for good."""
    patches: bool = False
    """Whether the SDK may patch the libraries that it finds, such as web frameworks, to report more of them."""
