"""The table of a driver with `plugin = "mongo"`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, final
from urllib.parse import urlsplit

import attrs
from attrs.validators import and_, ge, gt, le, min_len

from kernel import Secret
from kernel.abc import parse_host

_DAY: Final = 86_400.0
_SECONDS: Final = and_(gt(0.0), le(_DAY))
_SCHEMES: Final = frozenset({"mongodb", "mongodb+srv"})
_UNFIT: Final = re.compile(r"[\x00-\x20\x7f]")
_OPTIONS: Final = re.compile(r"(?:[^=&;]+=[^&;]*(?:[&;]|$))*")
_KINDS: Final = frozenset({1, -1, "text", "hashed", "2dsphere", "2d"})


def _check_dsn(_: object, __: attrs.Attribute[str | Secret], value: str | Secret) -> None:
    text = value.reveal() if isinstance(value, Secret) else value
    try:
        parts = urlsplit(text)
        hosts = [parse_host(host, default_port=27017) for host in parts.netloc.rpartition("@")[2].split(",")]
    except ValueError:
        parts, hosts = urlsplit(""), []
    if not hosts or parts.scheme not in _SCHEMES or _UNFIT.search(text) or not _OPTIONS.fullmatch(parts.query):
        # Without what was given: there may be a password in it.
        raise ValueError(
            "must be mongodb://HOST[:PORT][,HOST...][/?OPTIONS] or mongodb+srv://HOST, with USER:PASSWORD and an @ before the first host"
        )


def _check_keys(_: object, __: attrs.Attribute[Any], value: Mapping[str, object]) -> None:
    for name, kind in value.items():
        if kind not in _KINDS:
            raise ValueError(f'"{name}" must be 1, -1, "text", "hashed", "2dsphere" or "2d", not {kind!r}')


@final
@attrs.frozen(kw_only=True)
class IndexTable:
    """One index that is to exist."""

    collection: str = attrs.field(validator=min_len(1))
    keys: dict[str, int | str] = attrs.field(validator=and_(min_len(1), _check_keys))
    """Field -> 1 for rising, -1 for falling, or `text`, `hashed`, `2dsphere`, `2d`; in this order."""
    name: str = ""
    """Empty: made of the keys."""
    unique: bool = False
    sparse: bool = False
    """Whether documents without the field are left out."""
    expire_after: float | None = attrs.field(default=None, validator=attrs.validators.optional(ge(0.0)))
    """Seconds after the time in the field at which a document is removed; None keeps them."""


@final
@attrs.frozen(kw_only=True)
class MongoConfig:
    """One deployment of MongoDB, and one database in it."""

    dsn: str | Secret = attrs.field(validator=_check_dsn)
    """`mongodb://` or `mongodb+srv://`; options of the driver may follow."""
    database: str = attrs.field(validator=min_len(1))
    username: str = ""
    """In place of one in `dsn`."""
    password: Secret | None = None
    """In place of one in `dsn`."""
    pool_max: int = attrs.field(default=20, validator=and_(ge(1), le(10_000)))
    """Connections to each server at a time."""
    pool_min: int = attrs.field(default=0, validator=and_(ge(0), le(10_000)))
    connect_timeout: float = attrs.field(default=5.0, validator=_SECONDS)
    """Seconds for one attempt to connect, and to find a server that takes the request."""
    timeout: float = attrs.field(default=30.0, validator=_SECONDS)
    """Seconds without a byte of an answer; the caller's deadline holds beside it."""
    batch: int = attrs.field(default=100, validator=and_(ge(1), le(10_000)))
    """Documents that are asked for at a time while they are iterated over."""
    check_interval: float = attrs.field(default=5.0, validator=_SECONDS)
    """Seconds between two looks whether the server answers."""
    ca: str = ""
    """A file of certificates to trust, in place of the public ones; with it, TLS is used. Relative to the manifest's folder."""
    certificate: str = ""
    """A file with our certificate and its key."""
    indexes: tuple[IndexTable, ...] = ()
    """What is made, if it is not there, before the service is ready."""


def problems(config: MongoConfig) -> Iterator[str]:
    """Yield what is wrong with the fields of a configuration together."""
    if config.username and config.password is None:
        yield "`username` is given, and `password` is missing"
    if config.password is not None and not config.username:
        yield "`password` is given, and `username` is missing"
    if config.pool_min > config.pool_max:
        yield f"`pool_min` = {config.pool_min} is more than `pool_max` = {config.pool_max}"
