"""The worker that sends what transactions have written into the outbox."""

from __future__ import annotations

from typing import Final, final

import attrs
import psycopg
import trio
from attrs.validators import and_, ge, gt, le

from kernel.abc import Broker, Context
from kernel.errors import KernelError, UnavailableError

from ._database import Database
from ._events import OutboxFailed
from ._tables import DUE, ONE_RELAY, POSTPONE, SENT, read
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


@final
class OutboxRelay:
    """Sends what is in the outbox, the oldest first, and removes what the broker has taken.

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
                return bool(is_mine) and await self._send_batch(transaction)
        except (psycopg.OperationalError, UnavailableError) as error:
            self._context.log.warning("outbox_unreachable", reason=str(error))
            await trio.sleep(self._config.backoff_initial)
            return False

    async def _send_batch(self, transaction: DatabaseTransaction) -> bool:
        rows = await transaction.execute(DUE, [self._config.batch])
        sent: list[int] = []
        for id_, exchange, mandatory, message_id, subject, body, outside, attempts, age, left in rows:
            envelope = read(message_id, subject, body, outside, age, left)
            try:
                with trio.fail_after(self._config.send_timeout):
                    await self._broker.send(envelope, exchange=exchange, mandatory=mandatory)
            except (KernelError, trio.TooSlowError) as error:
                self._tell(message_id, subject, attempts + 1, error)
                await transaction.execute(POSTPONE, [self._pause(attempts), id_])
            else:
                sent.append(id_)
        if sent:
            await transaction.execute(SENT, [sent])
        return len(rows) == self._config.batch

    def _pause(self, attempts: int) -> float:
        return min(self._config.backoff_initial * 2.0 ** min(attempts, 30), self._config.backoff_max)

    def _tell(self, message_id: str, subject: str, attempts: int, error: Exception) -> None:
        reason = str(error) or f"the broker did not answer within send_timeout = {self._config.send_timeout:g} s"
        self._context.emit(
            OutboxFailed(
                component=self._context.id, message_id=message_id, subject=subject, attempts=attempts, reason=reason
            )
        )
