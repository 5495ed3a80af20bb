"""The table of a driver with `plugin = "s3"`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, final

import attrs
from attrs.validators import and_, ge, gt, in_, le

from kernel import Secret
from kernel.abc import parse_url

_DAY: Final = 86_400.0
_SECONDS: Final = and_(gt(0.0), le(_DAY))
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""Source: Amazon S3, rules for naming buckets."""
SMALLEST_PART: Final = 5 * 2**20
"""Bytes that every part but the last has at least. Source: Amazon S3, multipart upload limits."""
MOST_PARTS: Final = 10_000


def _check_bucket(_: object, __: attrs.Attribute[str], value: str) -> None:
    if value and not _BUCKET.fullmatch(value):
        raise ValueError("must be 3 to 63 lower-case letters, digits, hyphens and dots, a letter or digit at both ends")


def _check_url(_: object, __: attrs.Attribute[str], value: str) -> None:
    if not value:
        return
    try:
        parts = parse_url(value, "http", "https")
    except ValueError as error:
        raise ValueError(f"must be http://host[:port] or https://host[:port]: {error}") from None
    if parts.query or parts.fragment:
        raise ValueError("must be http://host[:port] or https://host[:port], without ? and #")
    if parts.username or parts.password:
        raise ValueError("has a user in it: that is `access_key` and `secret_key`")


@final
@attrs.frozen(kw_only=True)
class S3Config:
    """One account at one service, and what its use may take."""

    bucket: str = attrs.field(default="", validator=_check_bucket)
    """Where objects are, unless a call names another one."""
    endpoint_url: str = attrs.field(default="", validator=_check_url)
    """Of a service that is not Amazon's."""
    region: str = "us-east-1"
    access_key: str | Secret = ""
    """Empty, with `secret_key`: what the environment, `~/.aws` or the machine's role gives."""
    secret_key: Secret | None = None
    session_token: Secret | None = None
    """Of temporary credentials."""
    addressing: Literal["auto", "path", "virtual"] = attrs.field(
        default="auto", validator=in_(["auto", "path", "virtual"])
    )
    """Whether the bucket stands in the path or in the name of the host; most services but Amazon's want `path`."""
    max_connections: int = attrs.field(default=50, validator=and_(ge(1), le(10_000)))
    connect_timeout: float = attrs.field(default=5.0, validator=_SECONDS)
    """Seconds for one attempt to have a connection: one that becomes free, or a new one."""
    read_timeout: float = attrs.field(default=30.0, validator=_SECONDS)
    """Seconds without a byte of an answer; the caller's deadline holds beside it."""
    attempts: int = attrs.field(default=3, validator=and_(ge(1), le(20)))
    """How often a request is made before it has failed; each is of those that may be repeated."""
    part_size: int = attrs.field(default=8 * 2**20, validator=and_(ge(SMALLEST_PART), le(5 * 2**30)))
    """Bytes: what is longer is uploaded in parts of this size."""
    max_object_bytes: int = attrs.field(default=64 * 2**20, validator=and_(ge(1), le(2**40)))
    """That `get` holds in memory at most; `stream` takes any."""
    check: bool = True
    """Whether the bucket is looked at before the service is ready."""
    ca: str = ""
    """A file of certificates to trust, in place of the public ones; relative to the manifest's folder."""


def problems(config: S3Config) -> Iterator[str]:
    """Yield what is wrong with the fields of a configuration together."""
    if bool(config.access_key) != (config.secret_key is not None):
        yield "`access_key` and `secret_key` belong together: give both or, for what the environment gives, neither"
    if config.session_token is not None and config.secret_key is None:
        yield "`session_token` belongs to `access_key` and `secret_key`, which are missing"
    if config.ca and config.endpoint_url.startswith("http://"):
        yield "`ca` is for TLS, and `endpoint_url` begins with http://"
