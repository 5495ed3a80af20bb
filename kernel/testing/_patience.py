"""A wait that ends: on the clock of the test, and on the real one."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import final

import attrs
import trio


@final
@attrs.frozen(kw_only=True)
class Patience:
    """How long each wait of a test may take."""

    seconds: float = attrs.field(default=3600.0, validator=attrs.validators.gt(0))
    """On the clock of the test, which may jump."""
    real_seconds: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    """On the real one, however often the other jumps meanwhile."""


@asynccontextmanager
async def bounded(patience: Patience, what: str, happened: Callable[[], str]) -> AsyncGenerator[None]:
    """Bound a wait.

    Args:
        patience: How long it may take.
        what: What is waited for.
        happened: Asked for what happened instead, if it takes longer.

    Raises:
        AssertionError: saying both.

    Cancellation: Is no checkpoint by itself.
    """
    ran_out: list[str] = []
    with trio.move_on_after(patience.seconds) as scope:
        with _cancelling_after(patience.real_seconds, scope, ran_out):
            yield
        return
    bound = ran_out[0] if ran_out else f"{patience.seconds:g} s of the test's clock"
    raise AssertionError(f"{what}: not within {bound}\n{happened()}")


@contextmanager
def _cancelling_after(seconds: float, scope: trio.CancelScope, ran_out: list[str]) -> Generator[None]:
    token = trio.lowlevel.current_trio_token()

    def give_up() -> None:
        ran_out.append(f"{seconds:g} real s")
        scope.cancel()

    def tell() -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(give_up)

    timer = threading.Timer(seconds, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
