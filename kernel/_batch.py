"""What a handler is given that takes many messages at once, besides their payloads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import attrs

from ._broker import Delivery


@final
@attrs.define(eq=False)
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
