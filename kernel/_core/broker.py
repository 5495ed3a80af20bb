"""The contract of a broker: what a transport has to bring, and all that it has to bring.

Public through `kernel.abc`. It knows neither the pipeline that handles deliveries nor how messages are written.
"""

from __future__ import annotations

import enum
import json
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Final, Protocol, cast, final

import attrs

from .envelope import NO_HEADERS, Envelope, Message, Outcome
from .fields import ByFields

MAX_DEATHS: Final = 16
"""Earlier deaths that a dead letter tells of: the latest ones."""
_BY_SUBJECT: Final = "subject"
_BY_HEADER: Final = "header:"
_DEATH: Final = ("reason", "queue", "attempts", "subject")


class Capability(enum.Enum):
    """What a broker can do. The plan refuses a manifest that asks for more."""

    DELAY = "delay"
    """Hold a message back for some seconds: delayed sending, and retries with backoff."""
    PRIORITY = "priority"
    TTL = "ttl"
    """Expire messages by age."""
    ORDERING = "ordering"
    """Deliver messages of one key one after the other: `Queue.partition_by`."""
    REQUEST_REPLY = "request_reply"
    TRANSACTION = "transaction"
    """Send and write to a database, both or neither."""
    MAX_LENGTH = "max_length"
    DEAD_LETTERS = "dead_letters"
    PEEK = "peek"
    """Read a queue without taking from it."""
    DURABLE = "durable"
    """What was sent survives the process."""
    DEDUPLICATION = "deduplication"
    """Take a message that is sent twice once: `Queue.deduplication_window`."""
    MANDATORY = "mandatory"
    """Tell a sender that no queue gets its message."""
    ALL_OR_NOTHING = "all_or_nothing"
    """Give a message that one full queue refuses to no other queue either."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Exchange(ByFields):
    """Where senders send: it copies each message to every queue bound with a pattern that matches the subject."""

    name: str
    durable: bool = True


def check_partition_by(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    """Raise ValueError for what is no `Queue.partition_by`; a validator of attrs."""
    is_header = value.startswith(_BY_HEADER) and value != _BY_HEADER
    if value and value != _BY_SUBJECT and not is_header:
        raise ValueError(f'\'{attribute.name}\' must be "subject" or "header:NAME", got {json.dumps(value)}')


def check_window(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    """Raise ValueError for what is no `Queue.deduplication_window`; a validator of attrs."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"'{attribute.name}' must be a finite number of seconds, 0 or more, got {value!r}")


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Queue(ByFields):
    """Where messages wait for consumers; each message goes to one of them."""

    name: str
    durable: bool = True
    exclusive: bool = False
    """Has one consumer and goes away with it, or at the latest with the connection, as a reply queue does."""
    max_length: int | None = None
    """Messages; None leaves it to the broker."""
    overflow: str = "refuse"
    """What happens at `max_length`: `refuse` the sender, or `drop_oldest` (into the dead letters, if any,
    with reason `overflow`)."""
    ttl: float | None = None
    """Seconds after which a waiting message is dead-lettered, with reason `expired`."""
    dead_letters: str = ""
    """The queue for what is put aside; empty drops it, with an event."""
    partition_by: str = attrs.field(default="", validator=check_partition_by)
    """What messages are ordered by: `subject` or `header:NAME`; empty orders nothing. `partition_key` tells the key.

    Of the messages of one key at most one is taken and not settled, whoever consumes, and they come in the order in
    which they were sent, whatever their priorities: while one waits for its retry, the later ones of its key wait
    behind it. Other keys, and messages without one, go on meanwhile. A message with a delay has no place in the
    order before its delay is over. Needs `Capability.ORDERING`.
    """
    deduplication_window: float = attrs.field(default=0.0, validator=check_window)
    """Seconds in which the queue takes a message of one `Envelope.id` once; 0 takes all.

    They begin with the first send that was taken, whatever became of that message. A second one is confirmed to its
    sender and dropped, with an event, even where the queue is full; it does not make the window longer. Retries,
    returns and dead letters are never duplicates. Needs `Capability.DEDUPLICATION`.
    """
    options: object = attrs.field(default=None, repr=False)
    """An instance of the broker's `BrokerOptions`, or None."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Binding(ByFields):
    """Ties a queue to an exchange."""

    queue: str
    exchange: str
    pattern: str
    """Words joined by dots; `*` stands for one word, `#` for any number. Source: AMQP 0-9-1, topic exchanges."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Topology(ByFields):
    """Exchanges, queues and bindings that must exist."""

    exchanges: Sequence[Exchange] = ()
    queues: Sequence[Queue] = ()
    bindings: Sequence[Binding] = ()

    def staying(
        self, *, delete: Callable[[str], str], unbind: Callable[[Binding], str], called: Callable[[str], str] = str
    ) -> Iterator[str]:
        """Yield what it means that these queues and bindings stay at a broker, each with how to end it.

        For `Driver.remains`.

        Args:
            delete: Returns how to end a queue, by its name.
            unbind: Returns how to end a binding; asked about those of other queues.
            called: Returns what a queue or an exchange is called at the broker.
        """
        names = [queue.name for queue in self.queues]
        for name in names:
            text = "stays, bound as it was, and fills unless another service consumes it"
            yield f'queue "{called(name)}" {text}: {delete(name)}'
        for one in self.bindings:
            if one.queue not in names:
                to = f'exchange "{called(one.exchange)}" by "{one.pattern}"'
                yield f'queue "{called(one.queue)}" stays bound to {to}: {unbind(one)}'


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Subscription(ByFields):
    """A wish to consume from a queue."""

    queue: str
    prefetch: int
    """Deliveries taken and not yet settled, at most. 1 or more."""
    reply_exchange: str = ""
    """The exchange that replies to these deliveries are sent to; empty sends each straight to the queue that its
    subject names. A reply that no queue gets, or that finds no such exchange, is dropped."""


