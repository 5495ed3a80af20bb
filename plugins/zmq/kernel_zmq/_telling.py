"""What is told of a message around its being sent."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from kernel import Sending, Sent

if TYPE_CHECKING:
    from collections.abc import Generator

    from kernel.abc import Context

_QUIET: Final = nullcontext()


def telling(context: Context, subject: str, *, is_call: bool) -> AbstractContextManager[None]:
    """Send what is inside, and tell those who want to know before and after."""
    return _told(context, subject, is_call) if context.hears(Sending) or context.hears(Sent) else _QUIET


@contextmanager
def _told(context: Context, subject: str, is_call: bool) -> Generator[None]:  # noqa: FBT001
    context.emit(Sending(component=context.id, subject=subject, exchange="", is_call=is_call))
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        context.emit(Sent(component=context.id, subject=subject, exchange="", is_call=is_call, error=error))
