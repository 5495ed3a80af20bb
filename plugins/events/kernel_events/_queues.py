"""Which queue a listener has, and what must exist for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, final

import attrs

from kernel import new_id
from kernel.abc import Binding, Exchange, Queue, Topology

from ._catching import async_catchers_of, misfits_of
from ._listening import Listener, listeners_of, unheard_in

_POSITIVE: Final = attrs.validators.optional(attrs.validators.gt(0))


@final
@attrs.frozen(kw_only=True)
class EventListenerConfig:
    """The table of a dispatcher `event_listener`."""

    exchange: str = attrs.field(default="events", validator=attrs.validators.min_len(1))
    """What events are sent to; that of the drivers `event_sender`."""
    process: str = ""
    """What tells this process from others of the service, and is the same after a restart, such as the name of its
    host: part of the names of queues that are durable and per process."""
    dead_letters: bool = True
    """Whether each queue has one called `<queue>.dead` for what is put aside; if not, that is dropped."""
    max_length: int | None = attrs.field(default=None, validator=_POSITIVE)
    """Events that wait in one queue, at most; None leaves it to the broker."""
    ttl: float | None = attrs.field(default=None, validator=_POSITIVE)
    """Seconds after which an event that waits is put aside."""
    options: object = None
    """What only this broker knows about queues: an instance of its `BrokerOptions`."""


@final
@attrs.frozen(kw_only=True)
class ListenerOptions:
    """The `options` table of a worker: what its listeners do otherwise than their marks say."""

    durable: bool | None = None
    per_process: bool | None = None
    queues: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Name of a listener -> name of its queue."""

    def applied(self, listener: Listener) -> Listener:
        """Return a listener as it is to be."""
        durable = listener.durable if self.durable is None else self.durable
        per_process = listener.per_process if self.per_process is None else self.per_process
        return attrs.evolve(listener, durable=durable, per_process=per_process or not durable)


@final
@attrs.frozen
class Place:
    """The queue of one listener."""

    listener: Listener
    queue: str
    config: EventListenerConfig

    @property
    def is_kept(self) -> bool:
        """Whether it outlives the process; else it has a new name in each life of a subscription."""
        return self.listener.durable

    def named(self) -> str:
        """Return the name of the queue to subscribe to."""
        return self.queue if self.is_kept else f"{self.queue}.{new_id()}"

    def topology(self, name: str) -> Topology:
        """Return what must exist for a queue of that name."""
        config, grave = self.config, f"{self.queue}.dead" if self.config.dead_letters and self.is_kept else ""
        queue = Queue(
            name=name,
            durable=self.is_kept,
            exclusive=not self.is_kept,
            max_length=config.max_length,
            ttl=config.ttl,
            dead_letters=grave,
            options=config.options if self.is_kept else None,
        )
        return Topology(
            exchanges=[Exchange(name=config.exchange)],
            queues=[*([Queue(name=grave)] if grave else []), queue],
            bindings=[
                Binding(queue=name, exchange=config.exchange, pattern=pattern)
                for pattern in self.listener.event.patterns
            ],
        )


def places_of(worker: object, options: object, config: EventListenerConfig, service: str) -> list[Place]:
    """Return the queues of a worker's listeners.

    A queue is called `<event>::<service>.<listener>`, so that services with like workers do not share one, and processes
    of one service do; and `-<process>` follows where each is to have its own.
    """
    given = options if isinstance(options, ListenerOptions) else ListenerOptions()
    return [_place(given, listener, config, service) for listener in listeners_of(worker)]


def _place(options: ListenerOptions, marked: Listener, config: EventListenerConfig, service: str) -> Place:
    listener = options.applied(marked)
    name = options.queues.get(listener.name) or f"{listener.event.name}::{service}.{listener.name}"
    own = f"-{config.process}" if listener.per_process and listener.durable else ""
    return Place(listener, f"{name}{own}", config)


def _faults_of(name: str, worker: object, listeners: Iterable[Listener]) -> Iterable[str]:
    """Yield what is wrong with a worker's listeners, whatever the manifest says of them."""
    every = list(listeners)
    for one in every:
        if one.takes_another:
            given, asked = one.cls.__qualname__, getattr(one.takes, "__qualname__", "")
            yield f'"{one.name}" of worker/{name} listens to {given}, and its event is annotated {asked}: write {given}'
    for catcher, why in misfits_of(worker) if isinstance(worker, type) else ():
        yield f'"{catcher}" of worker/{name} is called with the error, the event and the attempt: {why}'
    for catcher in async_catchers_of(worker) if isinstance(worker, type) else ():
        if any(one.is_plain for one in every):
            yield f'"{catcher}" of worker/{name} catches what its listeners raise, is async, and they are not: write "def"'


def problems(name: str, worker: object, options: object, config: EventListenerConfig) -> Iterable[str]:
    """Yield what is wrong with a worker's listeners."""
    places = places_of(worker, options, config, "")
    yield from _faults_of(name, worker, [place.listener for place in places])
    if not places:
        yield f"worker/{name} listens to no event: mark a method with @listens(...), its class with @event()"
    for method, pattern in unheard_in(worker):
        named = f"{method} of worker/{name}" if method else f"worker/{name}"
        yield f'{named} handles "{pattern}", and is given events alone, so that would never be called: mark it with @listens, or give the worker to a dispatcher of messages'
    for place in places:
        one = place.listener
        if one.per_process and one.durable and not config.process:
            yield f'"{one.name}" of worker/{name} is durable and per process: give `process` a name of each process of its own, such as "${{HOSTNAME}}"'
    if isinstance(options, ListenerOptions):
        for unknown in options.queues.keys() - {place.listener.name for place in places}:
            yield f'`queues` of worker/{name} names "{unknown}", which is none of its listeners'
