"""Topology of the kernel and tables of the manifest -> what is declared over AMQP. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, cast, final

import attrs
from pamqp import commands
from pamqp.common import FieldTable

from kernel.abc import Binding, Exchange, Queue
from kernel.errors import ConflictError

from .._tables import AmqpOptions, Arguments, BindingTable, ExchangeTable, QueueTable, QueueType
from ..core import with_names

DEFAULTS: Final = AmqpOptions()
_DEAD_EXCHANGE: Final = "x-dead-letter-exchange"
_OVERFLOW: Final = "x-overflow"


@final
@attrs.frozen
class Bound:
    """One binding as AMQP has it: of a queue, or of an exchange to another."""

    destination: str
    source: str
    pattern: str
    arguments: tuple[tuple[str, object], ...] = attrs.field(default=(), repr=False)
    is_exchange: bool = False

    def method(self) -> commands.Queue.Bind | commands.Exchange.Bind:
        """Return what makes it exist."""
        arguments = field_table(dict(self.arguments))
        if self.is_exchange:
            bind = commands.Exchange.Bind(arguments=arguments)
            return with_names(bind, destination=self.destination, source=self.source, routing_key=self.pattern)
        bind_queue = commands.Queue.Bind(arguments=arguments)
        return with_names(bind_queue, queue=self.destination, exchange=self.source, routing_key=self.pattern)


def options_of(queue: Queue) -> AmqpOptions:
    """Return the options of a queue."""
    if queue.options is None:
        return DEFAULTS
    if not isinstance(queue.options, AmqpOptions):
        raise ConflictError(f'queue "{queue.name}" has options of {type(queue.options).__name__}, not AmqpOptions')
    return queue.options


def exchange_method(exchange: Exchange, table: ExchangeTable | None) -> commands.Exchange.Declare:
    """Return what makes an exchange exist; its table in the manifest has the last word."""
    table = table or ExchangeTable(durable=exchange.durable)
    method = commands.Exchange.Declare(
        exchange_type=table.type,
        durable=table.durable,
        auto_delete=table.auto_delete,
        internal=table.internal,
        arguments=field_table(table.arguments),
    )
    return with_names(method, exchange=exchange.name)


def queue_method(queue: Queue) -> commands.Queue.Declare:
    """Return what makes a queue exist.

    Raises:
        ConflictError: if it is asked for what its type cannot be.
    """
    options = options_of(queue)
    exclusive = queue.exclusive or options.exclusive
    auto_delete = queue.exclusive or options.auto_delete
    if options.type == "stream" and (wrong := _not_of_stream(queue)):
        raise ConflictError(
            f'queue "{queue.name}" cannot be of `type = "stream"` with {wrong}: a stream is durable, keeps what is'
            " consumed, and knows neither priorities nor keys; `options.max_length_bytes` and `options.max_age` bound it"
        )
    if options.type == "quorum" and (exclusive or auto_delete or options.max_priority or not queue.durable):
        raise ConflictError(
            f'queue "{queue.name}" cannot be of `type = "quorum"`: such a queue is durable, not exclusive, not'
            " auto_delete, and has no priorities"
        )
    method = commands.Queue.Declare(
        durable=queue.durable,
        exclusive=exclusive,
        auto_delete=auto_delete,
        arguments=field_table(queue_arguments(queue, options)),
    )
    return with_names(method, queue=queue.name)


def _not_of_stream(queue: Queue) -> str:
    said = {
        "`durable = false`": not queue.durable,
        "`max_length`": queue.max_length is not None,
        "`ttl`": queue.ttl is not None,
        "`partition_by`": bool(queue.partition_by),
    }
    return ", ".join(key for key, is_said in said.items() if is_said)


def queue_arguments(queue: Queue, options: AmqpOptions) -> dict[str, object]:
    """Return the arguments of a queue. Source: RabbitMQ, Queues, optional arguments, and Streams."""
    if options.type == "stream":
        return _stream_arguments(options)
    said = {
        "x-queue-type": options.type,
        "x-message-ttl": _milliseconds(queue.ttl),
        "x-expires": _milliseconds(options.expires),
        "x-max-priority": options.max_priority or None,
        "x-delivery-limit": options.delivery_limit,
        "x-single-active-consumer": bool(queue.partition_by or options.single_active_consumer) or None,
    }
    arguments = _bounds(queue, options) | _dead_letter_arguments(queue, options) | said
    return {name: value for name, value in arguments.items() if value is not None} | dict(options.arguments)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds * 1000)


def _stream_arguments(options: AmqpOptions) -> dict[str, object]:
    arguments: dict[str, object] = {
        "x-queue-type": options.type,
        "x-max-length-bytes": options.max_length_bytes,
        "x-max-age": _age(options.max_age),
    }
    return {name: value for name, value in arguments.items() if value is not None} | dict(options.arguments)


def _age(seconds: float | None) -> str | None:
    return None if seconds is None else f"{math.ceil(seconds)}s"


def _bounds(queue: Queue, options: AmqpOptions) -> dict[str, object]:
    bounds: dict[str, object] = {"x-max-length": queue.max_length, "x-max-length-bytes": options.max_length_bytes}
    if all(bound is None for bound in bounds.values()):
        return {}
    return bounds | {_OVERFLOW: "reject-publish" if queue.overflow == "refuse" else "drop-head"}


def field_table(arguments: Mapping[str, object]) -> FieldTable:
    """Return arguments as `pamqp` types them; the manifest or we ourselves have written them."""
    return cast("FieldTable", dict(arguments))


def has_dead_exchange(queue: Queue) -> bool:
    """Whether the broker knows where to put what it dead-letters, of our own or by arguments."""
    if options_of(queue).type == "stream":
        return False
    return bool(queue.dead_letters) or _DEAD_EXCHANGE in options_of(queue).arguments


def check_order(queue: Queue, version: tuple[int, ...]) -> None:
    """Raise ConflictError for an ordered queue in which messages with priorities would overtake others.

    Quorum queues of RabbitMQ 4.0 to 4.2 always do that. Source: RabbitMQ, Quorum Queues, priorities.
    """
    options = options_of(queue)
    can_overtake = (4,) <= version < (4, 3) and options.type != "classic"
    if queue.partition_by and can_overtake and not options.without_priorities:
        raise ConflictError(
            f'queue "{queue.name}" has `partition_by`, and a quorum queue of RabbitMQ {".".join(map(str, version))} lets'
            ' messages with priorities overtake others: say `type = "classic"`, or `without_priorities = true` where'
            " nobody sends any"
        )


def takes_all(queue: Queue) -> bool:
    """Whether a queue is known to take every message: it was declared here, is on one node and refuses nothing."""
    options = options_of(queue)
    is_ours = not (options.passive or options.adopt)
    refuses = str(queue_arguments(queue, options).get(_OVERFLOW, "")).startswith("reject-publish")
    return options.type == "classic" and is_ours and not refuses


def graves_of(queues: Sequence[Queue]) -> dict[str, Queue]:
    """Return the queues for dead letters of which no more than the name is said: each is of its queue's type.

    That of a stream is a quorum queue: what is put aside there is to be taken again.
    """
    types: dict[str, QueueType | None] = {
        queue.dead_letters: options_of(queue).type for queue in reversed(queues) if queue.dead_letters
    }
    graves = [queue for queue in queues if queue.name in types and says_nothing(queue)]
    return {grave.name: attrs.evolve(grave, options=_of_type(types[grave.name])) for grave in graves}


def _of_type(type_: QueueType | None) -> AmqpOptions | None:
    return None if type_ is None else AmqpOptions(type="quorum" if type_ == "stream" else type_)


def says_nothing(queue: Queue) -> bool:
    """Whether a queue is asked for by its name alone, as one for dead letters is: whoever declares it says the rest."""
    return queue == Queue(name=queue.name, durable=queue.durable)


def binding_of(binding: Binding) -> Bound:
    """Return a binding of the kernel's as AMQP has it."""
    return Bound(binding.queue, binding.exchange, binding.pattern)


