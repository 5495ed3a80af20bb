"""One connection of a pool, and whether it can still be used."""

from __future__ import annotations

import select
from typing import Final, final

import attrs
import psycopg
from psycopg import pq

from ._connection import TrioConnection

_OK: Final = pq.ConnStatus.OK
# A member of an enumeration is looked up in Python, which each statement would do.
_LAST_WORDS: Final = 8
"""Reads of what the server says without being asked, at most; more is no sign of health."""


@final
@attrs.define(eq=False, repr=False)
class Seat:
    """One connection, and how much it has been used."""

    connection: TrioConnection
    until: float
    """When it is to be replaced."""
    uses: int = 0
    idle_since: float = 0.0
    _came: select.poll = attrs.field(factory=select.poll, init=False)
    """Asks whether there is anything to read."""

    def __attrs_post_init__(self) -> None:
        self._came.register(self.connection.pgconn.socket, select.POLLIN)

    def is_well(self) -> bool:
        """Whether the server has not closed it; asks only the socket."""
        if self.connection.closed:
            return False
        pgconn = self.connection.pgconn
        try:
            for _ in range(_LAST_WORDS):
                if not self._came.poll(0):
                    return pgconn.status == _OK
                pgconn.consume_input()  # which raises at the end of what came, if the other side has closed
        except psycopg.OperationalError:
            pass
        return False
