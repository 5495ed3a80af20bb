"""A crew as one of its processes has it: a thread hears what the parent says, also while the event loop is blocked.

When the channel ends, the parent is gone: the process stops in order then, as by SIGTERM.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, cast, final

import attrs
import trio
from typing_extensions import override

from .._core.crew import Crew, Endpoint
from .wire import ANSWERS_WITHIN, CHUNK, Frame, Unpacker, packed

_PATIENCE: Final = 2 * ANSWERS_WITHIN
"""Seconds that the parent has for an answer."""
_PR_SET_PDEATHSIG: Final = 1
"""Source: linux/prctl.h."""


@final
@attrs.define(eq=False, repr=False)
class _Reply:
    """What the parent answers."""

    done: threading.Event = attrs.field(factory=threading.Event, init=False)
    frame: Frame = attrs.field(factory=dict[str, object], init=False)
    fds: list[int] = attrs.field(factory=list[int], init=False)


@final
@attrs.define(eq=False, repr=False)
class Member(Crew):
    """This process, among those of its service."""

    number: int
    size: int
    _channel: socket.socket
    """To the parent. Blocks."""
    _parent: int
    """Its process id."""
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    """Of what is sent, and of what follows."""
    _offers: dict[str, Callable[[], str]] = attrs.field(factory=dict[str, Callable[[], str]], init=False)
    _replies: dict[int, _Reply] = attrs.field(factory=dict[int, _Reply], init=False)
    _asked: int = attrs.field(default=0, init=False)
    _listeners: list[tuple[str, Endpoint, socket.socket]] = attrs.field(
        factory=list[tuple[str, Endpoint, socket.socket]], init=False
    )
    """Owner, where, and what it was handed."""
    _leads: bool = attrs.field(default=False, init=False)
    _waiting: list[tuple[trio.lowlevel.TrioToken, trio.Event]] = attrs.field(
        factory=list[tuple[trio.lowlevel.TrioToken, trio.Event]], init=False
    )
    """Who waits until it leads."""

    def start(self) -> None:
        """Begin to hear the parent, and see to it that this process does not outlive it."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the service hears it: no traceback of an import
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != self._parent:  # it died before it was asked for its death
            os.kill(os.getpid(), signal.SIGTERM)
        threading.Thread(target=self._hear, name="kernel-crew", daemon=True).start()

    def tell(self, **frame: object) -> None:
        """Tell the parent something. Nobody is there to hear it any more if the parent has died."""
        with self._lock, suppress(OSError):
            self._channel.sendall(packed(frame))

    def leave(self, owner: str, *, for_good: bool) -> None:
        """Tell the parent where a component that has moved, or has gone for good, listens no longer.

        Args:
            owner: Its id.
            for_good: Whether it will not listen again. Else what it has closed without opening it anew is told.
        """
        with self._lock:
            mine = [one for one in self._listeners if one[0] == owner]
            kept = [] if for_good else [one for one in mine if one[2].fileno() >= 0]
            self._listeners = [one for one in self._listeners if one[0] != owner] + kept
        for endpoint in {endpoint for _, endpoint, _ in mine} - {endpoint for _, endpoint, _ in kept}:
            self.tell(leave=attrs.asdict(endpoint), owner=owner)

    @override
    async def wait_leading(self) -> None:
        await trio.lowlevel.checkpoint()
        event = trio.Event()
        with self._lock:
            if self._leads:
                return
            self._waiting.append((trio.lowlevel.current_trio_token(), event))
        await event.wait()

    @override
    def listener(self, owner: str, endpoint: Endpoint) -> socket.socket:
        reply = self._ask(listen=attrs.asdict(endpoint), owner=owner)
        if reply.fds:
            shared = socket.socket(fileno=reply.fds[0])
            with self._lock:
                self._listeners.append((owner, endpoint, shared))
            return shared
        raise OSError(reply.frame.get("errno", 0), reply.frame.get("error", "the parent does not answer"))

    @override
    async def open_tcp_listeners(self, owner: str, port: int, *, host: str) -> list[trio.SocketListener]:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        listeners: list[trio.SocketListener] = []
        try:
            for numeric in dict.fromkeys(str(address[0]) for *_, address in found):
                raw = await trio.to_thread.run_sync(self.listener, owner, Endpoint(host=numeric, port=port))
                listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(raw)))
        except BaseException:
            for listener in listeners:
                listener.socket.close()
            raise
        return listeners

    @override
    def offer(self, name: str, tell: Callable[[], str]) -> Callable[[], None]:
        self._offers[name] = tell

        def end() -> None:
            if self._offers.get(name) is tell:
                del self._offers[name]

        return end

    @override
    def collect(self, name: str) -> Mapping[int, str]:
        told = cast("Mapping[str, str]", self._ask(collect=name).frame.get("told", {}))
        return {int(number): text for number, text in told.items()}

    def _ask(self, **question: object) -> _Reply:
        """Return the parent's answer; an empty one if there is none in time."""
        reply = _Reply()
        with self._lock:
            self._asked += 1
            id_ = self._asked
        self._replies[id_] = reply
        self.tell(**question, id=id_)
        reply.done.wait(_PATIENCE)
        self._replies.pop(id_, None)
        return reply

    # --- hearing ------------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        unpacker, fds = Unpacker(), list[int]()
        while True:
            try:
                data, more, _, _ = socket.recv_fds(self._channel, CHUNK, 16, socket.MSG_CMSG_CLOEXEC)
            except OSError:
                data, more = b"", []
            if not data:
                break
            fds += more
            for frame in unpacker.feed(data):
                self._take(frame, fds)
        os.kill(os.getpid(), signal.SIGTERM)

    def _take(self, frame: Frame, fds: list[int]) -> None:
        if "ask" in frame:
            self._answer(frame["ask"], frame["id"])
        elif "lead" in frame:
            self._lead()
        else:
            taken = [fds.pop(0)] if frame.get("has_descriptor") else []
            reply = self._replies.get(frame["id"])
            if reply is None:  # too late
                for fd in taken:
                    os.close(fd)
            else:
                reply.frame, reply.fds = frame, taken
                reply.done.set()

    def _answer(self, name: str, id_: int) -> None:
        offered = self._offers.get(name)
        try:
            told = None if offered is None else offered()
            self.tell(answer=id_, told=told)
        except Exception:  # noqa: BLE001  what cannot be told is left out, and the next one is asked for
            self.tell(answer=id_, told=None)

    def _lead(self) -> None:
        with self._lock:
            self._leads = True
            waiting, self._waiting = self._waiting, []
        for token, event in waiting:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(event.set)
