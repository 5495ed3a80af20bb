"""One connection to a server: the tasks that read, write and watch it, from its opening to its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias, final

import attrs
import trio

from .._errors import LateError, LinkLostError
from ..core import Frame, StompError, encode, encode_ack
from .connect import CHUNK, Joined, LinkSettings, join, said
from .pulse import Pulse
from .receipts import Receipt, Receipts
from .writer import Writer

_PROBE = "kernel-probe"
"""The receipt of a probe; those of requests are numbers."""

OnWritten: TypeAlias = Callable[[Receipt], None]


@final
@attrs.define(eq=False, repr=False)
class Link:
    """One open connection. Once lost it stays so: whoever needs another opens another."""

    _joined: Joined
    _interval: float
    _close_timeout: float
    on_message: Callable[[Frame], None] | None = None
    """Called for each MESSAGE from the task that reads: it only notes and wakes."""
    on_lost: Callable[[LinkLostError], None] | None = None
    """Called once when the connection is gone, from any task: it only notes and wakes."""
    lost: LinkLostError | None = attrs.field(default=None, init=False)
    """Why the connection is gone; None while it is there."""
    _writer: Writer = attrs.field(init=False)
    _pulse: Pulse = attrs.field(init=False)
    _receipts: Receipts = attrs.field(factory=Receipts, init=False)
    _life: trio.CancelScope = attrs.field(factory=lambda: trio.CancelScope(shield=True), init=False)
    """Shielded, so that what is written while everything around is cancelled still goes out; `aclose` ends it."""
    _ended: trio.Event = attrs.field(factory=trio.Event, init=False)
    _is_left: bool = attrs.field(default=False, init=False)
    """Whether we have said goodbye."""

    def __attrs_post_init__(self) -> None:
        joined = self._joined
        self._writer = Writer(joined.stream)
        self._pulse = Pulse(self._writer, self._interval, joined.beat, joined.hears, self._probe)

    @property
    def where(self) -> str:
        """The `host:port` that it is connected to."""
        return self._joined.where

    def encode(self, frame: Frame) -> bytes:
        """Return a frame as this connection writes it.

        Raises:
            FrameError: if it cannot be written.
        """
        return encode(frame, self._joined.parser.version)

    def write(self, frame: Frame) -> None:
        """Have a frame written.

        Raises:
            LinkLostError: if the connection is gone; nothing was written.
            FrameError: if it cannot be written.
        """
        if self.lost is not None or self._is_left:
            raise self._gone().again(written=False)
        self._writer.write(self.encode(frame))

    def acknowledge(self, message: Frame) -> None:
        """Have the acknowledgement of a message written.

        Raises: as `write`.
        """
        if self.lost is not None or self._is_left:
            raise self._gone().again(written=False)
        self._writer.write(encode_ack(message, self._joined.parser.version))

    def ask(self, frame: Frame, *, is_patient: bool = False) -> Receipt:
        """Have a frame written whose receipt can be waited for, for 30 s or however long it takes.

        Raises: as `write`.
        """
        id_, receipt = self._receipts.ask(is_patient=is_patient)
        try:
            self.write(Frame(frame.command, {**frame.headers, "receipt": id_}, frame.body))
        except BaseException:
            self._receipts.forget(id_)
            raise
        return receipt

    async def request(self, frame: Frame, *, on_written: OnWritten | None = None) -> None:
        """Send a frame; returns when the server has done what it asks for.

        Waits while too much waits to be sent. `on_written` is called when that is over: from here on, the server may
        have it, and its answer is waited for however long that takes. What it is called with has the answer for whoever
        waits later.

        Raises:
            LinkLostError: if the connection is gone; `written` says whether the frame may have reached the server.
            LateError: if the server has not answered in time, and there is no `on_written`.
            FrameError: if it cannot be written.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._writer.wait_room()
        receipt = self.ask(frame, is_patient=on_written is not None)
        if on_written is not None:
            on_written(receipt)
        await receipt.wait()

    def give_up(self, reason: str) -> None:
        """End the connection: the server does what it must not."""
        self._break(reason)

    async def wait_lost(self) -> LinkLostError:
        """Wait until the connection is gone, and return why.

        Cancellation: Is a checkpoint.
        """
        await self._ended.wait()
        assert self.lost is not None
        return self.lost.again(written=False)

    async def run(self) -> None:
        """Read, write and watch until the connection is gone; for `open_link` alone.

        Cancellation: Is a checkpoint.
        """
        try:
            with self._life:
                async with trio.open_nursery(strict_exception_groups=True) as nursery:
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._watch)
                    await self._write()
                    nursery.cancel_scope.cancel()
        finally:
            self._lose("the tasks that serve it have ended")
            with trio.CancelScope(shield=True):  # it does not wait, but a Cancelled here would hide what was raised
                await trio.aclose_forcefully(self._joined.stream)

    async def aclose(self) -> None:
        """Say goodbye and end: what was not settled is delivered to others when this returns.

        Cancellation: Shielded for at most the seconds of `close_timeout`.
        """
        if self.lost is None and not self._is_left:
            with trio.move_on_after(self._close_timeout, shield=True):
                receipt = self.ask(Frame("DISCONNECT", {}))
                self._is_left = True
                with suppress(LinkLostError, LateError):
                    await receipt.wait()
        self._lose("it was left")
        self._life.cancel()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _probe(self, first: Frame, second: Frame) -> None:
        if self.lost is None:
            self._writer.write(self.encode(first))
            self._writer.write(self.encode(Frame(second.command, {**second.headers, "receipt": _PROBE})))

    async def _read(self) -> None:
        await trio.lowlevel.checkpoint()
        stream, parser = self._joined.stream, self._joined.parser
        try:
            while self.lost is None:
                while (frame := parser.next_frame()) is not None:
                    self._take(frame)
                data = await stream.receive_some(CHUNK)
                self._pulse.hear(len(data))
                if not data:
                    self._break("the server closed the connection without a word")
                parser.feed(data)
        except trio.BrokenResourceError as error:
            self._break(f"the connection broke: {error.__cause__ or error}", error)
        except StompError as error:
            self._break(f"what came is no STOMP: {error}", error)

    async def _write(self) -> None:  # noqa: ASYNC910  the writer is one
        try:
            await self._writer.run()
        except trio.BrokenResourceError as error:
            self._break(f"the connection broke: {error.__cause__ or error}", error)

    async def _watch(self) -> None:
        self._break(await self._pulse.wait_dead(self._receipts.sweep))

    def _take(self, frame: Frame) -> None:
        """Hand a frame to whom it is for."""
        if self.lost is not None:
            return
        if frame.command == "MESSAGE":
            if self.on_message is not None:
                self.on_message(frame)
        elif frame.command == "RECEIPT":
            id_ = frame.headers.get("receipt-id", "")
            if id_ == _PROBE:
                self._pulse.answered()
            else:
                self._receipts.take(id_)
        elif frame.command == "ERROR":
            text = said(frame)
            self._break(f"the server ended it: {text}", text=text)

    def _break(self, reason: str, cause: BaseException | None = None, *, text: str = "") -> None:
        """End at once: nothing that is still to be written would arrive."""
        self._lose(reason, cause, text=text)
        self._life.cancel()

    def _lose(self, reason: str, cause: BaseException | None = None, *, text: str = "") -> None:
        if self.lost is not None:
            return
        self.lost = LinkLostError(f"the connection to {self.where} is gone: {reason}", text=text)
        self.lost.__cause__ = cause
        self._receipts.lose(self.lost)
        self._writer.stop()
        self._ended.set()
        if self.on_lost is not None:
            self.on_lost(self.lost)

    def _gone(self) -> LinkLostError:
        return self.lost or LinkLostError(f"the connection to {self.where} is gone: it was left")


@asynccontextmanager
async def open_link(settings: LinkSettings, *, close_timeout: float = 2.0) -> AsyncGenerator[Link]:
    """Connect to a server for the time of the block.

    The body goes on when the connection is lost; `Link.lost` and `Link.wait_lost` tell.

    Raises:
        LinkError: if no host answers; says why for each.
        LoginRefusedError: if the server does not let this user in.

    Cancellation: Is a checkpoint. Leaving is shielded for at most `close_timeout` seconds.
    """
    joined = await join(settings)
    link = Link(joined, settings.heartbeat, close_timeout)
    try:
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            nursery.start_soon(link.run)
            try:
                yield link
            finally:
                await link.aclose()  # noqa: ASYNC102  it shields itself
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1 and isinstance(group.exceptions[0], Exception):
            error = group.exceptions[0]
            raise error from error.__cause__
        raise
