"""The table of a driver with `plugin = "postgres"`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, final

import attrs
import psycopg
from attrs.validators import and_, ge, gt, in_, le
from psycopg.conninfo import conninfo_to_dict

from kernel import Secret

SslMode = Literal["", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

_DAY: Final = 86_400.0
_POSITIVE: Final = and_(gt(0.0), le(_DAY))


def _dsn(_: object, __: attrs.Attribute[str | Secret], value: str | Secret) -> None:
    try:
        words = conninfo_to_dict(revealed(value))
    except psycopg.ProgrammingError as error:
        # What libpq says of it may quote the password.
        raise ValueError(
            'dsn must be "postgresql://user@host/database" or "host=... dbname=... user=..."; libpq cannot read it'
        ) from (None if isinstance(value, Secret) else error)
    if "@" in str(words.get("host") or ""):  # libpq ends a password at the first one, and would quote the rest
        raise ValueError("dsn has an @ in its user or password: write it as %40 there")
    if not all(_is_port(port) for port in str(words.get("port") or "").split(",")):
        raise ValueError("dsn names a port that is none: it is a number from 1 to 65535")


def _is_port(text: str) -> bool:
    """Return whether libpq takes it; empty is its default."""
    return not text or (text.isascii() and text.isdecimal() and 0 < int(text) < 65536)


@final
@attrs.frozen(kw_only=True)
class PostgresConfig:
    """One database, and how many connections to it there are."""

    dsn: str | Secret = attrs.field(validator=_dsn)
    """An address, or words of libpq; whatever libpq knows may be in it. Source: PostgreSQL, 34.1.1."""
    password: Secret | None = None
    """In place of one in `dsn`."""
    sslmode: SslMode = attrs.field(
        default="",
        validator=in_(("", "disable", "allow", "prefer", "require", "verify-ca", "verify-full")),
    )
    """Empty: `verify-full` if `sslrootcert` is given, else what `dsn` says."""
    sslrootcert: str = ""
    """A file of certificates to trust; relative to the manifest's folder. `system` takes those of the machine."""
    sslcert: str = ""
    """A file with our certificate."""
    sslkey: str = ""
    """Its key, which nobody but its owner may read."""
    pool_min: int = attrs.field(default=1, validator=and_(ge(0), le(10_000)))
    """Connections that are kept open."""
    pool_max: int = attrs.field(default=10, validator=and_(ge(1), le(10_000)))
    """Connections at a time; whoever needs another one waits, in turn."""
    acquire_timeout: float = attrs.field(default=30.0, validator=_POSITIVE)
    """Seconds to wait for a connection before `UnavailableError`; the caller's deadline holds beside it."""
    connect_timeout: float = attrs.field(default=10.0, validator=_POSITIVE)
    """Seconds for one attempt to connect."""
    cancel_timeout: float = attrs.field(default=1.0, validator=_POSITIVE)
    """Seconds that a cancelled statement has to end on the server, before its connection is closed and replaced."""
    max_inactive_connection_lifetime: float = attrs.field(default=300.0, validator=and_(ge(0.0), le(_DAY)))
    """Seconds after which an idle connection beyond `pool_min` is closed; 0 keeps it."""
    max_lifetime: float = attrs.field(default=3600.0, validator=and_(ge(0.0), le(30 * _DAY)))
    """Seconds after which a connection is replaced when it is free, up to a tenth less by chance; 0 keeps it."""
    max_queries: int = attrs.field(default=50_000, validator=and_(ge(0), le(1_000_000_000)))
    """How often a connection is used before it is replaced; 0 keeps it."""
    outbox: bool = False
    """Whether transactions carry messages and remember ids: makes the tables `kernel_outbox` and `kernel_inbox`."""
    once_retention: float = attrs.field(default=604_800.0, validator=gt(0.0))
    """Seconds for which `Transaction.once` remembers an id."""
    statistics_interval: float = attrs.field(default=60.0, validator=_POSITIVE)
    """Seconds between two events `PoolMeasured`."""


def problems(config: PostgresConfig) -> Iterator[str]:
    """Yield what is wrong with the fields of a configuration together."""
    if config.pool_min > config.pool_max:
        yield f"`pool_min` must be at most `pool_max` = {config.pool_max}"
    if config.sslkey and not config.sslcert:
        yield "`sslkey` is the key of `sslcert`, which is missing"
    if config.sslrootcert and config.sslmode in {"disable", "allow", "prefer", "require"}:
        yield f'`sslmode = "{config.sslmode}"` does not look at `sslrootcert`; leave it out, or say "verify-full"'


def revealed(value: str | Secret) -> str:
    """Return a text that may be a secret."""
    return value.reveal() if isinstance(value, Secret) else value
