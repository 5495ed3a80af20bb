"""The table of a driver with `plugin = "http"`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, final

import attrs
import httpx
from attrs.validators import and_, deep_iterable, ge, gt, le

from kernel import Secret
from kernel.abc import check_http_headers, parse_url

Answering = Callable[[httpx.Request], httpx.Response]
"""What stands for the other side in a test."""

_POSITIVE: Final = and_(gt(0.0), le(86_400.0))


def _no_headers() -> Mapping[str, str | Secret]:
    return {}


def _base_url(_: object, __: attrs.Attribute[str], value: str) -> None:
    # Without what was given: there may be a password in it.
    try:
        url = parse_url(value, "http", "https")
        httpx.URL(value)
    except httpx.InvalidURL:
        raise ValueError("base_url is no address: write https://HOST:PORT/PATH") from None
    except ValueError as error:
        raise ValueError(f"base_url must begin with http:// or https:// and name a host: {error}") from None
    if url.username is not None:
        raise ValueError("base_url must not contain a password: give it as a header, with { env = ... }")
    if url.query or url.fragment:
        raise ValueError("base_url must have no query and no fragment")


def _forward(config: object, attribute: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    check_http_headers(config, attribute, dict.fromkeys(value, ""))


@final
@attrs.frozen(kw_only=True)
class HttpConfig:
    """One service that is asked over HTTP."""

    base_url: str = attrs.field(validator=_base_url)
    """What the paths of requests follow. Its scheme, host and port alone get what is said below of headers and certificates."""
    headers: Mapping[str, str | Secret] = attrs.field(factory=_no_headers, validator=check_http_headers)
    """Sent with each request to the origin of `base_url`, and to nobody else; `{ authorization = { env = "STOCK_TOKEN" } }`."""
    timeout: float = attrs.field(default=30.0, validator=_POSITIVE)
    """Seconds that one read, write, or wait for a free connection may take. The caller's deadline holds beside it."""
    connect_timeout: float = attrs.field(default=5.0, validator=_POSITIVE)
    """Seconds to connect, TLS included."""
    max_connections: int = attrs.field(default=100, validator=and_(ge(1), le(10_000)))
    """At a time; further requests wait for one, at most `timeout`."""
    keepalive_expiry: float = attrs.field(default=5.0, validator=and_(ge(0.0), le(86_400.0)))
    """Seconds after which an idle connection is closed."""
    max_response_bytes: int = attrs.field(default=16 * 1024 * 1024, validator=ge(1))
    """Of one body, as it comes over the wire; a longer one is a `ResponseTooLargeError`."""
    attempts: int = attrs.field(default=3, validator=and_(ge(1), le(100)))
    """At one idempotent request, in all."""
    retry_statuses: tuple[int, ...] = attrs.field(
        default=(429, 502, 503, 504), validator=deep_iterable(and_(ge(400), le(599)))
    )
    """Answers after which an idempotent request is tried again."""
    backoff_initial: float = attrs.field(default=0.1, validator=ge(0.0))
    """Seconds before the second attempt; then twice as long each time. A longer `Retry-After` of the answer holds."""
    backoff_max: float = attrs.field(default=10.0, validator=ge(0.0))
    """Seconds; no wait is longer. An answer that asks for more is returned at once."""
    deadline: bool = False
    """Whether requests say in `kernel-deadline` how many milliseconds whoever waits for the answer has left."""
    forward: tuple[str, ...] = attrs.field(default=("traceparent", "tracestate"), validator=_forward)
    """Headers that a request takes over from the delivery that is being handled, if it has them."""
    ca: str = ""
    """A file of certificates to trust, in place of the public ones; relative to the manifest's folder."""
    certificate: str = ""
    """A file with our certificate and its chain, for services that ask for one."""
    key: str = ""
    """Its key; empty if that is in the same file."""
    probe: str = ""
    """A path that must answer, with a status below 500, before the driver is ready; empty asks for nothing."""
    mock: Answering | None = None
    """Answers in place of the network, in tests: a function that takes an `httpx.Request`."""


def problems(config: HttpConfig) -> Iterator[str]:
    """Yield what is wrong with the fields of a configuration together."""
    is_tls = config.base_url.startswith("https:")
    for name in ("ca", "certificate", "key"):
        if getattr(config, name) and not is_tls:
            yield f"`{name}` is for https, and `base_url` is {config.base_url!r}"
    if config.key and not config.certificate:
        yield "`key` is the key of `certificate`, which is missing"
    if config.backoff_initial > config.backoff_max:
        yield f"`backoff_initial` must be at most `backoff_max` = {config.backoff_max:g}"
