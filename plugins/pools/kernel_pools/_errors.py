"""What a call fails with besides what its handler raises."""

from __future__ import annotations

from typing import final

from kernel.errors import PermanentError, TransientError


@final
class ProcessDiedError(TransientError):
    """The process died in which a handler was called, so that it is unknown what was done: the delivery is retried."""


@final
class NotSerializableError(PermanentError):
    """What a handler is given, or what it returned, cannot go from process to process; another attempt cannot either."""
