"""A bound on how many deliveries are started in a time. Source: the token bucket."""

from __future__ import annotations

from typing import Final, final

import attrs
import trio

from .._core.policies import RatePolicy

_TOLERANCE: Final = 1e-9
"""Of a token: adding up floats may be off by as much."""
_MINUTE: Final = 60.0


@final
@attrs.define(eq=False, repr=False)
class Bucket:
    """Holds at most `messages` tokens, full at first, and gets as many again in each `per` seconds."""

    policy: RatePolicy
    _tokens: float = attrs.field(init=False)
    _counted_at: float = attrs.field(factory=trio.current_time, init=False)
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    def __attrs_post_init__(self) -> None:
        self._tokens = self.policy.messages

    @property
    def before_long(self) -> int:
        """How many can be started within a minute, at least 1."""
        return max(1, int(self.policy.messages * _MINUTE / self.policy.per))

    async def take(self) -> None:
        """Wait for a token; first come, first served.

        Cancellation: Is a checkpoint. If cancelled, no token was taken.
        """
        async with self._turn:
            self._count()
            if self._tokens < 1 - _TOLERANCE:
                await trio.sleep((1 - self._tokens) * self.policy.per / self.policy.messages)
                self._count()
            self._tokens -= 1

    def _count(self) -> None:
        now = trio.current_time()
        gained = (now - self._counted_at) * self.policy.messages / self.policy.per
        self._tokens = min(self._tokens + gained, self.policy.messages)
        self._counted_at = now
