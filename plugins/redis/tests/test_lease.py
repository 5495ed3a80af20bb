"""Leases on Redis."""

from __future__ import annotations

from functools import partial

import pytest

from kernel.abc import Leasing
from kernel.errors import KernelError
from kernel.testing import check_leasing

from ._server import Server
from .conftest import OpenRedis


@pytest.mark.slow
@pytest.mark.parametrize("decode_responses", [True, False])
async def test_redis_keeps_every_promise_of_a_place_of_leases(open_redis: OpenRedis, decode_responses: bool) -> None:
    await check_leasing(partial(open_redis, decode_responses=decode_responses))


@pytest.mark.slow
async def test_a_server_that_hangs_fails_a_lease_within_seconds(open_redis: OpenRedis, server: Server) -> None:
    async with open_redis() as client:
        assert isinstance(client, Leasing)
        lease = client.lease("hanging")
        with server.hanging():
            with pytest.raises(KernelError, match="cannot be read: no answer within 5 s"):
                await lease.read()
            with pytest.raises(KernelError, match='not known whether "hanging" was written'):
                await lease.write("text", after=0)
