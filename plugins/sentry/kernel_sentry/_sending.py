"""What becomes of reports: each is sent or counted as lost, around the SDK's own queue and transport."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sentry_sdk.transport import HttpTransport
from typing_extensions import override

if TYPE_CHECKING:
    from sentry_sdk.envelope import Envelope

    from kernel.abc import Losses

_LIMITED: Final = "Sentry limits the rate"
_REASONS: Final = {
    "network": "Sentry cannot be reached, or does not answer in time",
    "full_queue": "more failed than Sentry took, and the queue is full",
    "self_rate_limits": _LIMITED,
    "status_429": _LIMITED,
    "status_413": "Sentry finds them too large",
}
"""By what the SDK calls it. Others are `status_` and the number."""
_UNTOLD: Final = "the SDK could not send them"
_TALKER: Final = "urllib3.connectionpool"
"""The logger that warns of each attempt, and never says that it was the last."""


class _Envelope(threading.local):
    """What a thread hands over or sends."""

    reports: int = 0
    reason: str = ""
    """Why it was dropped; empty if it was not."""


def transport_for(losses: Losses, quiet: Quiet) -> type[HttpTransport]:
    """Return a transport for the SDK that counts what becomes of reports."""

    class CountingTransport(HttpTransport):
        """Sends as the SDK does."""

        @override
        def capture_envelope(self, envelope: Envelope) -> None:
            here.reports, here.reason = _reports_in(envelope), ""
            losses.take(here.reports)
            super().capture_envelope(envelope)
            if here.reason:
                losses.lose(here.reports, here.reason)

        @override
        def on_dropped_event(self, _reason: str) -> None:
            here.reason = _REASONS.get(_reason) or f"Sentry answered {_reason.removeprefix('status_')}"
            super().on_dropped_event(_reason)

        # The SDK calls nothing public when it has sent something; a test fails if it calls this no more.
        @override
        def _send_envelope(self, envelope: Envelope) -> None:
            if losses.is_over:
                return
            here.reports, here.reason = _reports_in(envelope), ""
            with quiet.here():
                try:
                    super()._send_envelope(envelope)
                except BaseException:
                    here.reason = here.reason or _UNTOLD
                    raise
                finally:
                    self._count()

        def _count(self) -> None:
            if here.reason:
                losses.lose(here.reports, here.reason)
            elif here.reports:
                losses.sent(here.reports)

    here = _Envelope()
    return CountingTransport


def _reports_in(envelope: Envelope) -> int:
    return sum(item.data_category == "error" for item in envelope.items)


class Quiet:
    """Has what urllib3 says while reports are sent be no more than debugging output."""

    def __init__(self) -> None:
        self._here: Final = threading.local()

    def begin(self) -> None:
        """Hear it from now on."""
        logging.getLogger(_TALKER).addFilter(self._lower)

    def end(self) -> None:
        """Hear it no more: nothing is being sent."""
        logging.getLogger(_TALKER).removeFilter(self._lower)

    @contextmanager
    def here(self) -> Generator[None]:
        """Lower what is said in this thread while inside."""
        self._here.is_sending = True
        try:
            yield
        finally:
            self._here.is_sending = False

    def _lower(self, record: logging.LogRecord) -> bool:
        if getattr(self._here, "is_sending", False):
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return True
