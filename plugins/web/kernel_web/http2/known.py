"""HPACK that knows header blocks again. Sans I/O.

A client that goes on asking sends the same bytes each time, and an application that goes on answering the same fields.
As long as the table of their compression stands, those bytes mean what they meant: they are not taken apart again, nor
put together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, final

import hpack
from typing_extensions import override

BLOCKS_MAX: Final = 16
"""Blocks that each direction of a connection remembers."""
BLOCK_BYTES: Final = 256
"""Bytes of a block that is remembered: what is longer changes each time, or costs nothing by comparison."""


@final
class _Stand:
    """How a table of HPACK stands: it cannot have changed if nothing of this has."""

    __slots__ = ("_first", "_length", "_size")

    def __init__(self, table: Any) -> None:  # noqa: ANN401  hpack does not export its class
        entries = table.dynamic_entries
        self._first = entries[0] if entries else None
        self._length = len(entries)
        self._size = table.maxsize

    def holds(self, table: Any) -> bool:  # noqa: ANN401  as above
        entries = table.dynamic_entries
        return (
            (entries[0] if entries else None) is self._first  # what is added comes first, as an object of its own
            and len(entries) == self._length
            and table.maxsize == self._size
        )


@final
class Decoder(hpack.Decoder):
    """Reads the blocks of requests."""

    def __init__(self) -> None:
        """Begin a connection."""
        super().__init__()
        self._known: dict[bytes, Iterable[Any]] = {}
        self.is_known = False
        """Whether the block that was read last is one that was remembered."""
        self._stands = True

    @override
    def decode(self, data: bytes, raw: bool = False) -> Iterable[hpack.HeaderTuple]:
        known = self._known.get(data)
        self.is_known = known is not None
        if known is not None:
            return known
        stand = _Stand(self.header_table)
        headers = super().decode(data, raw)
        self._stands = stand.holds(self.header_table)
        if not self._stands:
            self._known.clear()
        return headers

    def remember(self, data: bytes, headers: Iterable[Any]) -> None:
        """Know the block that was read last again, which was right."""
        if self._stands and len(data) <= BLOCK_BYTES:
            _put(self._known, data, headers)

    def forget(self) -> None:
        """Remember nothing, for as long as there is nothing to be read."""
        self._known.clear()


@final
class Encoder(hpack.Encoder):
    """Writes the blocks of answers."""

    def __init__(self) -> None:
        """Begin a connection."""
        super().__init__()
        self._known: dict[tuple[tuple[bytes, bytes], ...], bytes] = {}

    @override
    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        fields = tuple(headers)
        if self.header_table.resized:  # which the next block says first
            self._known.clear()
        known = self._known.get(fields)
        if known is not None:
            return known
        stand = _Stand(self.header_table)
        block = super().encode(fields, huffman)
        if not stand.holds(self.header_table):
            self._known.clear()
        elif len(block) <= BLOCK_BYTES:
            _put(self._known, fields, block)
        return block

    def forget(self) -> None:
        """Remember nothing, for as long as there is nothing to be written."""
        self._known.clear()


def _put(known: dict[Any, Any], key: Any, value: Any) -> None:  # noqa: ANN401  of either direction
    if len(known) >= BLOCKS_MAX:
        known.clear()
    known[key] = value
