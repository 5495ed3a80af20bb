"""The tables of protocols with `plugin = "nameko_events"` and `plugin = "nameko_rpc"`."""

from __future__ import annotations

from typing import Final, final

import attrs

_MIB: Final = 1024 * 1024


@attrs.frozen(kw_only=True)
class NamekoConfig:
    """What both have: what bodies may be, in both directions, and how much of a chain of calls is told."""

    parent_calls_tracked: int = attrs.field(default=10, validator=attrs.validators.ge(0))
    """Ids of earlier calls that a message carries besides that of the call in which it is sent."""
    max_bytes: int = attrs.field(default=16 * _MIB, validator=attrs.validators.ge(1))
    """Bytes of a body."""
    max_depth: int = attrs.field(
        default=64, validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.le(500))
    )
    """How many arrays and objects may lie within each other, the body itself counted."""


@final
@attrs.frozen(kw_only=True)
class NamekoRpcConfig(NamekoConfig):
    """The table of a protocol with `plugin = "nameko_rpc"`."""

    exceptions: tuple[type[Exception], ...] = ()
    """What an answer that names it is raised as, made with its arguments; all else is a `RemoteError`."""
