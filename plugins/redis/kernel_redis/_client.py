"""What workers get: a client of coredis, on a pool of ours."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeVar, final

import coredis
from coredis.commands import CommandRequest
from coredis.connection import BaseConnection
from coredis.patterns.pipeline import Pipeline
from coredis.retry import RetryPolicy
from coredis.typing import KeyT
from typing_extensions import override

from kernel.abc import Lease, Leasing, check_lease_name

from ._lease import RedisLease
from ._pool import Pool

ResultT = TypeVar("ResultT")


@final
class RedisClient(coredis.Redis[Any], Leasing):
    """A client of coredis, which keeps leases as well. What is cancelled leaves its connection as it was, or closed."""

    def __init__(self, pool: Pool, *, retry_policy: RetryPolicy) -> None:
        super().__init__(connection_pool=pool, decode_responses=pool.decode_responses, retry_policy=retry_policy)
        self._pool = pool

    @override
    def lease(self, name: str) -> Lease:
        return RedisLease(self, check_lease_name(name))

    @override
    def pipeline(
        self, transaction: bool = True, *, raise_on_error: bool = True, timeout: float | None = None
    ) -> Pipeline[Any]:
        return RedisPipeline(self, transaction, raise_on_error, timeout)

    @override
    async def execute_command(self, command: CommandRequest[ResultT]) -> ResultT:
        with self._pool.sharing(is_shared=not (command.blocking or self.requires_wait or self.requires_waitaof)):
            return await super().execute_command(command)

    @override
    async def _ensure_wait_and_persist(self, command: CommandRequest[Any], connection: BaseConnection) -> None:
        try:
            await super()._ensure_wait_and_persist(command, connection)
        except BaseException:
            # What comes next on it would wait for the answer that nobody waits for.
            connection.invalidate()
            raise


@final
class RedisPipeline(Pipeline[Any]):
    """A pipeline of coredis. One whose `watch` is cancelled before it is answered would go on watching."""

    @override
    @asynccontextmanager
    async def watch(self, *keys: KeyT) -> AsyncGenerator[None]:
        is_watched = False
        try:
            async with super().watch(*keys):
                is_watched = True
                yield
        except BaseException:
            if not is_watched and self._connection is not None:
                self._connection.invalidate()
            raise
