"""A link that sends, in a session of its own: what is sent waits for credit, and for what the broker says to it."""

from __future__ import annotations

import enum
import itertools
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias, final

import attrs
import trio

from kernel import wake

from .._errors import EndClosedError, LinkLostError
from .engine import Engine, told
from .proton import ProtonDelivery, ProtonLink, ProtonSession

_DURABLE: Final = 2
"""Terminus durability: configuration and unsettled state. Source: AMQP 1.0, 3.5.5."""


class Said(enum.Enum):
    """What the broker said to a message."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    RELEASED = "released"
    """Or modified: nobody has it."""


@final
@attrs.define(eq=False, repr=False)
class Sent:
    """A message that the broker may have; its answer is for whoever waits, also later than the one who sent it."""

    taken: int
    """Bytes that the connection had sent before."""
    task: trio.lowlevel.Task | None = None
    said: Said | None = None
    why: str = ""
    error: EndClosedError | LinkLostError | None = None

    def answer(self) -> None:
        """Wake whoever waits."""
        if self.task is not None:
            task, self.task = self.task, None
            wake(task)

    async def wait(self) -> None:
        """Wait for the answer.

        Cancellation: Is a checkpoint if it has to wait.
        """
        if self.said is not None or self.error is not None:
            await trio.lowlevel.checkpoint()
            return
        self.task = trio.lowlevel.current_task()

        def abandon(_: object) -> trio.lowlevel.Abort:
            self.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abandon)


OnWritten: TypeAlias = Callable[[Sent], None]


@final
@attrs.define(eq=False, repr=False)
class SenderLink:
    """Sends to one address; safe to share between tasks."""

    address: str | None
    """None lets each message name its own, in `to`."""
    engine: Engine
    _session: ProtonSession = attrs.field(init=False)
    _link: ProtonLink = attrs.field(init=False)
    error: EndClosedError | LinkLostError | None = attrs.field(default=None, init=False)
    """Why it is gone; None while it is not."""
    _is_ended: bool = attrs.field(default=False, init=False)
    users: int = attrs.field(default=0, init=False)
    """Tasks that send on it."""
    _waiting: deque[trio.Event] = attrs.field(factory=deque[trio.Event], init=False)
    """Those who wait for credit, in their order."""
    _sent: dict[Sent, None] = attrs.field(factory=dict[Sent, None], init=False)
    """Those that the broker has not answered."""
    _words: dict[int, Said] = attrs.field(init=False)
    """What states mean."""
    _tags: itertools.count[int] = attrs.field(factory=itertools.count, init=False)

    def __attrs_post_init__(self) -> None:
        self._session = self.engine.new_session(self)
        self._link = link = self._session.sender(self.engine.new_name())
        if self.address is not None:
            link.target.address = self.address
            link.target.durability = _DURABLE
        self.engine.watch(link, self)
        link.open()
        states = self.engine.proton.Delivery
        self._words = {
            states.ACCEPTED: Said.ACCEPTED,
            states.REJECTED: Said.REJECTED,
            states.RELEASED: Said.RELEASED,
            states.MODIFIED: Said.RELEASED,
        }

    async def send(self, data: bytes, *, on_written: OnWritten | None = None) -> tuple[Said, str]:
        """Send an encoded message; return what the broker says, and why.

        `on_written` is called when it is on its way: from here on, the broker may have it. What it is called with has
        the answer for whoever waits later.

        Raises:
            EndClosedError, LinkLostError: if the link is gone; `written` tells whether the message may have arrived.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent.
        """
        await self._wait_credit()
        sent = Sent(self.engine.taken)
        delivery = self._link.delivery(str(next(self._tags)))
        delivery.kernel_slot = sent
        del delivery  # it must not be there for longer than the link: see `Owner.ended`
        self._link.send(data)
        self._link.advance()
        self._sent[sent] = None
        self.engine.ring()
        if on_written is not None:
            on_written(sent)
        await sent.wait()
        if sent.error is not None:
            raise sent.error.again(written=True)
        assert sent.said is not None
        return sent.said, sent.why

    async def _wait_credit(self) -> None:
        if self.error is None and not self._waiting and self._link.credit > 0:
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        turn = trio.Event()
        self._waiting.append(turn)
        try:
            while not self._may_send(turn):
                await turn.wait()
                if not self._may_send(turn):
                    self._waiting[self._waiting.index(turn)] = turn = trio.Event()
        finally:
            self._waiting.remove(turn)
            self.flowed()
        if self.error is not None:
            raise self.error.again(written=False)
        await trio.lowlevel.checkpoint_if_cancelled()

    def _may_send(self, turn: trio.Event) -> bool:
        return self.error is not None or (self._waiting[0] is turn and self._link.credit > 0)

    def close(self) -> None:
        """Give the link up."""
        if self.error is None:
            self.error = LinkLostError("the link is closed")
            self._link.close()
            self._session.close()
            self.engine.ring()

    # --- what the engine calls

    def opened(self) -> None:
        """It is open when there is credit."""

    def flowed(self) -> None:
        """Let the first of those who wait go on."""
        if self._waiting and (self.error is not None or self._link.credit > 0):
            self._waiting[0].set()

    def delivered(self, delivery: object) -> None:
        """Take what the broker says to a message."""
        self._take(self.engine.proton.Delivery.wrap(delivery))

    def _take(self, delivery: ProtonDelivery) -> None:
        state = delivery.remote_state
        said = self._words.get(state)
        if said is None:
            if not delivery.settled:
                return
            said = Said.RELEASED
        sent: Sent = delivery.kernel_slot
        sent.said = said
        self._sent.pop(sent, None)
        self.engine.note_seen(sent.taken)
        if said is Said.REJECTED:
            sent.why = told(lambda: delivery.remote.condition)
        delivery.settle()
        sent.answer()

    def lost(self, error: EndClosedError | LinkLostError) -> None:
        """Tell all who wait that it is gone."""
        if self.error is not None:
            return
        self.error = error
        for sent in self._sent:
            sent.error = error
            sent.answer()
        self._sent.clear()
        for turn in self._waiting:
            turn.set()
        if isinstance(error, EndClosedError) and not self._is_ended:
            self._session.close()
            self.engine.ring()

    def ended(self) -> None:
        """Let go of the engine: what it knows of us is a reference that no garbage collector sees."""
        if not self._is_ended:
            self._is_ended = True
            self._link.kernel_slot = self._session.kernel_slot = None
            del self._link, self._session  # in this order: see `Owner.ended`
