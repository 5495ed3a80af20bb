"""One client's bytes, in both directions: the only user of its socket, which is why it is long.

Nothing here has a timer. A wait has a deadline that whoever sweeps over all channels looks at, and closing a channel
wakes who waits on it, so that nothing that a client does can hold anybody.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections import deque
from contextlib import suppress
from math import inf
from typing import Any, Final, final

import trio
from trio.lowlevel import checkpoint, notify_closing, wait_readable, wait_writable

from .clock import Clock
from .lot import Lot
from .proxy import BYTES_MAX, length_of
from .tls import Tls

READ_BYTES: Final = 64 * 1024
PIECE: Final = 64 * 1024
"""Bytes that a client must take within one `write_timeout`."""
STREAK: Final = 16
"""Sends that did not wait, after which the other tasks have a turn."""
STREAK_BYTES: Final = 8 * 1024
"""Bytes that count as much as one send more."""
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class ClientGoneError(ConnectionError):
    """The client will not get what is sent; see the ASGI specification, 2.4, "Disconnected client"."""


@final
class Channel:
    """A connected socket, plain or with TLS."""

    __slots__ = (
        "_clock",
        "_flushing",
        "_is_hurried",
        "_out",
        "_recv",
        "_send",
        "_socket",
        "_spent",
        "_turn",
        "_write_timeout",
        "answered",
        "closed",
        "eof",
        "fd",
        "mute",
        "reading",
        "tls",
        "write_until",
    )

    def __init__(self, sock: socket.socket, clock: Clock, *, write_timeout: float) -> None:
        self._socket = sock
        self._recv = sock.recv
        self.answered = 0
        """Bytes of body of the answer to who speaks HTTP where TLS is spoken."""
        self._send = sock.send
        self.fd = sock.fileno()
        self._clock = clock
        self._write_timeout = write_timeout
        self.tls: Tls | None = None
        self._out: deque[memoryview] = deque()
        self._turn = Lot()
        """Who waits for another task that reads or writes, or for whatever is new."""
        self._flushing = False
        self._is_hurried = False
        self._spent = 0
        self.reading = False
        """Whether somebody waits for the client."""
        self.eof = False
        """The client has closed its sending side."""
        self.closed = False
        self.mute = False
        """Nothing more can be said, but what waits to be taken."""
        self.write_until = inf
        """When the client must have taken the next piece."""

    def own_name(self) -> Any:  # noqa: ANN401  as sockets say it
        """Return the address of this end, as the socket has it; None if it is closed."""
        return None if self.closed else self._socket.getsockname()

    # --- reading ------------------------------------------------------------------------------------------------

    async def read(self) -> bytes | None:
        """Return what the client sent next, nothing at its end, None if woken.

        Cancellation: Is a checkpoint, unless the end has come already.
        """
        if self.eof or self.closed:
            return b""  # noqa: ASYNC910  whoever reads on after the end has checkpoints of its own
        if self.reading:  # another task of the application does it
            await self._turn.park()
            return None
        self.reading = True
        self._spent = 0
        try:
            # Waits even if there is something: one read a turn, so that nobody starves.
            await wait_readable(self.fd)
            return self.read_nowait()
        except trio.ClosedResourceError:  # closed, or woken
            return self.read_nowait()  # noqa: ASYNC910  suspends only to wait
        finally:
            self.reading = False
            if self._turn.tasks:
                self._turn.unpark_all()

    def read_nowait(self) -> bytes | None:
        """Return what has come from the client, nothing at its end, None if nothing has."""
        if self.closed:
            return b""
        try:
            data = self._recv(READ_BYTES)
            if self.tls is not None:
                return self._decrypted(self.tls, data)
        except BlockingIOError:
            return None
        except OSError:  # an SSLError is one
            self.abort()
            return b""
        self.eof = not data
        return data

    def _decrypted(self, tls: Tls, data: bytes) -> bytes | None:
        if not data:
            self.eof = True
            return b""
        plain = tls.decrypt(data)
        own = tls.pending()
        if own:
            self._push(own)
        self.eof = tls.ended
        return plain or (b"" if tls.ended else None)

    async def read_introduction(self) -> bytes:
        """Return the header of the PROXY protocol, and leave what follows; nothing if the client has left.

        Raises:
            BrokenIntroductionError: if something else comes.
        """
        got = b""
        while not self.closed:
            try:
                await self._wait_unless_hurried()
                seen = self._socket.recv(BYTES_MAX, socket.MSG_PEEK)
                size = length_of(got + seen)
                wanted = len(seen) if size is None else min(len(seen), size - len(got))
                got += self._recv(wanted) if seen else b""
            except BlockingIOError:
                if self._is_hurried:
                    break
                continue
            except OSError:
                break
            if not seen:
                break
            if len(got) == size:
                return got  # noqa: ASYNC910  suspends only to wait
        return b""  # noqa: ASYNC910  suspends only to wait

    async def shake_hands(self, context: ssl.SSLContext) -> bytes | None:
        """Agree with the client on TLS; return what it said besides, which the socket will not tell; None if that fails."""
        tls = Tls(context)
        while not self.closed:
            try:
                await self._wait_unless_hurried()
                data = self._recv(READ_BYTES)
                done = tls.shake(data) if data else None
            except BlockingIOError:
                if self._is_hurried:
                    break
                continue
            except OSError as error:
                self._push(tls.complaint(error))
                self.answered = tls.answered
                break
            self._push(tls.pending())
            if done is None:
                break
            if done:
                self.tls = tls
                return self._said_behind(tls)  # noqa: ASYNC910  suspends only to wait
        return None  # noqa: ASYNC910  suspends only to wait

    def _said_behind(self, tls: Tls) -> bytes | None:
        try:
            plain = tls.decrypt(b"")
        except OSError:
            return None
        self._push(tls.pending())
        self.eof = tls.ended
        return plain

    async def _wait_unless_hurried(self) -> None:  # noqa: ASYNC910  suspends only to wait
        if not self._is_hurried:
            with suppress(trio.ClosedResourceError):  # closed, or woken
                await wait_readable(self.fd)

    def hurry(self) -> None:
        """Let nobody wait any more for an introduction, or the rest of a handshake, that has not come."""
        self._is_hurried = True
        self.wake()

    # --- writing ------------------------------------------------------------------------------------------------

    @property
    def has_unsent(self) -> bool:
        """Whether there is something that the client has not taken."""
        return bool(self._out)

    async def write(self, data: bytes) -> None:  # noqa: ASYNC910  suspends only to wait
        """Send bytes; waits while the client does not take them.

        Raises:
            ClientGoneError: if it never will.

        Cancellation: If cancelled, the rest leaves before what is sent next, or with `flush`: nothing is cut in two.
        """
        if self.mute:
            raise ClientGoneError("the client is gone")
        self._push(self.tls.encrypt(data) if self.tls is not None else data)
        if self._out:
            await self.flush()
        self._spent += 1 + len(data) // STREAK_BYTES
        if self._spent > STREAK:
            self._spent = 0
            await checkpoint()

    def write_nowait(self, data: bytes) -> None:
        """Send bytes, as many as the client takes at once; the rest leaves with what is sent next, or with `flush`."""
        if not self.mute:
            self._push(self.tls.encrypt(data) if self.tls is not None else data)

    def _push(self, data: bytes) -> None:
        """Send what the socket takes at once, and keep the rest."""
        if not data or self.closed:
            return
        sent = 0 if self._out else self._sent(data)
        if sent < len(data):
            self._out.append(memoryview(data)[sent:])
            if self.write_until == inf:
                self.write_until = self._clock.now + self._write_timeout

    def _sent(self, data: bytes | memoryview) -> int:
        try:
            return self._send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.abort()
            return 0

    async def flush(self) -> None:  # noqa: ASYNC910  suspends only to wait
        """Wait until the client has taken everything.

        Raises:
            ClientGoneError: if it never will.
        """
        taken = 0
        while self._out and not self.closed:
            if self._flushing:  # another task does it
                await self._turn.park()
                continue
            taken += await self._flush_some()
            if taken >= PIECE:
                taken, self.write_until = 0, self._clock.now + self._write_timeout
        if self.closed:
            raise ClientGoneError("the client is gone")
        self.write_until = inf

    async def _flush_some(self) -> int:
        """Wait until the client takes something; return how much."""
        self._flushing = True
        try:
            await wait_writable(self.fd)
            return self._send_first() if self._out else 0
        except trio.ClosedResourceError:
            return 0  # closed, or woken for another reason  # noqa: ASYNC910  suspends only to wait
        finally:
            self._flushing = False
            self._turn.unpark_all()

    def _send_first(self) -> int:
        sent = self._sent(self._out[0][:PIECE])
        if sent:
            rest = self._out.popleft()[sent:]
            if rest:
                self._out.appendleft(rest)
            elif self.mute:
                self._shut_down()
        return sent

    # --- the end ------------------------------------------------------------------------------------------------

    async def wait_news(self) -> None:
        """Wait until somebody calls `wake`, or reads or writes something. Is a checkpoint."""
        await self._turn.park()

    def wake(self) -> None:
        """Let whoever waits for this client look again."""
        if not self.closed:
            notify_closing(self.fd)
        self._turn.unpark_all()

    def shut(self) -> None:
        """Say nothing more, once the client has taken what was said: `flush` goes on. May be called again."""
        if not self.mute:
            self._push(self.tls.close() if self.tls is not None else b"")
            self.mute = True
            self._shut_down()

    def _shut_down(self) -> None:
        if not (self._out or self.closed):
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def has_left(self) -> bool:
        """Whether the client has closed its sending side, what it sent before and nobody read notwithstanding."""
        if self.eof or self.closed:
            return True
        with suppress(OSError):
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
            return info[0] != _ESTABLISHED
        return False

    def abort(self, *, reset: bool = False) -> None:
        """Close at once, whoever is using it. May be called again.

        Args:
            reset: Whether the client must not take what it got for a whole answer.
        """
        if self.closed:
            return
        if reset:
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.wake()
        self.closed = self.mute = True
        self._out.clear()
        self.write_until = inf
        self._socket.close()


_ESTABLISHED: Final = 1
"""Of the first byte of Linux's `tcp_info`; a socket whose peer has closed its side is in CLOSE_WAIT."""