def bindings_of(name: str, tables: tuple[BindingTable, ...], *, is_exchange: bool) -> list[Bound]:
    """Return the bindings that a table of the manifest asks for."""
    return [Bound(name, table.exchange, table.pattern, _items(table.arguments), is_exchange) for table in tables]


def queue_of(name: str, table: QueueTable) -> Queue:
    """Return the queue that a table of the manifest describes."""
    options = {field.name: getattr(table, field.name) for field in attrs.fields(AmqpOptions) if field.name != "passive"}
    return Queue(
        name=name,
        durable=table.durable,
        max_length=table.max_length,
        overflow=table.overflow,
        ttl=table.ttl,
        dead_letters=table.dead_letters,
        partition_by=table.partition_by,
        options=AmqpOptions(**options),
    )


def _dead_letter_arguments(queue: Queue, options: AmqpOptions) -> dict[str, object]:
    arguments: dict[str, object] = {}
    if queue.dead_letters:
        arguments = {_DEAD_EXCHANGE: "", "x-dead-letter-routing-key": queue.dead_letters}
    strategy = options.dead_letter_strategy
    if strategy is None and options.type == "quorum" and queue.dead_letters and queue.overflow == "refuse":
        # Without it the broker forgets a message as soon as it has sent the dead letter, whatever becomes of that.
        strategy = "at-least-once"
    if strategy == "at-least-once":
        arguments[_OVERFLOW] = "reject-publish"
    return arguments | {"x-dead-letter-strategy": strategy}


def _items(arguments: Arguments) -> tuple[tuple[str, object], ...]:
    return tuple(sorted(arguments.items()))
