"""The table of a driver with `plugin = "redis"`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, final
from urllib.parse import SplitResult, unquote, urlsplit

import attrs
from attrs.validators import and_, ge, gt, le

from kernel import Secret
from kernel.abc import parse_url

_DAY: Final = 86_400.0
_POSITIVE: Final = and_(gt(0.0), le(_DAY))
_SCHEMES: Final = frozenset({"redis", "rediss", "unix"})


def _dsn(_: object, __: attrs.Attribute[str | Secret], value: str | Secret) -> None:
    try:
        address(value)
    except ValueError as error:
        # Without what was given: there may be a password in it.
        raise ValueError(
            f"dsn must be redis://HOST[:PORT][/DB], rediss:// or unix:///PATH, with USER:PASSWORD and an @ before the host: {error}"
        ) from None


@final
@attrs.frozen(kw_only=True)
class RedisConfig:
    """One server of Redis, and how many connections to it there are."""

    dsn: str | Secret = attrs.field(validator=_dsn)
    """`redis://`, with TLS `rediss://`, or `unix:///path/of.sock?db=0`."""
    username: str = ""
    """In place of one in `dsn`."""
    password: Secret | None = None
    """In place of one in `dsn`."""
    maxsize: int = attrs.field(default=10, validator=and_(ge(1), le(10_000)))
    """Connections at a time. A subscription, a pipeline, and a command that blocks, has one for itself."""
    acquire_timeout: float = attrs.field(default=30.0, validator=_POSITIVE)
    """Seconds to wait for a connection before `UnavailableError`; the caller's deadline holds beside it."""
    connect_timeout: float = attrs.field(default=5.0, validator=_POSITIVE)
    """Seconds for one attempt to connect, and as many for the server to greet."""
    idle_timeout: int = attrs.field(default=300, validator=and_(ge(1), le(86_400)))
    """Seconds after which an idle connection is closed; one on which a command waits is not idle."""
    decode_responses: bool = True
    """Whether answers are strings; if not, they are bytes."""
    check_interval: float = attrs.field(default=5.0, validator=_POSITIVE)
    """Seconds between two looks whether the server answers."""
    ca: str = ""
    """A file of certificates to trust, in place of the public ones; relative to the manifest's folder."""
    certificate: str = ""
    """A file with our certificate and its chain."""
    key: str = ""
    """Its key; empty if that is in the same file."""


def problems(config: RedisConfig) -> Iterator[str]:
    """Yield what is wrong with the fields of a configuration together."""
    is_tls = split(config.dsn).scheme == "rediss"
    for name in ("ca", "certificate", "key"):
        if getattr(config, name) and not is_tls:
            yield f"`{name}` is for TLS, and `dsn` does not begin with rediss://"
    if config.key and not config.certificate:
        yield "`key` is the key of `certificate`, which is missing"


def split(dsn: str | Secret) -> SplitResult:
    """Return the parts of an address."""
    return urlsplit(dsn.reveal() if isinstance(dsn, Secret) else dsn)


def address(dsn: str | Secret) -> dict[str, Any]:
    """Return what coredis is given for an address.

    Raises:
        ValueError: if it is none.
    """
    parts = split(dsn)
    if parts.scheme not in _SCHEMES:
        raise ValueError("its scheme is another one")
    if parts.scheme == "unix":
        if not parts.path.startswith("/") or "\0" in parts.path or parts.netloc:
            raise ValueError("its path must begin with /")
        return {"unix_socket_path": parts.path, "db": _number(parts.query.removeprefix("db="))}
    parts = parse_url(dsn.reveal() if isinstance(dsn, Secret) else dsn, "redis", "rediss")
    found: dict[str, Any] = {"host": parts.hostname, "port": parts.port or 6379, "db": _number(parts.path.strip("/"))}
    if parts.username:
        found["username"] = unquote(parts.username)
    if parts.password:
        found["password"] = unquote(parts.password)
    return found


def _number(text: str) -> int:
    if text and not text.isdecimal():
        raise ValueError("its database is no number")
    return int(text or 0)
