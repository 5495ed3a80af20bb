"""Leases: a queue each, in which one message stands, and which one consumer at a time has for itself.

Who looks at a lease becomes a consumer of its queue, which has a single active consumer, and sends a probe into it.
When the probe comes, this consumer is the active one, and everything that is in the queue has come before it. Who
writes puts the next message behind, and then takes the earlier one out: a process that dies in between leaves both, and
the one with the greater version counts. A process that stands still loses its connection to the broker's heartbeats; what
it holds goes to the next, and whatever it sends afterwards arrives nowhere.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, final

import attrs
import trio
from pamqp import commands
from typing_extensions import override

from kernel import new_id
from kernel.abc import Lease, LeaseState
from kernel.errors import KernelError, UnavailableError, UnknownOutcomeError

from .._errors import ChannelClosedError, ConfirmLateError, LinkLostError, RefusedError, ReturnedError
from ..core import Delivered, Properties, TooLarge, with_names
from ..link.channel import LinkChannel
from ..link.keeper import Keeper

PREFIX: Final = "kernel.lease."
_TAG: Final = "kernel lease"
_VERSION: Final = "kernel-version"
_PATIENCE: Final = 45.0
"""Seconds to wait for others who look, and for the broker to notice that one of them stands still."""
_PROBE_LIFE: Final = "60000"
"""Milliseconds after which a probe that nobody waits for any more is gone."""
# Not a quorum queue: that counts how often a message goes back, and drops it at last.
_ARGUMENTS: Final[dict[str, Any]] = {"x-queue-type": "classic", "x-single-active-consumer": True}


@final
@attrs.define(eq=False, repr=False)
class AmqpLease(Lease):
    """A queue `kernel.lease.NAME`. The broker has no clock for others."""

    _keeper: Keeper
    """Of the connection that sends: a broker short of memory reads nothing from it."""
    _name: str
    _queue: str

    @override
    async def read(self) -> LeaseState:
        async with self._looking() as look:
            return look.state()

    @override
    async def write(self, value: str, *, after: int) -> bool:
        async with self._looking() as look:
            if look.state().version != after:
                return False
            try:
                await look.put(self._queue, value, version=after + 1)
            except (LinkLostError, ChannelClosedError, ConfirmLateError) as error:
                raise UnknownOutcomeError(f'it is not known whether "{self._name}" was written: {error}') from error
            except (RefusedError, ReturnedError) as error:
                raise UnavailableError(f'the lease "{self._name}" cannot be written: {error}') from error
            return True

    @asynccontextmanager
    async def _looking(self) -> AsyncGenerator[_Look]:
        """Be the only one who has the queue, in all processes, while inside.

        Raises:
            UnavailableError: if the broker is away, or refuses something, or others have the queue for too long.
        """
        until = trio.current_time() + _PATIENCE
        with trio.move_on_at(until) as waiting:
            link = (await self._keeper.session()).link
            look = _Look()
            try:
                async with link.open_channel(on_closed=look.lose) as look.channel:
                    await look.begin(self._queue)
                    waiting.deadline = float("inf")
                    yield look
                    look.forget_old()
            except (LinkLostError, ChannelClosedError, RefusedError, ReturnedError, ConfirmLateError) as error:
                raise UnavailableError(f'the lease "{self._name}" cannot be had: {error}') from error
        if waiting.cancelled_caught:
            raise UnavailableError(f'the lease "{self._name}" was another process\'s for {_PATIENCE:g} s')


@final
@attrs.define(eq=False, repr=False)
class _Look:
    """What is in the queue of a lease, for the time in which nobody else has it."""

    channel: LinkChannel = attrs.field(init=False)
    _probe: str = attrs.field(factory=new_id, init=False)
    _arrived: list[Delivered] = attrs.field(factory=list[Delivered], init=False)
    _complete: trio.Event = attrs.field(factory=trio.Event, init=False)
    _lost: KernelError | None = attrs.field(default=None, init=False)
    _done: list[int] = attrs.field(factory=list[int], init=False)
    """Tags of what is done with: the probe, and messages that a later one has taken the place of."""

    async def begin(self, queue: str) -> None:
        """Wait until the queue is ours."""
        declare = with_names(commands.Queue.Declare(durable=True, arguments=dict(_ARGUMENTS)), queue=queue)
        await self.channel.call(declare)
        await self.channel.confirm_select()
        await self.channel.consume(
            queue, consumer_tag=_TAG, on_delivery=self._take_in, on_cancel=lambda _: self.lose(_deleted(queue))
        )
        probe = Properties(type="probe", message_id=self._probe, expiration=_PROBE_LIFE, delivery_mode=1)
        await self.channel.publish(exchange="", routing_key=queue, properties=probe, body=b"", mandatory=True)
        await self._complete.wait()
        if self._lost is not None:
            raise self._lost

    def state(self) -> LeaseState:
        """Return what the lease says."""
        if not self._arrived:
            return LeaseState()
        latest = max(self._arrived, key=_version)
        return LeaseState(version=_version(latest), value=latest.body.decode())

    async def put(self, queue: str, value: str, *, version: int) -> None:
        """Have the broker keep the next message, and then let go of the earlier ones."""
        earlier = [message.delivery_tag for message in self._arrived]
        properties = Properties(
            type="lease", message_id=new_id(), headers={_VERSION: version}, content_type="text/plain", delivery_mode=2
        )
        await self.channel.publish(
            exchange="", routing_key=queue, properties=properties, body=value.encode(), mandatory=True
        )
        self._done += earlier

    def forget_old(self) -> None:
        """Take out what is done with, and what the latest message has taken the place of."""
        latest = max(map(_version, self._arrived), default=0)
        stale = [message.delivery_tag for message in self._arrived if _version(message) < latest]
        with suppress(LinkLostError, ChannelClosedError):  # they come again, and whoever looks next takes them out
            for tag in sorted({*self._done, *stale}):
                self.channel.ack(tag)

    def lose(self, error: KernelError) -> None:
        """Take note that the queue is not ours any more."""
        self._lost = error
        self._complete.set()

    def _take_in(self, message: Delivered | TooLarge) -> None:
        if isinstance(message, TooLarge):
            self.lose(UnavailableError("a message in it is larger than `max_message_bytes`"))
        elif message.properties.type == "lease":
            self._arrived.append(message)
        elif message.properties.message_id == self._probe:
            self._done.append(message.delivery_tag)
            self._complete.set()
        # The probe of another process stays as it is: it comes to that one when we are gone.


def _version(message: Delivered) -> int:
    found = (message.properties.headers or {}).get(_VERSION)
    return found if isinstance(found, int) else 0


def _deleted(queue: str) -> KernelError:
    return UnavailableError(f'queue "{queue}" was deleted')
