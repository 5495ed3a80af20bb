"""The server's end of a connection: its requests, handled as they come, and what becomes of them when it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, final

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from typing_extensions import override

from kernel import Ack, Envelope, Message, Outcome
from kernel.abc import Delivery, Intake
from kernel.errors import EncodeError, SettledError, UnavailableError

from ._format import Answer, Cancel, Format, Item, Refusal, Request
from ._line import Line


@final
@attrs.define(eq=False, repr=False)
class Batch:
    """The answers to requests that came together, or the one answer to a request that came alone."""

    _send: Callable[[Sequence[bytes]], None]
    _missing: int
    _answers: list[bytes] = attrs.field(factory=list[bytes], init=False)

    def add(self, answer: bytes | None) -> None:
        """Take note of an answer, or that there is none; what is complete is sent."""
        self._missing -= 1
        if answer is not None:
            self._answers.append(answer)
        if not self._missing and self._answers:
            self._send(self._answers)


@final
@attrs.define(eq=False, repr=False)
class RequestDelivery(Delivery):
    """A request of a connection. `line` is the connection, for who wants to tell it more."""

    line: Line
    _request: Request
    _finish: Callable[[Request, Outcome], None]
    _settled: bool = attrs.field(default=False, init=False)

    @property
    @override
    def envelope(self) -> Envelope:
        return self._request.envelope

    @property
    @override
    def message(self) -> Message | None:
        return self._request.message

    @property
    @override
    def attempt(self) -> int:
        return 1

    @property
    @override
    def redelivered(self) -> bool:
        return False

    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint()
        self.settle_nowait(outcome)

    @override
    def settle_nowait(self, outcome: Outcome) -> bool:
        if self._settled:
            raise SettledError(f"request {self.envelope.id} was settled twice")
        self._settled = True
        self._finish(self._request, outcome)
        return True


@final
class Session:
    """Reads a connection. When it ends, nobody waits any more for what its requests do, and they are cancelled."""

    def __init__(
        self, socket: WebSocketConnection, line: Line, protocol: Format, *, number: int, max_pending: int, service: str
    ) -> None:
        self.line: Final = line
        self._socket: Final = socket
        self._protocol: Final = protocol
        self._service: Final = service
        self._prefix: Final = f"{number}/"
        self._pending: Final = trio.CapacityLimiter(1 if protocol.is_serial else max_pending)
        self._keys: Final = dict[str, None]()
        """Those of requests under way that can be revoked."""
        self._intake: Intake | None = None

    async def run(self, place: Callable[[], tuple[Intake, trio.Nursery] | None]) -> None:
        """Serve the connection until it ends, or is closed.

        Args:
            place: Returns where requests go, and where they wait for it; None if no more are taken.

        Cancellation: Is a checkpoint.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.line.write, nursery.cancel_scope)
            try:
                with suppress(ConnectionClosed):
                    while True:
                        text = await self._socket.get_message()
                        body = text.encode() if isinstance(text, str) else text
                        await self._take_all(body, place)
            finally:
                self.line.end()
                self._revoke_all()

    async def _take_all(self, body: bytes, place: Callable[[], tuple[Intake, trio.Nursery] | None]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        items, is_batch = self._protocol.read(body, now=trio.current_time())
        answered = sum(isinstance(item, Refusal) or (isinstance(item, Request) and bool(item.key)) for item in items)
        batch = Batch(self._send_batch if is_batch else self._send_one, answered)
        for item in items:
            await self._take(item, batch, place)

    async def _take(self, item: Item, batch: Batch, place: Callable[[], tuple[Intake, trio.Nursery] | None]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        match item:
            case Refusal(body=body):
                batch.add(body)
            case Answer():
                self.line.answered(item)
            case Cancel(key=key):
                if self._intake is not None:
                    self._intake.revoke(self._prefix + key)
            case Request():
                await self._pending.acquire_on_behalf_of(item)
                found = place()
                if found is None:
                    self._pending.release_on_behalf_of(item)
                    self._refuse(item, batch)
                else:
                    self._begin(item, batch, *found)

    def _begin(self, request: Request, batch: Batch, intake: Intake, waiting: trio.Nursery) -> None:
        self._intake = intake
        self._keys[request.key] = None

        def finish(request: Request, outcome: Outcome) -> None:
            self._keys.pop(request.key, None)
            self._finish(request, outcome, batch)

        delivery = RequestDelivery(self.line, request, finish)
        waiting.start_soon(self._submit, intake, delivery, request)

    async def _submit(self, intake: Intake, delivery: Delivery, request: Request) -> None:
        await intake.submit(delivery, revocable_as=self._prefix + request.key)

    def _finish(self, request: Request, outcome: Outcome, batch: Batch) -> None:
        self._pending.release_on_behalf_of(request)
        match outcome:
            case Ack(reply):
                if request.key:
                    batch.add(None if reply is None else reply.body)
            case _:
                self._refuse(request, batch)

    def _refuse(self, request: Request, batch: Batch) -> None:
        """Say that it will not be handled, or was not handled to its end."""
        if not request.key:
            return
        error = UnavailableError(f"{self._service} has not handled it to its end")
        try:
            reply = self._protocol.encode_error(request.envelope, error)
        except EncodeError:
            reply = None
        batch.add(None if reply is None else reply.body)

    def _send_one(self, answers: Sequence[bytes]) -> None:
        self.line.send(answers[0])

    def _send_batch(self, answers: Sequence[bytes]) -> None:
        self.line.send(self._protocol.write_batch(answers))

    def _revoke_all(self) -> None:
        for key in list(self._keys):
            if self._intake is not None:
                self._intake.revoke(self._prefix + key)
