"""The ids that a queue has taken within its window."""

from __future__ import annotations

from collections import OrderedDict
from typing import final

import attrs
import trio


@final
@attrs.define(eq=False, repr=False)
class Seen:
    """Remembers each id for `window` seconds, at most `limit` of them: beyond that, the oldest is forgotten early."""

    window: float
    limit: int
    forgotten: int = attrs.field(default=0, init=False)
    """How many were forgotten before their time."""
    _until: OrderedDict[str, float] = attrs.field(factory=OrderedDict[str, float], init=False)
    """Id -> when it is taken again; they end in the order in which they came."""

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, id_: str) -> bool:
        return self._until.get(id_, 0.0) > trio.current_time()

    def add(self, id_: str) -> None:
        """Remember an id that is not known."""
        now = trio.current_time()
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        if len(self._until) >= self.limit:
            self._until.popitem(last=False)
            self.forgotten += 1
        self._until[id_] = now + self.window
