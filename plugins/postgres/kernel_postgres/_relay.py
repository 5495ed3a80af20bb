"""The worker that sends what transactions have written into the outbox."""

from __future__ import annotations

from typing import Final, NamedTuple, final

import attrs
import psycopg
import trio
from attrs.validators import and_, ge, gt, le

from kernel.abc import Broker, Context
from kernel.errors import KernelError, UnavailableError

from ._backlog import OutboxBacklog
from ._database import Database
from ._events import OutboxFailed
from ._tables import ONE_RELAY, POSTPONE, SENT, TRIED, UNTRIED, read
from ._transaction import DatabaseTransaction


@final
@attrs.frozen(kw_only=True)
class RelayConfig:
    """The `config` table of a worker `OutboxRelay`."""

    batch: int = attrs.field(default=100, validator=and_(ge(1), le(10_000)))
    """Messages that are sent in one transaction; after a crash, so many may be sent twice."""
    poll_interval: float = attrs.field(default=0.5, validator=and_(gt(0.0), le(86_400.0)))
    """Seconds between two looks for what other processes have written; those of this one are seen at once."""
    send_timeout: float = attrs.field(default=10.0, validator=and_(gt(0.0), le(86_400.0)))
    """Seconds that the broker may take for one message."""
    backoff_initial: float = attrs.field(default=0.5, validator=ge(0.0))
    """Seconds before a message that was not taken is tried again; then twice as long each time."""
    backoff_max: float = attrs.field(default=60.0, validator=gt(0.0))


class _Row(NamedTuple):
    """A message of the outbox, as `UNTRIED` and `TRIED` select it."""

    id: int
    exchange: str
    mandatory: bool
    message_id: str
    subject: str
    body: bytes
    outside: object
    attempts: int
    age: float
    left: float | None


@final
class OutboxRelay:
    """Sends what is in the outbox, the oldest first, and removes what the broker has taken.

    What it does not take is kept, tried again, and told of: the relay is degraded meanwhile. It holds up no other.
    At least once: whoever receives a message twice has the same id twice. Of several relays on one database one works
    at a time, and another one goes on when its connection is gone.
    """

    def __init__(
        self, database: Database, broker: Broker, context: Context, config: RelayConfig = RelayConfig()
    ) -> None:
        self._database: Final = database
        self._broker: Final = broker
        self._context: Final = context
        self._config: Final = config
        self._backlog: Final = OutboxBacklog(context)
        context.report_backlog(lambda: self._backlog.known)

    async def run(self) -> None:
        """Relay until cancelled.

        Cancellation: Is a checkpoint. What was being sent may be sent again.
        """
        while True:
            with trio.move_on_after(self._config.poll_interval):
                await self._database.wait_written()
            while await self.relay():
                pass

    async def relay(self) -> bool:
        """Send a batch; returns whether there may be more at once.

        Cancellation: Is a checkpoint.
        """
        try:
            async with self._database.transaction() as transaction:
                [(is_mine,)] = await transaction.execute(ONE_RELAY)
                if is_mine:
                    return await self._work(transaction)
                self._backlog.leave()
                return False
        except (psycopg.OperationalError, UnavailableError) as error:
            self._backlog.lose(str(error))
            await trio.sleep(self._config.backoff_initial)
            return False

    async def _work(self, transaction: DatabaseTransaction) -> bool:
        batch = self._config.batch
        rows = await transaction.execute(UNTRIED, [batch])
        rows += await transaction.execute(TRIED, [max(1, batch - len(rows), batch // 10)])
        tried = await self._send(transaction, [_Row(*row) for row in rows])
        await self._backlog.look(transaction)
        return tried >= batch

    async def _send(self, transaction: DatabaseTransaction, rows: list[_Row]) -> int:
        """Send messages until the broker answers no more; returns how many were tried."""
        await trio.lowlevel.checkpoint()
        sent: list[int] = []
        tried = 0
        for row in rows:
            tried += 1
            error = await self._try(row)
            if error is None:
                sent.append(row.id)
            else:
                self._tell(row, error)
                await transaction.execute(POSTPONE, [self._pause(row.attempts), row.id])
            if isinstance(error, trio.TooSlowError):
                break  # the next would wait as long, and all the while nothing of this batch would be committed
        if sent:
            await transaction.execute(SENT, [sent])
        return tried

    async def _try(self, row: _Row) -> Exception | None:
        """Send one message; returns why the broker did not take it."""
        envelope = read(row.message_id, row.subject, row.body, row.outside, row.age, row.left)
        try:
            with trio.fail_after(self._config.send_timeout):
                await self._broker.send(envelope, exchange=row.exchange, mandatory=row.mandatory)
        except (KernelError, ValueError, trio.TooSlowError) as error:
            return error  # noqa: ASYNC910  what is noted of it is a statement
        return None

    def _pause(self, attempts: int) -> float:
        return min(self._config.backoff_initial * 2.0 ** min(attempts, 30), self._config.backoff_max)

    def _tell(self, row: _Row, error: Exception) -> None:
        reason = str(error) or f"the broker did not answer within send_timeout = {self._config.send_timeout:g} s"
        self._backlog.note(row.subject, reason)
        self._context.emit(
            OutboxFailed(
                component=self._context.id,
                message_id=row.message_id,
                subject=row.subject,
                attempts=row.attempts + 1,
                reason=reason,
            )
        )
