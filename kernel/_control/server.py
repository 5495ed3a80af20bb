"""Answers on a control socket, in a thread with an event loop of its own: the service's may be blocked.

Nobody connected, nothing runs. A client is bounded in what it sends, in the time that it takes, and in number; what it
asks for is `orders`'.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, cast, final

import attrs
import trio

from .._convert.json_reading import read_json
from .._delivery.failure import UNCUT, describe
from ..errors import DecodeError
from .bridge import Bridge
from .orders import Desk, carry_out
from .places import LONGEST, Place, make_folder, remove_stale
from .wire import CLIENTS, MAX_DEPTH, MAX_REQUEST, WITHIN, RefusedError, Tell, line_of, refusal

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_LEFT: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
"""What is raised because a client has gone, or does not read."""
_FULL: Final = f"{CLIENTS} clients are served already"


def open_socket(place: Place, log: FilteringBoundLogger) -> socket.socket | None:
    """Return a socket that listens, for `answer_at`; who connects before that waits. None if there can be none.

    Without one, the service goes on.

    Args:
        place: Where.
        log: Is told why there is none.
    """
    try:
        return _bound(place.path)
    except OSError as error:
        log.warning("no control socket", path=str(place.path), error=describe(error))
        return None


async def answer_at(
    listener: socket.socket, place: Place, desk: Callable[[Bridge], Desk], log: FilteringBoundLogger
) -> None:
    """Answer on a control socket until cancelled, and delete it.

    Args:
        listener: Of `open_socket`. It stays open: the thread, which may begin and end late, has a descriptor of its own.
        place: Where it is.
        desk: Makes what answers.
        log: Is told what goes wrong.

    Cancellation: Is a checkpoint. Who is being answered is cut.
    """
    async with trio.open_nursery() as nursery:
        server = _Server(listener.dup(), desk(Bridge(trio.lowlevel.current_trio_token(), nursery)), log)
        try:
            threading.Thread(target=server.run, name="kernel-control", daemon=True).start()
            await trio.sleep_forever()
        finally:
            place.path.unlink(missing_ok=True)
            server.stop()
            nursery.cancel_scope.cancel()


def _bound(path: Path) -> socket.socket:
    """Return a socket that listens at a path, for its user alone from the first moment on."""
    make_folder(path.parent)
    remove_stale(path.parent)
    if len(os.fsencode(path)) > LONGEST:
        raise OSError(f"the path is longer than {LONGEST} bytes; set KERNEL_CONTROL_DIR")
    path.unlink(missing_ok=True)  # of a process that had this pid
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(str(path))  # nobody can connect before `listen`
        path.chmod(0o600)
        listener.listen(CLIENTS)
    except BaseException:
        listener.close()
        raise
    return listener


Carry: TypeAlias = Callable[[Mapping[str, object], Tell], Awaitable[None]]


@final
@attrs.define(eq=False, repr=False)
class Answering:
    """Answers clients in the event loop that it is called in."""

    carry_out: Carry
    """Does what a request asks for, and tells what came of it; raises `RefusedError` if it does not."""
    masked: Callable[[str], str]
    """Takes out of an answer what nobody is to see."""
    log: FilteringBoundLogger
    _clients: int = attrs.field(default=0, init=False)

    async def serve(self, listener: socket.socket) -> None:
        """Answer until cancelled."""
        await trio.serve_listeners(self._answer, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))])

    async def _answer(self, stream: trio.SocketStream) -> None:
        """Serve one connection; whatever is wrong with it ends with it."""
        self._clients += 1
        with suppress(*_LEFT):
            async with stream:
                await self._converse(stream)
        self._clients -= 1
        await trio.lowlevel.checkpoint()

    async def _converse(self, stream: trio.SocketStream) -> None:
        async def tell(answer: object) -> None:
            await self._send(stream, {"ok": True, "answer": answer})

        try:
            self._admit(stream)
            request = _request(await _line(stream))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_gone, stream, nursery.cancel_scope)
                await self.carry_out(request, tell)
                nursery.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001  whatever it is, the others are served
            await self._refuse(stream, _first(error))

    async def _refuse(self, stream: trio.SocketStream, error: BaseException) -> None:
        """Say why there is no answer, if anybody is there to hear it."""
        if isinstance(error, RefusedError):
            await self._send(stream, refusal(str(error)))
        elif isinstance(error, _LEFT):
            await trio.lowlevel.checkpoint()
        else:
            self.log.error("an order failed", component="kernel", exc_info=error)
            await self._send(stream, refusal(f"it failed: {describe(error, most=UNCUT)}"))

    def _admit(self, stream: trio.SocketStream) -> None:
        if not _may_ask(stream):
            raise RefusedError("this service belongs to another user")
        if self._clients > CLIENTS:
            raise RefusedError(_FULL)

    async def _send(self, stream: trio.SocketStream, answer: object) -> None:
        """Send a line; who does not take it in time is left."""
        line = self.masked(line_of(answer).decode()).encode()
        with trio.fail_after(WITHIN):
            await stream.send_all(line)


@final
@attrs.define(eq=False, repr=False)
class _Server:
    """The thread."""

    listener: socket.socket
    desk: Desk
    log: FilteringBoundLogger
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _loop: trio.lowlevel.TrioToken | None = attrs.field(default=None, init=False)
    _over: bool = attrs.field(default=False, init=False)

    def run(self) -> None:
        """Serve until `stop`. The body of the thread."""
        trio.run(self._serve)

    def stop(self) -> None:
        """End it soon. Called in another thread."""
        self._over = True
        if self._loop is not None:
            with suppress(trio.RunFinishedError):
                self._loop.run_sync_soon(self._scope.cancel)

    async def _serve(self) -> None:
        self._loop = trio.lowlevel.current_trio_token()
        if self._over:  # before it knew the loop
            self._scope.cancel()
        with self._scope:
            await Answering(partial(carry_out, self.desk), self.desk.masks.applied, self.log).serve(self.listener)


def _request(line: bytes) -> dict[str, object]:
    """Return what a client asks for.

    Raises:
        RefusedError: if it is no request.
    """
    try:
        value = read_json(line, max_bytes=MAX_REQUEST, max_depth=MAX_DEPTH)
    except DecodeError as error:
        raise RefusedError(f"no request: {error}") from error
    if not isinstance(value, dict):
        raise RefusedError("no request: it must be an object")
    return cast("dict[str, object]", value)


def _first(error: BaseException) -> BaseException:
    """Return the first of the exceptions that a nursery has put together."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def _may_ask(stream: trio.SocketStream) -> bool:
    """Whether the process at the other end belongs to the user of this one, or to root, as Linux says."""
    credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return user in {0, os.geteuid()}


async def _line(stream: trio.SocketStream) -> bytes:
    """Return the line that a client sends."""
    received = bytearray()
    with trio.move_on_after(WITHIN):
        while len(received) <= MAX_REQUEST:
            chunk = await stream.receive_some(MAX_REQUEST)
            received += chunk
            line, newline, _ = received.partition(b"\n")
            if newline:
                return bytes(line)
            if not chunk:
                raise RefusedError("no request: it must end with a line break")
        raise RefusedError(f"no request: it has more than {MAX_REQUEST} bytes")
    raise RefusedError(f"no request within {WITHIN:g} s")


async def _until_gone(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Cut what a client waits for when it has gone."""
    while await stream.receive_some(MAX_REQUEST):
        pass
    scope.cancel()