class Delivery(ABC):
    """One attempt to hand an envelope over. Settled exactly once, by the kernel."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.envelope!r}, attempt {self.attempt}>"

    @property
    @abstractmethod
    def envelope(self) -> Envelope:
        """What is delivered."""

    @property
    def message(self) -> Message | None:
        """The message, if the source has it already (a timer's tick); None has the protocol decode the envelope."""
        return None

    @property
    @abstractmethod
    def attempt(self) -> int:
        """1 for the first attempt. Counted before the attempt, so that it survives a crash in it."""

    @property
    @abstractmethod
    def redelivered(self) -> bool:
        """Whether it may have been delivered before, even without an attempt being counted."""

    @property
    def sent(self) -> float | None:
        """When it was sent, or came into its queue, in `trio.current_time()`; None if the source does not tell.

        Where sender and receiver have two clocks, it is as wrong as these are apart, and may be in the future.
        """
        return None

    @abstractmethod
    async def settle(self, outcome: Outcome) -> None:
        """Tell the source what became of the delivery; returns when the source has taken note.

        `Ack(reply)`: the reply is sent first. `Retry(after)`: delivered again, attempt + 1, after that many
        seconds. `DeadLetter`: put into the queue's dead letters with `kernel-death-*` headers. `Return`: delivered
        again at once, attempt not counted.

        Raises:
            SettledError: if it was settled already.
            UnknownOutcomeError: if the connection is gone: the source will deliver again.

        Cancellation: The kernel calls it shielded, for at most 5 s, and while the dispatcher stops for at most three
            quarters of its `stop_timeout`.
        """

    def settle_nowait(self, outcome: Outcome) -> bool:
        """Settle as `settle` does if that takes no waiting at all; return whether it was done.

        If it was not, nothing has been done, and the kernel calls `settle`. It may depend on the outcome.

        The kernel asks first, since a shielded scope with a deadline costs more than many a handler. A transport
        that only writes to a buffer it owns, or holds its messages in memory, implements it.

        Raises:
            SettledError: if it was settled already.
        """
        del outcome
        return False


class Broker(ABC):
    """Carries messages from senders through exchanges to queues and their consumers.

    All that a transport has to bring: `consumer`, `publisher` and `rpc_client` of the `messaging` plugin work over
    every broker. `kernel.testing.check_broker` tests an implementation.
    """

    __slots__ = ()

    @abstractmethod
    async def declare(self, topology: Topology) -> None:
        """Make exchanges, queues and bindings exist. Idempotent.

        Raises:
            ConflictError: naming queue or exchange and both values, if one exists with other properties.

        Cancellation: Is a checkpoint. If cancelled, any part of it may have been done.
        """

    @abstractmethod
    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Consume from a queue while inside.

        Leaving it stops the source at once and returns what was not taken from the iterator; deliveries that were
        taken can still be settled until the broker closes. The iterator ends by raising when the source breaks:
        `SubscriptionLostError` if subscribing again mends that.

        Raises:
            ConflictError: if there is no such queue, or another consumer has it for itself.

        Delivery: At least once. Ordering: first come, first served, except for retries and priorities.
        """

    @abstractmethod
    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        """Send; returns when the broker has taken responsibility.

        A full queue raises and does not wait: only the sender knows what its message is worth.

        Args:
            envelope: What to send; its deadline travels with it.
            exchange: Name of an exchange; empty sends straight to the queue that `envelope.subject` names.
            mandatory: Whether a message that no queue gets is an error, if the broker can tell
                (`Capability.MANDATORY`); over another one such a message is dropped.

        Raises:
            EncodeError: if the id or a header cannot be carried (`check_envelope`). Nothing was sent, and so for:
            ValueError: if the priority is not 0 to 9.
            UnroutableError: if mandatory, and no queue is bound for it; needs `Capability.MANDATORY`.
            QueueFullError: if a queue that should get it is full; then no queue got it, if the broker can do that
                (`Capability.ALL_OR_NOTHING`), and otherwise those that were not full did.
            UnknownOutcomeError: if it cannot be known whether it was taken.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent.
        """

    async def retire(self, topology: Topology) -> Sequence[str] | None:
        """Note that no dispatcher of the service asks for queues and bindings any more, after a reload without them.

        For a broker that forgets all with the process, so that it is then as after a restart. Nothing that waits may
        be lost by it.

        Args:
            topology: Queues and bindings that were declared.

        Returns:
            What is left of them, with what to do, for the log and for who asked for the reload; None if all of it
            stays as it was, so that `Driver.remains` is what can be said.

        Cancellation: Is a checkpoint. If cancelled, any part of it may have been done.
        """
        import trio  # noqa: PLC0415  who only reads a manifest needs no event loop

        await trio.lowlevel.checkpoint()
        return None

    async def peek(self, queue: str, *, limit: int = 100) -> Sequence[Delivery]:
        """Return the first messages of a queue without taking them; they must not be settled.

        Needs `Capability.PEEK`.

        Raises:
            NotImplementedError: if the broker lacks the capability.
            ConflictError: if there is no such queue.

        Cancellation: Is a checkpoint.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot peek into {queue}, limit {limit}")


def partition_key(envelope: Envelope, partition_by: str) -> str | None:
    """Return the key that orders an envelope in a queue with this `partition_by`; None if nothing orders it.

    Headers that are no text are compared as JSON. A header that is missing or null gives no key.
    """
    if partition_by == _BY_SUBJECT:
        return envelope.subject
    value = (envelope.headers or NO_HEADERS).get(partition_by.removeprefix(_BY_HEADER)) if partition_by else None
    return value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def death_headers(envelope: Envelope, *, reason: str, queue: str, attempts: int) -> Mapping[str, object]:
    """Return the headers of a dead letter: those of the envelope and why, where and after how many attempts.

    If it was a dead letter before, `kernel-death-history` has that as well: a list of tables with `reason`, `queue`,
    `attempts` and `subject`, oldest first, of at most `MAX_DEATHS` earlier deaths.
    """
    headers = envelope.headers or NO_HEADERS
    history = _deaths(headers)
    return {
        **headers,
        "kernel-death-reason": reason,
        "kernel-death-queue": queue,
        "kernel-death-attempts": attempts,
        "kernel-death-subject": envelope.subject,
        **({"kernel-death-history": history} if history else {}),
    }


def _deaths(headers: Mapping[str, object]) -> list[object]:
    """Return the earlier deaths of what has died again."""
    if "kernel-death-reason" not in headers:
        return []
    known = headers.get("kernel-death-history")
    earlier = cast("list[object]", known) if isinstance(known, list) else []
    return [*earlier, {key: headers.get(f"kernel-death-{key}") for key in _DEATH}][-MAX_DEATHS:]


@final
@attrs.define(eq=False, repr=False)
class Batch:
    """The deliveries of one call of a handler whose dispatcher has a `batch` table."""

    deliveries: Sequence[Delivery]
    """In the order of the payloads. Each has its own envelope, attempt and outcome; the kernel settles them."""
    _settle: Callable[[int, object], None]

    def __len__(self) -> int:
        return len(self.deliveries)

    def settle(self, index: int, result: object = None) -> None:
        """Settle one delivery before the handler ends; what the handler returns or raises does not touch it any more.

        Never blocks: the source is told as soon as other tasks run.

        Args:
            index: Its place among the payloads.
            result: As if the handler had returned it for this payload alone: None acknowledges, an outcome is taken
                as it is, and anything else answers a request.

        Raises:
            IndexError: if there is no such place.
            SettledError: if it was settled already, or the handler has ended.
        """
        self._settle(index, result)


class Handled(Protocol):
    """An attempt that is under way."""

    @property
    def delivery(self) -> Delivery:
        """What is handled."""
        ...

    @property
    def worker(self) -> str:
        """`worker/name` of the one that handles it."""
        ...

    @property
    def along(self) -> Mapping[str, object]:
        """What is sent from its handler takes along, unless `carry` says something else there."""
        ...


CURRENT: Final[ContextVar[Handled | None]] = ContextVar("kernel.current", default=None)
"""Set by the pipeline around a handler. Each delivery has a context of its own, so nothing has to be set back."""


def current_delivery() -> Delivery | None:
    """Return the delivery whose handler runs in this task, or in the task that this one was started from.

    None outside of handlers: in a worker's `run`, or in a handler of batches, which has many deliveries.
    """
    handled = CURRENT.get()
    return None if handled is None else handled.delivery
