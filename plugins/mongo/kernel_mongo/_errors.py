"""What says that no server could be reached is an `UnavailableError`; what a server refuses stays pymongo's."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from kernel.errors import UnavailableError


@contextmanager
def translated(component: str) -> Generator[None]:
    """Raise an `UnavailableError` where pymongo says that there is no server, or no answer."""
    from pymongo.errors import ConnectionFailure, ExecutionTimeout, WaitQueueTimeoutError  # noqa: PLC0415  heavy

    try:
        yield
    except (ConnectionFailure, ExecutionTimeout, WaitQueueTimeoutError) as error:
        raise UnavailableError(f"{component}: {shortened(error)}") from error


def shortened(error: BaseException) -> str:
    """Return what an error says, without what pymongo adds: settings, a picture of the whole deployment, the answer."""
    text = str(error)
    for added in (", Timeout:", " (configured timeouts:", ", full error:"):
        text = text.partition(added)[0]
    return text
