"""The prefix of a driver: names as the manifest has them -> names on a broker that others use, too. Pure.

The queues of answers and of cancellations keep their names: they are for one connection alone, no two are alike, and
their names travel as addresses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar, final

import attrs

from kernel.abc import Topology
from kernel.errors import ConflictError

from .._config import AmqpConfig
from .._tables import ExchangeTable, QueueTable
from ..core.text import LONGEST_SHORT

_BROKERS_OWN: Final = "amq."
"""What the names begin with that the broker keeps for itself."""
TableT = TypeVar("TableT", ExchangeTable, QueueTable)


@final
@attrs.frozen
class Names:
    """What stands in front of the names of exchanges and queues; empty for nothing."""

    prefix: str = ""

    def of(self, name: str) -> str:
        """Return the name on the broker.

        Raises:
            ConflictError: if it is too long with the prefix.
        """
        if not self.prefix or not name or name.startswith(_BROKERS_OWN):
            return name
        full = f"{self.prefix}{name}"
        if (size := len(full.encode())) > LONGEST_SHORT:
            raise ConflictError(f'"{full}" has {size} bytes with `prefix`: at most {LONGEST_SHORT} are possible')
        return full

    def of_topology(self, topology: Topology) -> Topology:
        """Return what is to be declared.

        Raises:
            ConflictError: if a name is too long with the prefix.
        """
        if not self.prefix:
            return topology
        keep = {queue.name for queue in topology.queues if queue.exclusive}
        return Topology(
            exchanges=[attrs.evolve(exchange, name=self.of(exchange.name)) for exchange in topology.exchanges],
            queues=[
                queue
                if queue.name in keep
                else attrs.evolve(queue, name=self.of(queue.name), dead_letters=self.of(queue.dead_letters))
                for queue in topology.queues
            ],
            bindings=[
                attrs.evolve(
                    binding,
                    queue=binding.queue if binding.queue in keep else self.of(binding.queue),
                    exchange=self.of(binding.exchange),
                )
                for binding in topology.bindings
            ],
        )

    def of_config(self, config: AmqpConfig) -> AmqpConfig:
        """Return the driver's table with the names of its own exchanges and queues as they are on the broker."""
        if not self.prefix:
            return config
        queues = {
            name: attrs.evolve(table, dead_letters=self.of(table.dead_letters)) for name, table in config.queues.items()
        }
        return attrs.evolve(config, exchanges=self._tables(config.exchanges), queues=self._tables(queues))

    def _tables(self, tables: Mapping[str, TableT]) -> dict[str, TableT]:
        return {self.of(name): self._table(table) for name, table in tables.items()}

    def _table(self, table: TableT) -> TableT:
        return attrs.evolve(
            table, bindings=tuple(attrs.evolve(one, exchange=self.of(one.exchange)) for one in table.bindings)
        )
