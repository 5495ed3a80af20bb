"""TOML text -> plain values and the line of every key. The only module that knows tomli.

tomli names no positions, so a scanner of our own walks over the text first. It also applies the limits that keep a
hostile file from costing time or stack. It need not judge the text: up to the first error that tomli finds, both see
the same keys, and after it nothing counts.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final, TypeAlias, final

import attrs
import tomli

from .._convert.strict import is_array, is_table
from ..errors import ManifestError, Problem

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32
"""Tables and arrays in each other, and parts of a dotted key (tomli takes quadratic time over those)."""
PATIENCE: Final = 5.0
"""Seconds within which all of a manifest must have come, where it is no file: who writes into a pipe may never end."""
_MAX_NUMBER: Final = 1000
"""Characters of a number or date; Python refuses to read integers of some thousand digits."""
_NO_MANIFEST: Final = "; this is a module: name the manifest, a TOML file that says what of it runs"
_INT64: Final = range(-(2**63), 2**63)

KeyPath: TypeAlias = tuple[str, ...]

_SPACE: Final = re.compile(r"[ \t]*+")
_GAP: Final = re.compile(r"(?:[ \t\n]|#[^\n]*+)*+")
_KEY: Final = re.compile(r"""[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+'""")
_TEXT: Final = re.compile(
    r'''"""(?:[^"\\]|\\.|"(?!""))*+""""{0,2}|"(?!"")(?:[^"\\\n]|\\.)*+"|""'''
    r"""|'''(?:[^']|'(?!''))*+''''{0,2}|'(?!'')[^'\n]*+'|''""",
    re.DOTALL,
)
_BARE: Final = re.compile(r"[^\n,\]}#]++")


@final
@attrs.frozen(eq=False, repr=False)
class Lines:
    """The line of every key and table of a TOML text, or of several that became one. Array elements are keys `"0"`, `"1"`, ..."""

    known: dict[KeyPath, int] = attrs.field(factory=dict[KeyPath, int])
    files: dict[KeyPath, str] = attrs.field(factory=dict[KeyPath, str])
    """Where a key was written if not in the manifest itself: another file, or what is no file and has line 0."""

    def line(self, at: KeyPath) -> int:
        """Return the 1-based line of a key, or of the nearest table around it that is written down; else 0."""
        return self.known.get(self._nearest(at), 0)

    def file(self, at: KeyPath) -> str:
        """Return the file that `line` counts in; empty if that is the manifest itself."""
        return self.files.get(self._nearest(at), "")

    def written(self, paths: Iterable[KeyPath], file: str) -> Lines:
        """Return lines in which keys, with all that is in them, were written by something that has no lines."""
        over = dict.fromkeys(paths, 0)
        kept = {at: line for at, line in self.known.items() if not is_below(at, over)}
        files = {at: name for at, name in self.files.items() if at in kept}
        return Lines({**kept, **over}, {**files, **dict.fromkeys(over, file)})

    def _nearest(self, at: KeyPath) -> KeyPath:
        while at and at not in self.known:
            at = at[:-1]
        return at


def is_below(at: KeyPath, paths: Collection[KeyPath]) -> bool:
    """Return whether a key is one of some paths, or in one of them."""
    return any(at[:length] in paths for length in range(1, len(at) + 1))


def read_toml(path: Path, *, file: str) -> tuple[dict[str, object], Lines]:
    """Read a TOML file.

    Args:
        path: Where it is.
        file: What to call it in problems.

    Raises:
        ManifestError: if it cannot be read, is larger than `MAX_BYTES`, or is not TOML; always with one problem.
    """
    try:
        data = _read(path)
    except IsADirectoryError:
        raise _error(file, 0, "is a directory; name the manifest in it") from None
    except FileNotFoundError:
        raise _error(file, 0, "no such file") from None
    except TimeoutError:
        raise _error(file, 0, f"has not come to its end within {PATIENCE:g} s: name a file") from None
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise _error(file, 0, f"cannot be read: {reason}") from exc
    return parse_toml(data, file=file)


def _read(path: Path) -> bytes:
    """Return what is there, up to more than the limit. Opening a FIFO, or reading it, waits for nobody for long."""
    until, data = time.monotonic() + PATIENCE, b""
    with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as source:
        while len(data) <= MAX_BYTES:
            part = source.read(MAX_BYTES + 1 - len(data))
            if part == b"":
                break
            data += part or b""
            left = until - time.monotonic()
            if part is None and (left <= 0 or not _poll(source.fileno(), left)):
                raise TimeoutError
    return data


def _poll(descriptor: int, seconds: float) -> bool:
    # Not `select`, which takes no descriptor beyond 1023.
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def parse_toml(data: bytes, *, file: str) -> tuple[dict[str, object], Lines]:
    """Parse the bytes of a TOML file; a UTF-8 byte order mark is skipped.

    Raises:
        ManifestError: as `read_toml`.
    """
    if len(data) > MAX_BYTES:
        raise _error(file, 0, f"is larger than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise _error(file, line, f"must be UTF-8, but byte {data[exc.start]:#04x} is not") from exc
    return parse_text(text, file=file)


def parse_text(text: str, *, file: str) -> tuple[dict[str, object], Lines]:
    """Parse a TOML text.

    Raises:
        ManifestError: as `read_toml`.
    """
    if (nul := text.find("\0")) >= 0:
        raise _error(file, text.count("\n", 0, nul) + 1, "holds a NUL character: this is no text file")
    lines = _Scanner(text.replace("\r\n", "\n"), file).scan()
    try:
        tables: dict[str, object] = tomli.loads(text)
    except tomli.TOMLDecodeError as exc:
        from .hints import syntax_hint  # noqa: PLC0415  most manifests are TOML, and every start would pay

        hint = _NO_MANIFEST if file.endswith(".py") else syntax_hint(text, exc.lineno, exc.msg)
        raise _error(file, exc.lineno, f"{exc.msg} (column {exc.colno}){hint}") from exc
    except (ValueError, RecursionError, OverflowError) as exc:  # pragma: no cover -- caught above, in tomli of today
        raise _error(file, 0, f"cannot be parsed: {exc}") from exc
    _refuse_wide_integers(tables, (), lines, file)
    return tables, lines


def parse_key(text: str) -> KeyPath | None:
    """Return the parts of a dotted key, as TOML writes it; None if it is not one or has too many parts."""
    try:
        scanner = _Scanner(text, "")
        parts = scanner.key()
    except (ManifestError, _Lost):
        return None
    return parts if scanner.at_end else None


def _error(file: str, line: int, text: str) -> ManifestError:
    return ManifestError([Problem(file, line, "", text)])


def _refuse_wide_integers(value: object, at: KeyPath, lines: Lines, file: str) -> None:
    """TOML's integers have 64 bits; tomli reads wider ones, some of which Python then refuses to print."""
    if is_table(value):
        for key, item in value.items():
            _refuse_wide_integers(item, (*at, key), lines, file)
    elif is_array(value):
        for index, item in enumerate(value):
            _refuse_wide_integers(item, (*at, str(index)), lines, file)
    elif isinstance(value, int) and value not in _INT64:
        raise _error(file, lines.line(at), "an integer must fit into 64 bits")


class _Lost(Exception):  # noqa: N818 -- a signal
    """The text is not TOML from here on."""


@final
class _Scanner:
    """Walks over a TOML text and notes where keys are."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._pos = 0
        self._line = 1
        self._counted = 0
        self._known: dict[KeyPath, int] = {}
        self._lengths: dict[KeyPath, int] = {}

    @property
    def at_end(self) -> bool:
        return self._pos >= len(self._text)

    def scan(self) -> Lines:
        table: KeyPath = ()
        try:
            while self._skip(_GAP) and not self.at_end:
                table = self._statement(table)
        except _Lost:
            pass
        return Lines(self._known)

    def key(self) -> KeyPath:
        parts = [self._key_part()]
        while self._skip(_SPACE) and self._take("."):
            self._skip(_SPACE)
            parts.append(self._key_part())
            self._check_depth(len(parts))
        return tuple(parts)

    def _statement(self, table: KeyPath) -> KeyPath:
        if self._take("[["):
            return self._header(array=True)
        if self._take("["):
            return self._header(array=False)
        self._pair(table)
        return table

    def _header(self, *, array: bool) -> KeyPath:
        line = self._here()
        self._skip(_SPACE)
        *parents, last = self.key()
        table: KeyPath = ()
        for part in parents:
            table = self._enter((*table, part), line)
        table = (*table, last)
        self._known[table] = line if not array else self._known.get(table, line)
        if array:
            index = self._lengths.get(table, 0)
            self._lengths[table] = index + 1
            table = (*table, str(index))
            self._known[table] = line
        self._check_depth(len(table))
        if not self._take("]]" if array else "]"):
            raise _Lost
        return table

    def _enter(self, table: KeyPath, line: int) -> KeyPath:
        """Note a table that a header or dotted key only passes through; of an array of tables, its last one."""
        self._known.setdefault(table, line)
        return (*table, str(self._lengths[table] - 1)) if table in self._lengths else table

    def _pair(self, table: KeyPath) -> None:
        line = self._here()
        *parents, last = self.key()
        for part in parents:
            table = self._enter((*table, part), line)
        at = (*table, last)
        self._known[at] = line
        if not self._take("="):
            raise _Lost
        self._skip(_SPACE)
        self._value(at, line)

    def _value(self, at: KeyPath, line: int) -> None:
        self._check_depth(len(at))
        if self._take("["):
            self._array(at, line)
        elif self._take("{"):
            self._inline_table(at)
        elif not self._match(_TEXT):
            self._bare()

    def _bare(self) -> None:
        if not (found := self._match(_BARE)):
            raise _Lost
        if len(found) > _MAX_NUMBER:
            raise _error(self._file, self._here(), "a number is too long")

    def _array(self, at: KeyPath, line: int) -> None:
        index = 0
        while self._skip(_GAP) and not self._take("]"):
            item = (*at, str(index))
            # An element on the line of its array needs no entry of its own: `Lines.line` finds the array's.
            if (here := self._here()) != line:
                self._known[item] = here
            self._value(item, here)
            self._separator("]")
            index += 1

    def _inline_table(self, at: KeyPath) -> None:
        while self._skip(_GAP) and not self._take("}"):
            self._pair(at)
            self._separator("}")

    def _separator(self, end: str) -> None:
        self._skip(_GAP)
        if not self._take(",") and not self._text.startswith(end, self._pos):
            raise _Lost

    def _key_part(self) -> str:
        found = self._match(_KEY)
        if not found:
            raise _Lost
        if found[0] not in "\"'":
            return found
        return _unescape(found) if "\\" in found else found[1:-1]

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _error(self._file, self._here(), f"is nested more than {MAX_DEPTH} deep")

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._pos)
        self._counted = self._pos
        return self._line

    def _take(self, word: str) -> bool:
        if not self._text.startswith(word, self._pos):
            return False
        self._pos += len(word)
        return True

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._pos)
        if not found:
            return ""
        self._pos = found.end()
        return found[0]

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Skip what may be missing; always true, so that it can stand first in a condition."""
        self._match(pattern)
        return True


def _unescape(quoted: str) -> str:
    try:
        value: str = tomli.loads(f"key = {quoted}")["key"]
    except ValueError:
        raise _Lost from None
    return value
