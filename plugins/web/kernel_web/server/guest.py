"""A client from the moment it is accepted: TLS, the choice of a protocol, and the end of its connection."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from ..asgi.call import only_gone
from ..asgi.scope import connection_scope, scope_without_route
from ..asgi.speaker import Speaker
from ..http1.connection import Http1
from ..http2.connection import PREFACE, Http2
from ..wire.channel import Channel
from ..wire.proxy import BrokenIntroductionError, Introduction, parse_introduction

if TYPE_CHECKING:
    import ssl

    from ..asgi.shared import Shared

_ALPN_H2: Final = "h2"


class Host(Protocol):
    """The server, as its guests see it."""

    shared: Shared

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What a new connection is encrypted with; None if it is not."""

    def forget(self, guest: Guest) -> None:
        """Take note that a guest has left."""

    def refuse(self, what: str, **more: object) -> None:
        """Say in the log that somebody is not let in, unless it was said a moment ago."""


@final
class Guest:
    """One client. `run` is its life."""

    __slots__ = ("_client", "_server", "_speaker", "_until", "address", "channel")

    def __init__(self, server: Host, sock: socket.socket, client: Any, address: str) -> None:  # noqa: ANN401  as sockets say it
        self._server = server
        self._client = client
        self.address = address
        """Of the client, for the limit on connections; empty for a unix socket."""
        self.channel = Channel(sock, server.shared.clock, write_timeout=server.shared.config.write_timeout)
        self._speaker: Speaker | None = None
        self._until = server.shared.clock.now + server.shared.config.header_timeout

    async def run(self) -> None:  # noqa: ASYNC910  whoever is accepted is waited for
        """Serve until the client or the server ends it; nothing but cancellation gets out."""
        try:
            self._speaker = await self._choose()
            if self._speaker is None:
                return
            await self._speaker.run()
        except Exception as error:
            if not only_gone(error):
                self._server.shared.context.log.exception("a connection failed", exc_info=error)
        finally:
            self.channel.abort()
            self._server.forget(self)

    async def _choose(self) -> Speaker | None:
        """Return who speaks the client's protocol, None if it has left, or failed at TLS."""
        server, channel = self._server, self.channel
        opening, introduction = b"", Introduction()
        if server.shared.config.proxy_protocol:
            told = await self._introduced()
            if told is None:
                return None
            introduction = told
        if server.tls is not None:
            said = await channel.shake_hands(server.tls)
            if said is None:
                self._note_plain(introduction.client or self._client)
                return None
            opening = said
            is_h2 = channel.tls is not None and channel.tls.alpn == _ALPN_H2
        elif server.shared.config.h2c:
            opening = await self._read_opening()
            is_h2 = opening.startswith(PREFACE)
        else:
            is_h2 = False  # noqa: ASYNC910  the protocol goes on reading
        client, server_name = introduction.client or self._client, introduction.server or channel.own_name()
        base = connection_scope(channel, client, server_name, is_encrypted=introduction.is_encrypted)
        kind = Http2 if is_h2 else Http1
        return kind(server.shared, channel, base, opening)  # noqa: ASYNC910  suspends only to wait

    def _note_plain(self, client: Any) -> None:  # noqa: ANN401  as sockets say it
        """Take note of who was answered in HTTP because it does not speak TLS."""
        shared = self._server.shared
        if self.channel.answered and shared.ended.is_watched:
            base = connection_scope(self.channel, client, None)
            scope = scope_without_route(shared, base, "-", b"-", [], "-")
            shared.note(scope, "", time.perf_counter(), 400, self.channel.answered)

    async def _introduced(self) -> Introduction | None:
        """Return for whom a proxy connects, None if it has left, says it wrong, or is none that is trusted."""
        server = self._server
        if not server.shared.proxies.trusts(self._client if self.address else None):
            server.refuse("a client is no trusted proxy", client=self.address)
            return None  # noqa: ASYNC910  the connection ends
        try:
            data = await self.channel.read_introduction()
            return parse_introduction(data) if data else None
        except BrokenIntroductionError as error:
            server.refuse("a proxy does not say for whom it asks", client=self.address, reason=str(error))
            return None  # noqa: ASYNC910  the connection ends

    async def _read_opening(self) -> bytes:
        """Return what the client sends first: as much as tells whether it speaks HTTP/2."""
        opening = b""
        while len(opening) < len(PREFACE) and PREFACE.startswith(opening):
            data = await self.channel.read()
            if data == b"" or (data is None and self._server.shared.stopping):
                break
            opening += data or b""
        return opening  # noqa: ASYNC910  suspends only to wait

    def look(self, now: float) -> None:
        """Keep the deadlines: called every tick."""
        if self.channel.write_until <= now:
            self.channel.abort(reset=True)
        elif self._speaker is not None:
            self._speaker.look(now)
        elif self._until <= now:
            self.channel.abort()

    @property
    def is_idle(self) -> bool:
        """Whether it may be about to ask for something, and could only be left without an answer."""
        return self._speaker is None or self._speaker.is_idle

    def stop(self) -> None:
        """Begin to stop."""
        if self._speaker is not None:
            self._speaker.stop()
        else:
            self.channel.hurry()

    def abort(self) -> None:
        """Close at once, whatever it is doing."""
        self.channel.abort()
