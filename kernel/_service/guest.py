"""A worker that is not in the manifest: somebody's own code as the last of the components, which all others outlive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, final

import attrs

from .._core.contract import Contract
from .._core.event import Event
from .._core.policies import Restart, RestartPolicy
from .._core.spec import Asked, Plan, WorkerSpec
from ..errors import StartupError

STOP_TIMEOUT: Final = 2.0
"""Seconds that it has to end after it was cancelled."""


@final
@attrs.define(eq=False, repr=False)
class _Once:
    """Calls something for the first life of a worker, and fails in any further one."""

    call: Callable[..., Awaitable[None]]
    began: bool = attrs.field(default=False, init=False)

    async def __call__(self, **given: object) -> None:
        """Do it.

        Raises:
            StartupError: if it was begun before: what is done once is not done again by chance.
        """
        if self.began:
            raise StartupError("what it uses was restarted while it ran; it is not run a second time")
        self.began = True
        await self.call(**given)


def guest(
    plan: Plan,
    id_: str,
    call: Callable[..., Awaitable[None]],
    *,
    drivers: Mapping[str, str] | None = None,
    clients: Mapping[str, Contract] | None = None,
    asked: Mapping[str, Asked | tuple[type[Event], ...]] | None = None,
    uses: tuple[str, ...] = (),
) -> WorkerSpec:
    """Return a worker that runs something once and ends the service then, after all that it uses is ready and before that closes.

    Args:
        plan: Where it is to be a part of.
        id_: `worker/NAME`, free in the plan.
        call: Cancelled when the service stops; then it has `STOP_TIMEOUT` seconds.
        drivers: Parameter of `call` -> id of the driver whose resource it is given.
        clients: Those of these that are given an object of the driver's contract instead.
        asked: Parameter of `call` -> what it is given for its annotation.
        uses: Ids of further components that have to be ready.
    """
    return WorkerSpec(
        id=id_,
        name=id_.partition("/")[2],
        where=plan.path,
        restart=RestartPolicy(policy=Restart.NEVER),
        stop_timeout=STOP_TIMEOUT,
        uses=tuple(dict.fromkeys([*(drivers or {}).values(), *uses])),
        use=_Once(call),
        is_function=True,
        drivers=drivers or {},
        clients=clients or {},
        asked=asked or {},
        runs=True,
        main=True,
    )
