"""The server's end of a connection: its requests, handled as they come, and what becomes of them when it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context as Variables
from typing import Final, final

import attrs
import trio
from trio_websocket import ConnectionClosed
from typing_extensions import override

from kernel import Ack, Envelope, Message, Outcome
from kernel.abc import Delivery, Intake
from kernel.errors import EncodeError, SettledError, UnavailableError

from ._format import Answer, Cancel, Format, Item, Refusal, Request
from ._handshake import Socket
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
    is_submitted: bool = attrs.field(default=False, init=False)
    """Whether the intake knows of it, and can revoke it."""
    is_given_up: bool = attrs.field(default=False, init=False)
    """Whether nobody wanted it any more before that."""

    @property
    def key(self) -> str:
        """What its answer, and a cancellation of it, is named by; empty if it has neither."""
        return self._request.key

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
@attrs.frozen(eq=False, repr=False)
class Place:
    """Where requests go."""

    intake: Intake
    _waiting: trio.Nursery
    """Where they wait for their slot."""
    _variables: Variables
    """Context variables of their handlers: not those of the task that has read them."""

    def put(self, delivery: RequestDelivery, name: str) -> None:
        """Have a request handled as soon as there is a slot."""
        self._variables.run(self._waiting.start_soon, self._submit, delivery, name)

    async def _submit(self, delivery: RequestDelivery, name: str) -> None:
        if delivery.is_given_up:
            await delivery.settle(Ack())
        else:
            delivery.is_submitted = True
            await self.intake.submit(delivery, revocable_as=name)


@final
class Session:
    """Reads a connection. When it ends, nobody waits any more for what its requests do, and they are cancelled."""

    def __init__(
        self,
        socket: Socket,
        line: Line,
        protocol: Format,
        *,
        number: int,
        max_pending: int,
        service: str,
        place: Callable[[], Place | None],
        settled: Callable[[], None],
    ) -> None:
        """Begin.

        Args:
            socket: To read from.
            line: Over it.
            protocol: What is spoken.
            number: That no other session of the dispatcher has.
            max_pending: Requests under way at a time; then no more is read.
            service: Its name, for what is refused.
            place: Returns where requests go; None if no more are taken.
            settled: Called whenever one of them is.
        """
        self.line: Final = line
        self.is_leaving = False
        """Whether it takes no more requests, and ends when there are none."""
        self._socket: Final = socket
        self._protocol: Final = protocol
        self._service: Final = service
        self._prefix: Final = f"{number}/"
        self._pending: Final = trio.CapacityLimiter(1 if protocol.is_serial else max_pending)
        self._under_way: Final = dict[RequestDelivery, None]()
        """Requests; a peer may give one key to several, and notifications have none."""
        self._place: Final = place
        self._settled: Final = settled
        self._intake: Intake | None = None

    @property
    def is_busy(self) -> bool:
        """Whether any request is under way."""
        return self._pending.borrowed_tokens > 0

    async def run(self) -> None:
        """Serve the connection until it ends, or is closed.

        Cancellation: Is a checkpoint.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.line.write, nursery.cancel_scope)
            try:
                with suppress(ConnectionClosed):
                    while True:
                        text = await self._socket.get_message()
                        body = text.encode() if isinstance(text, str) else text
                        await self._take_all(body)
            finally:
                self.line.end()
                self._revoke(list(self._under_way))

    async def _take_all(self, body: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        items, is_batch = self._protocol.read(body, now=trio.current_time())
        answered = sum(isinstance(item, Refusal) or (isinstance(item, Request) and bool(item.key)) for item in items)
        batch = Batch(self._send_batch if is_batch else self._send_one, answered)
        for item in items:
            await self._take(item, batch)

    async def _take(self, item: Item, batch: Batch) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        match item:
            case Refusal(body=body):
                batch.add(body)
            case Answer():
                self.line.answered(item)
            case Cancel(key=key):
                self._revoke([delivery for delivery in self._under_way if delivery.key == key])
            case Request():
                await self.line.wait_read()
                await self._pending.acquire_on_behalf_of(item)
                place = None if self.is_leaving else self._place()
                if place is None:
                    self._pending.release_on_behalf_of(item)
                    self._refuse(item, batch)
                else:
                    self._begin(item, batch, place)

    def _begin(self, request: Request, batch: Batch, place: Place) -> None:
        self._intake = place.intake

        def finish(request: Request, outcome: Outcome) -> None:
            del self._under_way[delivery]
            self._finish(request, outcome, batch)

        delivery = RequestDelivery(self.line, request, finish)
        self._under_way[delivery] = None
        place.put(delivery, self._prefix + request.key)

    def _finish(self, request: Request, outcome: Outcome, batch: Batch) -> None:
        self._pending.release_on_behalf_of(request)
        match outcome:
            case Ack(reply):
                if request.key:
                    batch.add(None if reply is None else reply.body)
            case _:
                self._refuse(request, batch)
        self._settled()

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

    def _revoke(self, deliveries: Sequence[RequestDelivery]) -> None:
        """Have nobody handle what nobody waits for; its task may not have come to submit it."""
        for delivery in deliveries:
            if not delivery.is_submitted:
                delivery.is_given_up = True
            elif self._intake is not None:
                self._intake.revoke(self._prefix + delivery.key)
