"""Those who are connected to one dispatcher: whoever is let in, where requests go, and how all of it ends."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from itertools import count
from typing import Final, cast, final

import trio

from kernel.abc import Context, Intake, Seldom

from ._config import WebSocketConfig
from ._format import Format
from ._handshake import Asked, admitted
from ._line import Line
from ._session import Place, Session

GOING_AWAY: Final = 1001
"""Close code of a stop. Source: RFC 6455, 7.4.1."""
_STOPS: Final = "the service stops"
_TURNED_AWAY: Final = frozenset({403, 404})
"""HTTP statuses of whoever may not come in: one who tries again and again may be guessing."""
_FAREWELL: Final = 0.5
"""Of `stop_timeout`, for the last answers and the closing of all connections."""


@final
class Sessions:
    """The connections of a dispatcher, each served by the task that brought it."""

    def __init__(self, config: WebSocketConfig, context: Context) -> None:
        self.config: Final = config
        self._context: Final = context
        self._protocol: Final = cast("Format", context.protocol)
        self._numbers: Final = count(1)
        self._entered = 0
        """Those who are served, or decided on."""
        self._open: Final = dict[Session, trio.CancelScope]()
        self._place: Place | None = None
        self._seldom: Final = Seldom(context)
        self._left: Final = trio.lowlevel.ParkingLot()

    # --- the dispatcher ---------------------------------------------------------------------------------------------

    def take(self, intake: Intake, waiting: trio.Nursery) -> None:
        """Have requests go there, and wait for it there; they know nothing of the task that read them."""
        self._place = Place(intake, waiting, copy_context())

    def refuse(self) -> None:
        """Take no more requests; what is under way goes on."""
        self._place = None

    async def end(self) -> None:
        """Close every connection, after what is unsent; what has not ended in half of `stop_timeout` is cut off.

        Cancellation: Is a checkpoint; the connections are cut off.
        """
        for session in list(self._open):
            session.line.finish(GOING_AWAY, _STOPS)
        try:
            with trio.move_on_after(self._context.stop_timeout * _FAREWELL):
                await trio.lowlevel.checkpoint()
                while self._entered:
                    await self._left.park()
        finally:
            for scope in self._open.values():
                scope.cancel()

    # --- a connection -----------------------------------------------------------------------------------------------

    async def serve(self, asked: Asked) -> None:
        """Decide on a peer, and serve it until it leaves or is closed.

        Cancellation: Is a checkpoint.
        """
        if self._place is None or self._entered >= self.config.max_connections:
            await asked.reject(503)
            return
        self._entered += 1
        try:
            await self._admit(asked)
        finally:
            self._entered -= 1
            self._left.unpark_all()

    async def _admit(self, asked: Asked) -> None:
        try:
            identity = await admitted(asked, self.config)
        except Exception:
            self._context.log.exception("authenticate_failed")
            identity = 500
        if self._place is None:
            identity = 503
        if isinstance(identity, int):
            if identity in _TURNED_AWAY:
                self._seldom.warn("handshake_refused", status=str(identity), remote=asked.remote.rpartition(":")[0])
            await asked.reject(identity)
        else:
            await self._converse(asked, identity)

    async def _converse(self, asked: Asked, identity: str) -> None:
        protocol, config = self._protocol, self.config
        chosen = next((name for name in protocol.subprotocols if name in asked.subprotocols), None)
        socket = await asked.accept(chosen)
        extends = chosen is not None and chosen == protocol.subprotocols[0]
        line = Line(socket, protocol, config, extends=extends, identity=identity)
        session = Session(
            socket,
            line,
            protocol,
            number=next(self._numbers),
            max_pending=config.max_pending,
            service=self._context.service,
            place=lambda: self._place,
            settled=self._part,
        )
        asked.on_stop(partial(self._leave, session))
        with trio.CancelScope() as self._open[session]:
            try:
                await session.run()
            finally:
                del self._open[session]
                self._part()

    def _leave(self, session: Session) -> None:
        """Close a connection whose carrier stops, once nothing is under way on any: what is may yet be told on all."""
        session.is_leaving = True
        self._part()

    def _part(self) -> None:
        if not any(session.is_busy for session in self._open):
            for session in self._open:
                if session.is_leaving:
                    session.line.finish(GOING_AWAY, _STOPS)
