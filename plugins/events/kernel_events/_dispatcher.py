"""The dispatcher `event_listener`: events from the queue of each listener."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import ClassVar, Final, final

import attrs
import trio
from typing_extensions import override

from kernel import Envelope, Message, Outcome
from kernel.abc import (
    Broker,
    Candidate,
    Capability,
    Context,
    Delivery,
    Dispatcher,
    Intake,
    Protocol,
    Subscription,
    Topology,
)
from kernel.errors import ConflictError, StartupError, SubscriptionLostError

from ._listening import Listener
from ._queues import EventListenerConfig, ListenerOptions, Place, places_of, problems


@final
@attrs.define(eq=False, repr=False)
class _Heard(Delivery):
    """An event as its listener gets it: of the version that it knows, under the subject of its handler."""

    _delivery: Delivery
    _listener: Listener
    _protocol: Protocol

    @property
    @override
    def envelope(self) -> Envelope:
        return self._delivery.envelope

    @property
    @override
    def message(self) -> Message:
        message = self._delivery.message or self._protocol.decode(self._delivery.envelope)
        payload = self._listener.event.upgraded(message)
        return Message(subject=self._listener.name, payload=payload, headers=message.headers)

    @property
    @override
    def attempt(self) -> int:
        return self._delivery.attempt

    @property
    @override
    def redelivered(self) -> bool:
        return self._delivery.redelivered

    @property
    @override
    def sent(self) -> float | None:
        return self._delivery.sent

    @override
    async def settle(self, outcome: Outcome) -> None:
        await self._delivery.settle(outcome)

    @override
    def settle_nowait(self, outcome: Outcome) -> bool:
        return self._delivery.settle_nowait(outcome)


@final
class EventListenerDispatcher(Dispatcher):
    """Gives each listener of its workers every event that it listens to.

    A queue for each, from which all processes of the service take, or one for each process. At most `concurrency`
    events are in flight altogether, and as many are taken ahead for each listener.
    """

    Config: ClassVar[type[object]] = EventListenerConfig
    WorkerOptions: ClassVar[type[object] | None] = ListenerOptions
    needs: ClassVar[type[object] | None] = Broker
    speaks: ClassVar[bool] = True

    def __init__(self, *, config: EventListenerConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def requires(cls, config: object) -> frozenset[Capability]:
        assert isinstance(config, EventListenerConfig)
        wanted = {
            Capability.MAX_LENGTH: config.max_length is not None,
            Capability.TTL: config.ttl is not None,
            Capability.DEAD_LETTERS: config.dead_letters,
        }
        return frozenset(capability for capability, is_wanted in wanted.items() if is_wanted)

    @classmethod
    @override
    def check_workers(cls, config: object, workers: Mapping[str, Candidate]) -> Iterable[str]:
        assert isinstance(config, EventListenerConfig)
        for name, candidate in workers.items():
            if candidate.worker is not None:
                yield from problems(name, candidate.worker, candidate.options, config)

    @classmethod
    @override
    def worker_topology(cls, config: object, workers: Mapping[str, Candidate], *, service: str) -> Topology | None:
        assert isinstance(config, EventListenerConfig)
        places = [place for one in workers.values() for place in places_of(one.worker, one.options, config, service)]
        return _together(place.topology(place.queue) for place in places if place.is_kept)

    @override
    def open(self) -> AbstractAsyncContextManager[None]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        await trio.lowlevel.checkpoint()
        yield

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        service = self._context.service
        async with trio.open_nursery() as nursery:
            for target in intake.targets:
                for place in places_of(target.worker, target.options, self._config, service):
                    await nursery.start(self._listen, intake, place)
            task_status.started()

    async def _listen(self, intake: Intake, place: Place, *, task_status: trio.TaskStatus[None]) -> None:
        """Take the events of one listener until cancelled; a subscription that is lost is made again."""
        is_first = True
        while True:
            name = place.named()
            await self._declare(place.topology(name))
            subscription = Subscription(queue=name, prefetch=intake.prefetch)
            with suppress(SubscriptionLostError):
                async with self._context.broker.subscribe(subscription) as deliveries:
                    if is_first:
                        task_status.started()
                    is_first = False
                    await self._submit_all(deliveries, intake, place.listener)
                    return

    async def _declare(self, topology: Topology) -> None:
        try:
            await self._context.broker.declare(topology)
        except ConflictError as error:  # to try again changes nothing
            raise StartupError(f"{self._context.id}: {error}") from error

    async def _submit_all(self, deliveries: AsyncIterator[Delivery], intake: Intake, listener: Listener) -> None:
        protocol = self._context.protocol
        async for delivery in deliveries:
            await intake.submit(_Heard(delivery, listener, protocol))


def _together(topologies: Iterable[Topology]) -> Topology:
    every = list(topologies)
    return Topology(
        exchanges=list(dict.fromkeys(exchange for one in every for exchange in one.exchanges)),
        queues=[queue for one in every for queue in one.queues],
        bindings=[binding for one in every for binding in one.bindings],
    )
