"""Strings of the wire, to `str` and back, whatever bytes another program has put into them."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from .errors import EncodingError

LONGEST_SHORT: Final = 255
_LENGTHS: Final = tuple(bytes((length,)) for length in range(LONGEST_SHORT + 1))
"""The byte before a string, made once: a new one takes as long as all else that is done for a short string."""


def encode_text(value: str) -> bytes:
    """Return UTF-8; what was read as no UTF-8 becomes the bytes that it was.

    Raises:
        EncodingError: if it has other surrogates, or is no `str`.
    """
    try:
        return value.encode("utf-8", "surrogateescape")
    except (UnicodeEncodeError, AttributeError):
        raise EncodingError(f"{value!r:.60} is no text that UTF-8 can write") from None


def decode_text(data: bytes) -> str:
    """Return the string; bytes that are no UTF-8 become surrogates, from which `encode_text` makes them again."""
    return data.decode("utf-8", "surrogateescape")


def readable(value: str) -> str:
    """Return what can be printed: the surrogates of `decode_text` replaced."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def shortened(value: str) -> str:
    """Return as much of a text for people as a short string has room for, and nothing that UTF-8 cannot write."""
    return value.encode("utf-8", "replace")[:LONGEST_SHORT].decode("utf-8", "ignore")


def encode_short(value: str) -> bytes:
    """Return a string of at most 255 bytes with its length before it.

    Raises:
        EncodingError: if it is longer, or no text.
    """
    data = encode_text(value)
    try:
        return _LENGTHS[len(data)] + data
    except IndexError:
        text = f"{value[:40]!r}... is {len(data)} bytes long; at most {LONGEST_SHORT} are possible here"
        raise EncodingError(text) from None


short_string: Final = lru_cache(maxsize=1024)(encode_short)
"""`encode_short` for those that come again and again."""
