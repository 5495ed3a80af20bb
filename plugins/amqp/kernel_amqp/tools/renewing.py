"""Declares a queue anew in another form, which RabbitMQ does not change, and keeps what is in it.

What is in the queue waits in another one meanwhile, `<queue>.renew`, and is also where senders send then: it is bound
as the queue was. Each step can be repeated, so that whoever was interrupted begins again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, final

import attrs
from pamqp import base, commands

from kernel.abc import Queue
from kernel.errors import ConflictError

from ..broker.declaring import Step, binding_step, exists, perform, queue_look, queue_step
from ..broker.headers import strip_headers
from ..broker.topology import Bound, field_table
from ..core import Delivered, with_names
from ..link.link import Link
from .carrying import Letter, carry, depth

_EXPIRATION: Final = "kernel-renew-expiration"
"""Carries `expiration` past the queue in between, in which nothing is to expire."""
_ROUNDS: Final = 5
"""Times that a queue is emptied, and found not to be empty, before that is told."""


@final
@attrs.frozen(repr=False)
class Renewal:
    """One queue that is to be of another form."""

    queue: Queue
    bindings: Sequence[Bound]
    tell: Callable[[str], None]

    @property
    def between(self) -> str:
        """The queue and the exchange in between."""
        return f"{self.queue.name}.renew"

    async def run(self, link: Link) -> bool:
        """Renew the queue; returns whether there was something to do.

        Raises:
            ConflictError: if somebody consumes from it, or something is refused.
            KernelError: if a message cannot be carried; what is said in `between` waits there.

        Cancellation: Is a checkpoint. If cancelled, what was in the queue is there, or in the one in between.
        """
        if await self._declare(link):
            return await self._fill(link)
        found = await depth(link, self.queue.name)
        if found is not None and found.consumers:
            raise ConflictError(f'queue "{self.queue.name}" has {found.consumers} consumers: stop the service first')
        await self._empty(link)
        if not await self._declare(link):
            raise ConflictError(f'queue "{self.queue.name}" was declared anew by somebody else meanwhile')
        await self._fill(link)
        return True

    async def _declare(self, link: Link) -> bool:
        """Declare the queue as it is to be; returns whether it is so."""
        try:
            await perform(link, [queue_step(self.queue), *map(binding_step, self.bindings)])
        except ConflictError:
            if not await exists(link, queue_look(self.queue.name)):  # noqa: ASYNC120  being cancelled counts
                raise
            return False
        return True

    async def _empty(self, link: Link) -> None:
        """Carry everything into the queue in between, and delete the queue."""
        name = self.queue.name
        await _do(link, with_names(commands.Queue.Declare(durable=True), queue=self.between))
        await _do(link, *_way(self.between, self.between), *self._bind(self.between))
        await _do(link, *self._unbind(name))
        for _ in range(_ROUNDS):
            found = await depth(link, name)
            if found is None or not found.ready:
                break
            count = await carry(link, name, lambda message: _there(message, self.between), limit=found.ready)
            self.tell(f"{name}: {count} messages wait in {self.between}")
        else:
            raise ConflictError(f'queue "{name}" does not become empty: somebody sends straight to it')
        await self._delete_empty(link)

    async def _delete_empty(self, link: Link) -> None:
        try:
            await _do(link, with_names(commands.Queue.Delete(if_empty=True, if_unused=True), queue=self.queue.name))
        except ConflictError:  # quorum queues do not have these conditions
            found = await depth(link, self.queue.name)  # noqa: ASYNC120  being cancelled counts
            if found is not None and (found.ready or found.consumers):
                raise
            await _do(link, with_names(commands.Queue.Delete(), queue=self.queue.name))

    async def _fill(self, link: Link) -> bool:
        """Carry back what is in the queue in between, and remove that."""
        name, back = self.queue.name, f"{self.between}.back"
        while (found := await depth(link, self.between)) is not None:
            await _do(link, *self._unbind(self.between), *_way(back, name))
            if not found.ready:
                break
            count = await carry(link, self.between, lambda message: _back(message, back), limit=found.ready)
            self.tell(f"{name}: {count} messages are back")
            if not count:
                raise ConflictError(f'nothing comes out of queue "{self.between}": somebody else consumes from it')
        else:
            return False
        await _do(
            link, *(with_names(commands.Exchange.Delete(), exchange=exchange) for exchange in (back, self.between))
        )
        await _do(link, with_names(commands.Queue.Delete(), queue=self.between))
        return True

    def _bind(self, queue: str) -> Iterable[base.Frame]:
        return [attrs.evolve(bound, destination=queue).method() for bound in self.bindings]

    def _unbind(self, queue: str) -> Iterable[base.Frame]:
        for bound in self.bindings:
            unbind = commands.Queue.Unbind(arguments=field_table(dict(bound.arguments)))
            yield with_names(unbind, queue=queue, exchange=bound.source, routing_key=bound.pattern)


def _way(exchange: str, queue: str) -> list[base.Frame]:
    """Return what makes a way into a queue on which messages keep their routing keys."""
    return [
        with_names(commands.Exchange.Declare(exchange_type="fanout", durable=True), exchange=exchange),
        with_names(commands.Queue.Bind(), queue=queue, exchange=exchange),
    ]


async def _do(link: Link, *methods: base.Frame) -> None:
    await perform(link, [Step("queue", getattr(method, "queue", ""), method) for method in methods])


def _there(message: Delivered, exchange: str) -> Letter:
    properties = message.properties
    headers = strip_headers(properties.headers or {})
    if properties.expiration is not None:
        headers[_EXPIRATION] = properties.expiration
    return _letter(message, exchange, headers, None)


def _back(message: Delivered, exchange: str) -> Letter:
    headers = dict(message.properties.headers or {})
    expiration = headers.pop(_EXPIRATION, None)
    return _letter(message, exchange, headers, expiration if isinstance(expiration, str) else None)


def _letter(message: Delivered, exchange: str, headers: dict[str, object], expiration: str | None) -> Letter:
    properties = attrs.evolve(message.properties, headers=headers or None, expiration=expiration, user_id=None)
    return Letter(exchange=exchange, routing_key=message.routing_key, properties=properties, body=message.body)
