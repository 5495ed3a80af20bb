"""The tables of protocols with `plugin = "ufw_backoff"` and `plugin = "ufw_rpc"`."""

from __future__ import annotations

from typing import Final, final

import attrs

_MIB: Final = 1024 * 1024


@attrs.frozen(kw_only=True)
class UfwConfig:
    """What both have: what bodies may be, in both directions."""

    max_bytes: int = attrs.field(default=16 * _MIB, validator=attrs.validators.ge(1))
    """Bytes of a body."""
    max_depth: int = attrs.field(
        default=64, validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.le(500))
    )
    """How many arrays and objects may lie within each other, the body itself counted."""


@final
@attrs.frozen(kw_only=True)
class UfwRpcConfig(UfwConfig):
    """The table of a protocol with `plugin = "ufw_rpc"`."""

    exceptions: tuple[type[Exception], ...] = ()
    """What an answer that names it is raised as, made with its arguments; all else is a `RemoteError`."""
