"""Sends messages, each answered by the broker: one link for each address, through all connections there will be."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

import attrs
import trio

from kernel.errors import ConflictError, KernelError, QueueFullError, SendError, UnknownOutcomeError, UnroutableError

from .._addresses import Route
from .._errors import EndClosedError, LinkLostError
from ..link.keeper import Keeper
from ..link.sender import OnWritten, Said, SenderLink

_MAX_LINKS: Final = 64
"""Links that stay open while nobody sends on them: the ones used last."""
_MISSING: Final = "amqp:not-found"


@final
@attrs.define(eq=False, repr=False)
class Outbox:
    """Sends over the connection that is for sending. Safe to share between tasks."""

    _keeper: Keeper
    _links: OrderedDict[str | None, SenderLink] = attrs.field(factory=OrderedDict[str | None, SenderLink], init=False)

    async def send(self, route: Route, data: bytes, *, mandatory: bool, on_written: OnWritten | None = None) -> None:
        """Send an encoded message; returns when the broker has accepted it. Waits for a connection, and for credit.

        `on_written` as in `SenderLink.send`.

        Raises:
            UnroutableError: if there is no such address; if mandatory, and the broker says that nobody has it.
            QueueFullError: if the broker rejects it.
            SendError: if we must not send there.
            UnknownOutcomeError: if the link or the connection went before the broker answered.
            UnavailableError: if the driver is closed.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent.
        """
        while True:
            wire = self._keeper.current or await self._keeper.wire()
            link = self._links.get(route.address)
            if link is None or link.error is not None or link.engine is not wire.engine:
                link = self._links[route.address] = SenderLink(route.address, wire.engine)
                self._leave_oldest()
            self._links.move_to_end(route.address)
            link.users += 1
            try:
                said, why = await link.send(data, on_written=on_written)
            except (EndClosedError, LinkLostError) as error:
                if error.written or isinstance(error, EndClosedError):
                    raise _lost(route, error) from error
                await trio.lowlevel.checkpoint()  # certainly nothing was sent: try again
                continue
            finally:
                link.users -= 1
            if said is Said.ACCEPTED or (said is Said.RELEASED and not mandatory):
                return
            raise _refused(route, said, why)

    def _leave_oldest(self) -> None:
        if len(self._links) > _MAX_LINKS:
            for address, link in self._links.items():
                if not link.users:
                    self._links.pop(address).close()
                    return


def _named(route: Route) -> str:
    return str(route.to if route.address is None else route.address)


def _refused(route: Route, said: Said, why: str) -> KernelError:
    if said is Said.REJECTED:
        return QueueFullError(
            f"the broker rejected a message for {_named(route)}: {why or 'a queue is full, or failed'}"
        )
    return UnroutableError(f"no queue gets what is sent to {_named(route)}")


def _lost(route: Route, error: EndClosedError | LinkLostError) -> KernelError:
    if isinstance(error, EndClosedError) and not error.written:
        if error.condition == _MISSING:
            return UnroutableError(f"there is nothing to send to at {_named(route)}: {error.text}")
        kind = ConflictError if error.condition == "amqp:precondition-failed" else SendError
        return kind(f"nothing can be sent to {_named(route)}: {error}")
    return UnknownOutcomeError(f"it is not known whether {_named(route)} took a message: {error}")
