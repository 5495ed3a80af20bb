"""A link that receives, in a session of its own, with credit for no more than is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import attrs

from .._errors import EndClosedError, LinkLostError
from .engine import Engine
from .proton import Core, ProtonDelivery, ProtonLink, ProtonSession, pointer_of

_DURABLE: Final = 2


@final
@attrs.frozen(eq=False, repr=False)
class Arrived:
    """A message as it came; the link knows its delivery until it is settled, or the link has ended."""

    data: bytes
    link: ReceiverLink


@final
@attrs.define(eq=False, repr=False)
class ReceiverLink:
    """Takes from one address. A message that is too large is rejected unread."""

    address: str
    engine: Engine
    _take: Callable[[Arrived], None]
    _lost: Callable[[EndClosedError | LinkLostError], None]
    _dropped: Callable[[ReceiverLink, int], None]
    """Told of each message that is not handed on: the bytes of one that is too large, 0 for one that was broken off."""
    is_open: bool = attrs.field(default=False, init=False)
    is_ended: bool = attrs.field(default=False, init=False)
    """Whether the broker has taken back what was not settled."""
    error: EndClosedError | LinkLostError | None = attrs.field(default=None, init=False)
    changed: Callable[[], None] = attrs.field(default=lambda: None, init=False)
    """Called when it is open, or gone."""
    _session: ProtonSession = attrs.field(init=False)
    _link: ProtonLink = attrs.field(init=False)
    accepted: int = attrs.field(init=False)
    released: int = attrs.field(init=False)
    rejected: int = attrs.field(init=False)
    modified: int = attrs.field(init=False)
    """The states that a delivery is settled with."""
    _core: Core = attrs.field(init=False)
    _pointer: object = attrs.field(init=False)
    """The link, as the functions of the core take it."""
    _held: dict[Arrived, object] = attrs.field(factory=dict["Arrived", object], init=False)
    """What came and was not settled; no more than there was credit for. The deliveries are the engine's, which keeps each
    until it is settled, or its link is let go of."""
    _unasked: int = attrs.field(default=0, init=False)
    """What came beyond the credit, and was not paid for by credit since."""
    _parts: list[bytes] = attrs.field(factory=list[bytes], init=False)
    _size: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._session = self.engine.new_session(self)
        self._link = link = self._session.receiver(self.engine.new_name())
        link.source.address = self.address
        link.source.durability = _DURABLE
        link.max_message_size = self.engine.settings.max_message_bytes
        self._core, self._pointer = self.engine.core, pointer_of(link)
        self.engine.watch(link, self)
        link.open()
        states = self.engine.proton.Delivery
        self.accepted, self.released, self.rejected = states.ACCEPTED, states.RELEASED, states.REJECTED
        self.modified = states.MODIFIED

    @property
    def credit(self) -> int:
        """How many more may come."""
        return 0 if self.is_ended else self._core.pn_link_credit(self._pointer)

    def flow(self, credit: int) -> None:
        """Let so many more come, less what came unasked; less than 0 takes back what has not been used."""
        paid = max(min(self._unasked, credit), 0)
        self._unasked -= paid
        if self.error is None and credit != paid:
            self._link.flow(credit - paid)
            self.engine.ring()

    def settle(self, arrived: Arrived, state: int, *, failed: bool = False) -> None:
        """Say, once, what became of a message.

        Raises:
            EndClosedError, LinkLostError: if the link is gone.
        """
        if self.error is not None:
            raise self.error.again(written=False)
        self._settle(self._held.pop(arrived), state, failed=failed)

    def _settle(self, delivery: object, state: int, *, failed: bool = False) -> None:
        if failed:
            known: ProtonDelivery = self.engine.proton.Delivery.wrap(delivery)
            known.local.failed = True
            known.update(state)
        else:
            self._core.pn_delivery_update(delivery, state)
        self._core.pn_delivery_settle(delivery)
        if state == self.released:
            self.engine.put_in_order()  # credit would go out first, and bring another message before this one
        self.engine.ring()

    def close(self) -> None:
        """Give the link up: what is not settled goes back.

        That waits until the broker has opened it: answers to what is closed before would be taken for another's.
        """
        if self.error is None:
            self.error = LinkLostError("the link is closed")
            if self.is_open:
                self._end()

    def _end(self) -> None:
        self._link.close()
        self._session.close()
        self.engine.ring()

    # --- what the engine calls

    def opened(self) -> None:
        """The session is open before the link is; a link that is refused opens without an address and closes."""
        if not self.is_open and self._link.remote_source.address is not None:
            self.is_open = True
            if self.error is not None:
                self._end()
        self.changed()

    def flowed(self) -> None:
        """The broker tells what it has left."""

    def delivered(self, delivery: object) -> None:
        """Take what has come of a message."""
        core = self._core
        if not core.pn_delivery_readable(delivery):
            return
        self._bear()
        self._read(delivery)
        if core.pn_delivery_aborted(delivery):
            self._drop(delivery)
        elif not core.pn_delivery_partial(delivery):
            self._finish(delivery)

    def _bear(self) -> None:
        """Have no less credit than none: on the wire it has no sign, and less than none would be four billion.

        RabbitMQ 3 counts as not sent what is on its way when it reads of credit, and sends that much too much.
        """
        if (unasked := self._core.pn_link_queued(self._pointer) - self._core.pn_link_credit(self._pointer)) > 0:
            self._unasked += unasked
            self._link.flow(unasked)
            self.engine.ring()

    def _read(self, delivery: object) -> None:
        core = self._core
        while pending := core.pn_delivery_pending(delivery):
            size, part = core.pn_link_recv(self._pointer, pending)
            if size <= 0:  # it has ended
                return
            self._size += size
            if self._size <= self.engine.settings.max_message_bytes:
                self._parts.append(part)
            else:
                self._parts.clear()

    def _drop(self, delivery: object) -> None:
        self._parts, self._size = [], 0
        self._core.pn_link_advance(self._pointer)
        self._core.pn_delivery_settle(delivery)
        self._dropped(self, 0)

    def _finish(self, delivery: object) -> None:
        parts, size, self._parts, self._size = self._parts, self._size, [], 0
        self._core.pn_link_advance(self._pointer)
        if size > self.engine.settings.max_message_bytes:
            if self.error is None:
                self._settle(delivery, self.rejected)
            self._dropped(self, size)
        else:
            arrived = Arrived(parts[0] if len(parts) == 1 else b"".join(parts), self)
            self._held[arrived] = delivery
            self._take(arrived)

    def lost(self, error: EndClosedError | LinkLostError) -> None:
        """Take note that it is gone."""
        if self.error is None:
            self.error = error
            self._lost(error)
        if isinstance(error, EndClosedError) and not self.is_ended:
            self._end()
        self.changed()

    def ended(self) -> None:
        """Take note that what was not settled has gone back."""
        if not self.is_ended:
            self.is_ended = True
            self._link.kernel_slot = self._session.kernel_slot = None  # a reference that no garbage collector sees
            self._held.clear()
            del self._pointer, self._link, self._session  # in this order: see `Owner.ended`
        self.changed()
