"""The contract of a transaction that holds a worker's own writes and its messages together.

Public through `kernel.abc`. Two things need it. An **outbox**: rows and messages become true together, so that
nobody hears of an order that was rolled back, and no order stays unheard of. And an **inbox**: a handler that
remembers the id of its message together with what it did has its effect once, though delivery is at least once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from .envelope import Envelope


class Transaction(ABC):
    """One transaction of a database that carries messages too. For one task at a time."""

    __slots__ = ()

    @abstractmethod
    async def execute(
        self, statement: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> Sequence[tuple[object, ...]]:
        """Run one statement and return its rows.

        Args:
            statement: In the database's own SQL, with its own placeholders. It may not begin or end transactions, nor
                write the tables of the broker, whose names begin with `kernel_`.
            parameters: For the placeholders.

        Raises:
            UnavailableError: if the transaction is over, or was ended because it took too long.
            Exception: what the database's library raises for a statement that it refuses; the transaction goes on if
                the database lets it.

        Cancellation: Is a checkpoint. If cancelled, the transaction is to be left: it is undone.
        """

    @abstractmethod
    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = True) -> None:
        """Send when the transaction is committed, and only then.

        Args:
            envelope: As for `Broker.send`.
            exchange: As for `Broker.send`.
            mandatory: As for `Broker.send`, and as for a `publisher` true unless said otherwise: what was committed is
                not dropped in silence because no queue gets it. False is for what may happen without a listener.

        Raises:
            UnroutableError: as `Broker.send`; nothing was sent, and the transaction goes on. A database that is no
                broker finds it out when it relays the message, keeps the message, and tells of it.
            QueueFullError: as `Broker.send`.
            UnavailableError: if the transaction is over, or was ended because it took too long.

        Cancellation: Is a checkpoint. If cancelled, the transaction is to be left: it is undone.
        """

    @abstractmethod
    async def once(self, message_id: str, *, scope: str = "") -> bool:
        """Remember that a message is handled; returns whether it was not so before.

        A handler that gets False has nothing to do: what it would do was committed with the id.

        Args:
            message_id: `Envelope.id`. Ids are remembered for a time that the driver's table says; it must be longer
                than a message can be on its way.
            scope: Whose effect it is. Handlers that each act on the same message need scopes of their own.

        Raises:
            UnavailableError: if the transaction is over, or was ended because it took too long.

        Cancellation: Is a checkpoint. If cancelled, the transaction is to be left: it is undone.
        """


class Transactional(ABC):
    """A resource that has such transactions: a broker with `Capability.TRANSACTION`, or a database of its own."""

    __slots__ = ()

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Begin a transaction on entry; commit it on a clean exit, and undo it if the body raises.

        Inside, the same task must not use the broker itself, which may wait for the transaction to end.

        Raises:
            StorageError: on entry or exit, if the database takes nothing; then all of it is undone.
            UnknownOutcomeError: on exit, if it cannot be known whether it was committed. Do the same again with the
                same message id, and `once` tells.
            UnavailableError: on exit, if it was ended because it took too long: all of it is undone.
            RuntimeError: on entry, if the task has one open already.

        Cancellation: Is a checkpoint on entry and on exit. If cancelled on exit, all of it happened, or nothing.
        """
