"""One connection, whichever end of it: what goes out in order, and our calls to the other side."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final, TypeVar, final, overload

import trio
from trio_websocket import ConnectionClosed
from typing_extensions import override

from kernel import NO_HEADERS, Envelope, Message, PendingCall, PendingCalls, current_delivery, payload_converter
from kernel.abc import Caller, write_deadline
from kernel.errors import CallTimeoutError, UnavailableError, UnknownOutcomeError

from ._config import LineConfig
from ._format import Answer, Format
from ._handshake import Socket

ReturnT = TypeVar("ReturnT")
MOST_BEHIND: Final = 64 * 1024 * 1024
"""Bytes that may wait to be sent on one connection."""
_TOO_SLOW: Final = 1013
"""Close code: try again later. Source: RFC 6455, IANA's registry of close codes."""


@final
class Line(Caller):
    """A connection to one peer: it can be called, told something, and closed. Safe to share between tasks."""

    def __init__(
        self, socket: Socket, protocol: Format, config: LineConfig, *, extends: bool, identity: str = ""
    ) -> None:
        self.identity: Final = identity
        """Who it is, as `authenticate` said; empty if nobody was asked."""
        self._socket: Final = socket
        self._protocol: Final = protocol
        self._config: Final = config
        self._extends: Final = extends
        self._outbox, self._unsent = trio.open_memory_channel[bytes](config.max_unsent)
        self._pending: Final = PendingCalls[str]()
        self._turn: Final = trio.Lock() if protocol.is_serial else None
        self._next_key = 0
        self._closing: tuple[int, str] | None = None
        self._drops_unsent = False
        self._behind = 0
        """Bytes that are unsent."""
        self._caught_up: Final = trio.lowlevel.ParkingLot()
        """Who waits until they are fewer."""
        self._ended: Final = trio.Event()

    @property
    def is_open(self) -> bool:
        """Whether what is sent may still arrive."""
        return self._closing is None and not self._ended.is_set()

    @overload
    async def call(
        self, subject: str, payload: object, *, headers: Mapping[str, object] = ..., returns: type[ReturnT]
    ) -> ReturnT: ...
    @overload
    async def call(
        self, subject: str, payload: object, *, headers: Mapping[str, object] = ..., returns: object = ...
    ) -> object: ...
    @override
    async def call(
        self, subject: str, payload: object, *, headers: Mapping[str, object] = NO_HEADERS, returns: object = object
    ) -> object:
        """Call the other side.

        Raises:
            RemoteError: if it answered with an error.
            CallTimeoutError: if no answer came within `timeout`.
            UnknownOutcomeError: if the connection ended while the answer was awaited.
            UnavailableError: if it had ended before.
            EncodeError: if the payload cannot be written.
            DecodeError: if the answer means nothing; `ConversionError` if it is no `returns`.

        Cancellation: Is a checkpoint. If cancelled, the other side is told if it knows what that is; the request may
            have been handled.
        """
        convert = _same if returns is object else payload_converter(returns)
        message = Message(subject=subject, payload=payload, headers=self._continued(headers))
        with trio.move_on_after(self._config.timeout):
            if self._turn is None:
                return convert(self._protocol.decode_reply(await self._ask(message)))
            async with self._turn:
                return convert(self._protocol.decode_reply(await self._ask(message)))
        raise CallTimeoutError(subject, seconds=self._config.timeout)

    def notify(self, subject: str, payload: object, *, headers: Mapping[str, object] = NO_HEADERS) -> bool:
        """Tell the other side something; return whether it was put on its way.

        A peer that is `max_unsent` messages behind, or 64 MiB, is disconnected.

        Raises:
            EncodeError: if the payload cannot be written.
        """
        message = Message(subject=subject, payload=payload, headers=self._continued(headers))
        self.send(self._protocol.write_request(message, key="", deadline=None, extends=self._extends))
        return self.is_open

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection soon: what is unsent is dropped."""
        self._drops_unsent = True
        self.finish(code, reason)

    # --- for the two ends -------------------------------------------------------------------------------------------

    def finish(self, code: int, reason: str) -> None:
        """End the connection when what is unsent has been sent."""
        if self._closing is None:
            self._closing = (code, reason)
            self._outbox.close()
            self._caught_up.unpark_all()

    async def wait_read(self) -> None:  # noqa: ASYNC910  suspends only to wait
        """Wait until the peer has read what it was sent, but for `max_bytes`: who does not read is given no more to do.

        Cancellation: Is a checkpoint if it waits.
        """
        while self._behind > self._config.max_bytes and self.is_open:
            await self._caught_up.park()

    def send(self, body: bytes) -> None:
        """Put a message on its way, or end a connection that is too far behind."""
        if not self.is_open:
            return
        self._behind += len(body)
        try:
            if self._behind <= MOST_BEHIND:
                self._outbox.send_nowait(body)
                return
        except trio.WouldBlock:
            pass
        self.close(_TOO_SLOW, "too slow")

    async def write(self, reading: trio.CancelScope) -> None:
        """Send what there is until the connection is closed, by either end; then end the reading of it, too.

        The stream bounds how long a message may take, and `send_timeout` how long a peer may take to agree to the end.

        Cancellation: Is a checkpoint.
        """
        try:
            with suppress(ConnectionClosed):
                async for body in self._unsent:
                    if self._drops_unsent:
                        break
                    await self._socket.send_message(body.decode())
                    self._behind -= len(body)
                    if self._behind <= self._config.max_bytes:
                        self._caught_up.unpark_all()
            code, reason = self._closing or (1000, "")
            with trio.move_on_after(self._config.send_timeout):
                await self._socket.aclose(code, reason)
        finally:
            self.close()
            reading.cancel()

    def answered(self, answer: Answer) -> None:
        """Hand an answer to who waits for it."""
        self._pending.answer(answer.key, answer.envelope)

    def end(self) -> None:
        """Fail the calls under way: the connection has ended."""
        self._ended.set()
        self.close()
        self._pending.fail(lambda: UnknownOutcomeError("the connection ended while an answer was awaited"))

    async def _ask(self, message: Message) -> Envelope:
        await trio.lowlevel.checkpoint()
        if not self.is_open:
            raise UnavailableError("the connection has ended")
        self._next_key += 1
        key = "the one" if self._turn is not None else str(self._next_key)
        deadline = write_deadline(trio.current_effective_deadline(), now=trio.current_time())
        body = self._protocol.write_request(message, key=key, deadline=deadline, extends=self._extends)
        call = self._pending.add(key)
        self.send(body)
        try:
            return await call.wait()
        except trio.Cancelled:
            self._take_back(key, call)
            raise
        finally:
            self._pending.remove(key)

    def _take_back(self, key: str, call: PendingCall) -> None:
        if call.is_done:
            return
        if self._turn is not None:
            self.close(reason="its answer would be taken for the next one's")
        elif self._extends and (body := self._protocol.write_cancel(key)) is not None:
            self.send(body)

    def _continued(self, headers: Mapping[str, object]) -> Mapping[str, object]:
        delivery = current_delivery()
        inherited = self._protocol.continued(delivery.envelope) if delivery is not None else None
        return {**inherited, **headers} if inherited else headers


def _same(answer: object) -> object:
    return answer
