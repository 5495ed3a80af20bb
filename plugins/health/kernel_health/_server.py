"""A thread that answers small requests over HTTP/1.1, also while the event loop is blocked.

One thread, one request for each connection, and a bound on everything that a client may do: how many there are, how
long each takes, how much it sends. What it is asked is answered from a function that any thread may call.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Final, cast, final

import attrs

from ._truth import Answer

HEAD_MAX: Final = 8 * 1024
"""Bytes that a request may have."""
_BACKLOG: Final = 64
_TICK: Final = 0.5
"""Seconds between two looks at connections that have taken too long, and calls of `on_tick`, at most."""
_LAST: Final = 0.1
"""Seconds in which who has come by the end is answered, at most."""
_GIVE_WAY: Final = 0.0001
"""Seconds in which the main thread gets the interpreter lock, before an answer is made."""

Respond = Callable[[str, str], Answer]
"""Method, path -> what is answered."""


@final
@attrs.define(eq=False, repr=False)
class _Client:
    """One connection."""

    sock: socket.socket
    until: float
    received: bytes = b""
    left: bytes = b""
    """Of the answer."""


@final
@attrs.define(eq=False, repr=False)
class ProbeServer:
    """Serves probes on sockets that listen, from `start` to `stop`."""

    listeners: Sequence[socket.socket]
    respond: Respond
    max_connections: int
    timeout: float
    on_tick: Callable[[], float]
    """Called in the thread again and again; returns the seconds after which it wants to be called again."""
    _clients: dict[int, _Client] = attrs.field(factory=dict[int, _Client], init=False)
    _selector: selectors.BaseSelector = attrs.field(factory=selectors.DefaultSelector, init=False)
    _wake: tuple[socket.socket, socket.socket] = attrs.field(factory=socket.socketpair, init=False)
    _thread: threading.Thread = attrs.field(init=False)
    _over: bool = attrs.field(default=False, init=False)

    def start(self) -> None:
        """Begin to answer."""
        for listener in self.listeners:
            listener.settimeout(0)
            self._selector.register(listener, selectors.EVENT_READ, partial(self._accept, listener))
        self._selector.register(self._wake[0], selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name="kernel-health", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer who has come by now, then end every connection and the thread; waits for that, which takes a moment."""
        self._over = True
        self._wake[1].send(b"x")
        self._thread.join(self.timeout)
        for end in (*self._wake, self._selector):
            end.close()

    def _run(self) -> None:
        try:
            while not self._over:
                wait = min(_TICK, max(0.0, self._tick()))
                for key, _ in self._selector.select(wait):
                    call = cast("Callable[[], None] | None", key.data)
                    if call is not None:
                        call()
                self._close_late()
            self._answer_the_last()
        finally:
            for client in list(self._clients.values()):
                self._close(client)

    def _answer_the_last(self) -> None:
        """Answer who waits for it: to whom a probe is cut off, something is wrong; to whom it is refused, nothing is there."""
        self._selector.unregister(self._wake[0])
        until = time.monotonic() + _LAST
        while (left := until - time.monotonic()) > 0:
            ready = self._selector.select(left if self._clients else 0)
            for key, _ in ready:
                cast("Callable[[], None]", key.data)()
            if not ready and not self._clients:
                return

    def _tick(self) -> float:
        with suppress(Exception):  # whatever it does, probes are answered
            return self.on_tick()
        return _TICK

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # gone again, or no descriptor is left: the next look is soon enough
            return
        if len(self._clients) >= self.max_connections:
            # A probe asks at once. Who has been here for longest is the likeliest to have come for something else.
            self._close(next(iter(self._clients.values())))
        sock.settimeout(0)
        client = self._clients[sock.fileno()] = _Client(sock, time.monotonic() + self.timeout)
        self._selector.register(sock, selectors.EVENT_READ, partial(self._read, client))

    def _read(self, client: _Client) -> None:
        try:
            data = client.sock.recv(HEAD_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.received += data
        if not data:
            self._close(client)
        elif b"\r\n\r\n" in client.received or b"\n\n" in client.received:
            self._answer(client, self._answer_to(client.received), is_head=client.received.startswith(b"HEAD "))
        elif len(client.received) > HEAD_MAX:
            self._answer(client, Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b""))

    def _answer_to(self, received: bytes) -> Answer:
        words = received.split(b"\n", 1)[0].decode("latin-1").rstrip("\r").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
            return Answer(HTTPStatus.BAD_REQUEST, b"")
        # The main thread may have been woken by a signal that this answer is about, and wait for the lock: it gets none
        # in the short calls of the system between two answers, and only asks for it after 5 ms.
        time.sleep(_GIVE_WAY)
        try:
            return self.respond(words[0], words[1].partition("?")[0])
        except Exception:  # noqa: BLE001  a probe gets an answer, whatever is wrong
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"")

    def _answer(self, client: _Client, answer: Answer, *, is_head: bool = False) -> None:
        head = (
            f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\ncontent-type: {answer.content_type}\r\n"
            f"content-length: {len(answer.body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        client.left = head.encode() + (b"" if is_head else answer.body)
        self._selector.modify(client.sock, selectors.EVENT_WRITE, partial(self._write, client))
        self._write(client)

    def _write(self, client: _Client) -> None:
        try:
            client.left = client.left[client.sock.send(client.left) :]
        except BlockingIOError:
            return
        except OSError:
            client.left = b""
        if not client.left:
            with suppress(OSError):
                client.sock.shutdown(socket.SHUT_WR)
            self._close(client)

    def _close_late(self) -> None:
        now = time.monotonic()
        for client in [one for one in self._clients.values() if one.until <= now]:
            self._close(client)

    def _close(self, client: _Client) -> None:
        if self._clients.pop(client.sock.fileno(), None) is not None:
            self._selector.unregister(client.sock)
            client.sock.close()
