"""A requester in main mode, and the replyer that it asks."""

from __future__ import annotations

import attrs

from kernel import answers


@attrs.frozen
class Config:
    """What the requester is told."""

    count: int


class Replyer:
    """Doubles numbers; found by its dispatcher, so that it needs no table."""

    dispatcher = "requests"

    @answers("desk.double")
    async def double(self, number: int) -> int:
        """Return a number twice as large."""
        return 2 * number  # noqa: ASYNC910  it has nothing to wait for


class Requester:
    """Sends its requests, says what came back, and is done."""

    def __init__(self, to_send, config: Config) -> None:  # noqa: ANN001  the rpc client
        self.to_send = to_send
        self.config = config

    async def run(self) -> int:
        """Return how many answers were wrong."""
        wrong = 0
        for number in range(1, self.config.count + 1):
            answer = await self.to_send.desk.double(number)
            print(f"{number} -> {answer}", flush=True)  # noqa: T201  what it is there for
            wrong += answer != 2 * number
        return wrong  # noqa: ASYNC910  there may be nothing to ask
