"""Leases: a hash each, read and written by scripts, which Redis runs one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio
from coredis.exceptions import RedisError, ResponseError
from typing_extensions import override

from kernel.abc import Lease, LeaseState
from kernel.errors import UnavailableError, UnknownOutcomeError

if TYPE_CHECKING:
    import coredis

_PATIENCE: Final = 5.0
"""Seconds to wait for an answer: a server that hangs closes no connection."""
_READ: Final = """
local found, time = redis.call('HMGET', KEYS[1], 'version', 'value'), redis.call('TIME')
return {found[1] or '0', found[2] or '', time[1], time[2]}
"""
_WRITE: Final = """
if (redis.call("HGET", KEYS[1], "version") or "0") ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'value', ARGV[3])
return 1
"""


@final
@attrs.frozen(eq=False, repr=False)
class RedisLease(Lease):
    """The hash `kernel:lease:NAME`, which stays for ever."""

    _client: coredis.Redis[Any]
    _name: str

    @override
    async def read(self) -> LeaseState:
        try:
            answer = await self._run(_READ)
        except (RedisError, OSError, TimeoutError, trio.TooSlowError) as error:
            raise UnavailableError(f'the lease "{self._name}" cannot be read: {_told(error)}') from error
        version, value, seconds, micros = map(_text, answer)
        return LeaseState(version=int(version), value=value, now=int(seconds) + int(micros) / 1e6)

    @override
    async def write(self, value: str, *, after: int) -> bool:
        try:
            return bool(await self._run(_WRITE, str(after), str(after + 1), value))
        except ResponseError as error:
            raise UnavailableError(f'the lease "{self._name}" cannot be written: {error}') from error
        except (RedisError, OSError, TimeoutError, trio.TooSlowError) as error:
            raise UnknownOutcomeError(f'it is not known whether "{self._name}" was written: {_told(error)}') from error

    async def _run(self, script: str, *args: str) -> Any:  # noqa: ANN401  what the script returns
        with trio.fail_after(_PATIENCE):
            return await self._client.eval(script, keys=[f"kernel:lease:{self._name}"], args=args)


def _text(value: object) -> str:
    """Return an answer as text, whatever the driver's `decode_responses` makes of it."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _told(error: BaseException) -> str:
    return f"no answer within {_PATIENCE:g} s" if isinstance(error, trio.TooSlowError) else str(error) or repr(error)
