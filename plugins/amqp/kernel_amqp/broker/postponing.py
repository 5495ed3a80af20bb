"""Sends messages that are to arrive later: through queues with a time to live, or the delayed message exchange."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

import attrs
import trio

from kernel.errors import UnroutableError

from .._errors import LinkLostError
from ..core import Properties
from ..link.channel import OnWritten
from ..link.keeper import Keeper
from .declaring import Step, exchange_look, exists, perform
from .delays import DelayExchange, DelayQueue, Kind, round_up
from .headers import DELAY
from .outbox import Outbox

_MAX_KNOWN: Final = 1024
_TRIES: Final = 3


@final
@attrs.define(eq=False, repr=False)
class Postponer:
    """Has messages wait in the broker, not in this process."""

    _keeper: Keeper
    _outbox: Outbox
    _uses_plugin: bool
    """Whether the delayed message exchange does it."""
    _until: OrderedDict[DelayQueue | DelayExchange, float] = attrs.field(
        factory=OrderedDict[DelayQueue | DelayExchange, float], init=False
    )
    """When a place has to be declared again, in `trio.current_time()`; those used last."""
    _declaring: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """One declares at a time, so that many who need a place do not all do it, each on a channel of its own."""

    async def publish(
        self,
        properties: Properties,
        body: bytes,
        *,
        exchange: str,
        routing_key: str,
        delay: float,
        kind: Kind,
        on_written: OnWritten | None = None,
    ) -> None:
        """Send a message that `exchange` is to get after `delay` seconds; `on_written` as in `Outbox.publish`.

        Raises:
            UnroutableError: if there is no such exchange.
            ValueError: if it is too long a delay.
            UnknownOutcomeError, EncodeError, SendError, UnavailableError: as `Outbox.publish`.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        milliseconds = round_up(delay)
        place: DelayQueue | DelayExchange = DelayQueue(exchange, milliseconds, kind)
        if self._uses_plugin:
            place = DelayExchange(exchange, "" if exchange else routing_key)
            properties = attrs.evolve(properties, headers={**(properties.headers or {}), DELAY: milliseconds})
        for attempt in range(_TRIES):
            await self._prepare(place)
            try:
                # The plugin's exchange holds a message in no queue, and so would return it.
                await self._outbox.publish(
                    properties,
                    body,
                    exchange=place.name,
                    routing_key=routing_key,
                    mandatory=not self._uses_plugin,
                    on_written=on_written,
                )
            except UnroutableError:
                self._until.pop(place, None)  # somebody has removed it
                if attempt == _TRIES - 1:
                    raise
            else:
                return

    async def _prepare(self, place: DelayQueue | DelayExchange) -> None:
        """Make sure that a place exists, and for long enough."""
        if self._is_known(place):
            return  # noqa: ASYNC910  sending follows
        async with self._declaring:
            if not self._is_known(place):
                await self._declare(place)

    def _is_known(self, place: DelayQueue | DelayExchange) -> bool:
        return self._until.get(place, 0.0) > trio.current_time()

    async def _declare(self, place: DelayQueue | DelayExchange) -> None:
        while True:
            link = (await self._keeper.session()).link
            began = trio.current_time()
            try:
                if place.target and not await exists(link, exchange_look(place.target)):
                    raise UnroutableError(f'there is no exchange "{place.target}" to send to')
                await perform(link, [Step("exchange", place.name, method) for method in place.methods()])
            except LinkLostError:
                await trio.lowlevel.checkpoint()
                continue
            self._remember(place, began)
            return

    def _remember(self, place: DelayQueue | DelayExchange, began: float) -> None:
        self._until[place] = began + place.lease
        self._until.move_to_end(place)
        if len(self._until) > _MAX_KNOWN:
            self._until.popitem(last=False)
