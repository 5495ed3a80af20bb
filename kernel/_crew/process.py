"""One process of a crew, as its parent has it: started, heard, and waited for."""

from __future__ import annotations

import array
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, final

import attrs
import trio

from .._core.crew import Endpoint
from .wire import ANSWERS_WITHIN, CHUNK, Frame, Unpacker, packed

GRACE: Final = 25.0
"""Seconds of the grace period of a process that has not told it."""
_CHILD: Final = "kernel._cli.member"
_REST_WITHIN: Final = 0.2
"""Seconds in which the last that a process has sent is read, after its end."""
_OF_SYSTEMD: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Variables that are meant for the parent alone."""


@final
@attrs.define(eq=False, repr=False)
class Process:
    """A process from its start to its end."""

    number: int
    popen: subprocess.Popen[bytes]
    _channel: trio.socket.SocketType
    asks: Callable[[Process, Frame], object]
    """Is given each frame that is no answer; must not wait."""
    began: float = attrs.field(factory=trio.current_time, init=False)
    ready_at: float | None = attrs.field(default=None, init=False)
    planned: Mapping[str, Any] = attrs.field(factory=dict[str, Any], init=False)
    """What it has told of its service, the last time; empty before it has read the manifest."""
    ended: Mapping[str, Any] | None = attrs.field(default=None, init=False)
    """How it has ended, in its own words; None if it has not, or could not tell."""
    sockets: set[tuple[str, Endpoint]] = attrs.field(factory=set[tuple[str, Endpoint]], init=False)
    """Those that it listens at."""
    is_asked_to_end: bool = attrs.field(default=False, init=False)
    settled: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when it is ready for the first time, or has ended."""
    gone: trio.Event = attrs.field(factory=trio.Event, init=False)
    _answers: dict[int, tuple[trio.Event, list[str | None]]] = attrs.field(
        factory=dict[int, tuple[trio.Event, list[str | None]]], init=False
    )
    _asked: int = attrs.field(default=0, init=False)
    _sending: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    @property
    def status(self) -> int:
        """Its exit status once it has gone; below 0 is the signal that killed it."""
        return self.popen.returncode or 0

    @property
    def grace_period(self) -> float:
        """Seconds that its stop may take."""
        return float(self.planned.get("grace_period", GRACE))

    @property
    def is_ready(self) -> bool:
        """Whether it has been ready, and is not to end."""
        return self.ready_at is not None and not self.is_asked_to_end and not self.gone.is_set()

    def send_signal(self, number: int) -> None:
        """Send a signal, if it has not gone."""
        self.is_asked_to_end = True
        self.popen.send_signal(number)

    async def end(self, *, within: float) -> None:
        """Have it stop in order, and kill it if it is not gone in time."""
        self.send_signal(signal.SIGTERM)
        with trio.move_on_after(within):
            await self.gone.wait()
            return
        self.send_signal(signal.SIGKILL)
        await self.gone.wait()

    # --- its life -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hear it until it has ended.

        Cancellation: Is a checkpoint. If cancelled, it is killed.
        """
        number = os.pidfd_open(self.pid)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hear)
                await trio.lowlevel.wait_readable(number)
                nursery.cancel_scope.deadline = trio.current_time() + _REST_WITHIN
        finally:
            os.close(number)
            self.popen.kill()
            self.popen.wait()
            self._channel.close()
            self.settled.set()
            self.gone.set()

    async def _hear(self) -> None:  # noqa: ASYNC910  it has read
        unpacker = Unpacker()
        with suppress(ConnectionError):
            while data := await self._channel.recv(CHUNK):
                for frame in unpacker.feed(data):
                    self._take(frame)

    def _take(self, frame: Frame) -> None:
        match frame:
            case {"answer": int(id_), "told": told}:
                if id_ in self._answers:
                    self._answers[id_][1].append(told)
                    self._answers[id_][0].set()
            case {"planned": planned}:
                self.planned = planned
                self.asks(self, frame)
            case {"ended": ended}:
                self.ended = ended
            case {"ready": _}:
                self.ready_at = trio.current_time()
                self.settled.set()
                self.asks(self, frame)
            case _:
                self.asks(self, frame)

    # --- what it is told ----------------------------------------------------------------------------------------

    async def tell(self, frame: Frame, descriptor: int | None = None) -> None:  # noqa: ASYNC910  the lock is one
        """Send it a frame, and a descriptor with it."""
        data = packed(frame)
        with suppress(OSError, trio.ClosedResourceError):
            async with self._sending:
                if descriptor is not None:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
                    data = data[await self._channel.sendmsg([data], rights) :]
                while data:
                    data = data[await self._channel.send(data) :]

    async def ask(self, name: str) -> str | None:
        """Return what it tells by a name; None if it does not, in time."""
        self._asked += 1
        event, told = self._answers[self._asked] = (trio.Event(), list[str | None]())
        id_ = self._asked
        with trio.move_on_after(ANSWERS_WITHIN):
            await self.tell({"ask": name, "id": id_})
            await event.wait()
        del self._answers[id_]
        return told[0] if told else None  # noqa: ASYNC910  it has waited


async def collect(processes: Iterable[Process], name: str) -> dict[int, str]:
    """Return what each process tells by a name, by its number; those that do not, in time, are left out.

    Cancellation: Is a checkpoint.
    """
    told: dict[int, str] = {}

    async def ask(process: Process) -> None:
        if (text := await process.ask(name)) is not None:
            told[process.number] = text

    await trio.lowlevel.checkpoint()
    async with trio.open_nursery() as nursery:
        for process in processes:
            nursery.start_soon(ask, process)
    return told


def started(
    number: int, size: int, given: str, asks: Callable[[Process, Frame], object], *, keeps_code: bool = True
) -> Process:
    """Start a process; `Process.run` has to be called.

    It has a process group of its own: what a terminal sends to all comes once, from the parent.

    Args:
        number: Of the process.
        size: How many there are to be.
        given: What it runs, for `kernel._cli.member`.
        asks: See `Process`.
        keeps_code: Whether it may keep compiled code. That is told from newer code by the second and the size, so that
            what is edited twice in a second could be run as it was before.

    Raises:
        OSError: if the system has no room for it.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            popen = subprocess.Popen(
                [sys.executable, "-m", _CHILD, str(theirs.fileno()), str(number), str(size), str(os.getpid()), given],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env=_environment(keeps_code=keeps_code),
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
    ours.setblocking(False)  # noqa: FBT003
    return Process(number, popen, trio.socket.from_stdlib_socket(ours), asks)


def _environment(*, keeps_code: bool) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _OF_SYSTEMD}
    return kept if keeps_code else {**kept, "PYTHONDONTWRITEBYTECODE": "1"}


def failure(error: OSError) -> Frame:
    """Return how an error of the system is told."""
    return {"errno": error.errno or errno.EINVAL, "error": error.strerror or str(error)}
