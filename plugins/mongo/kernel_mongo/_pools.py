"""How the connections of a client are used, as pymongo tells it. Needs pymongo, and is imported late therefore."""

from __future__ import annotations

from typing import Any, final

import attrs
from pymongo.monitoring import ConnectionPoolListener
from typing_extensions import override

from kernel import Usage


@final
@attrs.define(eq=False, repr=False, slots=False)
class Pools(ConnectionPoolListener):
    """The pools of a client, which has one for each server."""

    pool_max: int
    _pools: int = attrs.field(default=0, init=False)
    _open: int = attrs.field(default=0, init=False)
    _used: int = attrs.field(default=0, init=False)

    def usage(self, calls: int) -> Usage:
        """Return how connections are used now. May be called from any thread.

        Args:
            calls: How many are under way. pymongo does not tell when somebody is cancelled who waits for a connection,
                so that those who wait are counted as calls that have none while all are used.
        """
        limit, used = self.pool_max * max(1, self._pools), max(0, self._used)
        waiting = max(0, calls - used) if used >= limit else 0
        return Usage(used=used, idle=max(0, self._open - used), waiting=waiting, limit=limit)

    @override
    def pool_created(self, event: Any) -> None:
        self._pools += 1

    @override
    def pool_closed(self, event: Any) -> None:
        self._pools -= 1

    @override
    def connection_created(self, event: Any) -> None:
        self._open += 1

    @override
    def connection_closed(self, event: Any) -> None:
        self._open -= 1

    @override
    def connection_checked_out(self, event: Any) -> None:
        self._used += 1

    @override
    def connection_checked_in(self, event: Any) -> None:
        self._used -= 1

    @override
    def pool_ready(self, event: Any) -> None: ...

    @override
    def pool_cleared(self, event: Any) -> None: ...

    @override
    def connection_ready(self, event: Any) -> None: ...

    @override
    def connection_check_out_started(self, event: Any) -> None: ...

    @override
    def connection_check_out_failed(self, event: Any) -> None: ...
