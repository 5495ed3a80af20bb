"""Standard output and standard error, as a command line needs them: a closed pipe or a full disk breaks nothing.

What is asked for goes to standard output, everything about it to standard error.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO, final

import attrs
import click
from typing_extensions import override

from .._core.fields import ByFields

if TYPE_CHECKING:
    from typing_extensions import Buffer, TypeIs

_NOBODY_READS: Final = frozenset({errno.EPIPE, errno.EIO})
"""A closed pipe, and a terminal that is gone."""
_DUMB: Final = frozenset({"", "dumb", "unknown"})


@final
class OutputError(Exception):
    """Standard output did not take what was asked for, and not because its reader had enough."""


@final
@attrs.frozen(eq=False, repr=False)
class Look(ByFields):
    """What a stream can show."""

    colour: bool
    live: bool
    """Whether lines that are written can be written over."""


def look_of(stream: TextIO | None, environ: Mapping[str, str] = os.environ) -> Look:
    """Return what a stream can show. `NO_COLOR` and `FORCE_COLOR` are obeyed if they are not empty, in this order."""
    terminal = stream is not None and not stream.closed and stream.isatty()
    capable = terminal and environ.get("TERM", "") not in _DUMB
    colour = not environ.get("NO_COLOR") and (capable or bool(environ.get("FORCE_COLOR")))
    return Look(colour=colour, live=capable)


def say(text: str) -> None:
    """Write lines to standard output. A reader who has gone away has what it wanted.

    Raises:
        OutputError: if they cannot be written for any other reason.
    """
    try:
        click.echo(_encodable(text, sys.stdout), color=look_of(sys.stdout).colour)
    except BrokenPipeError:
        _discard(sys.stdout)
    except OSError as error:
        _discard(sys.stdout)
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


@contextmanager
def unheard_is_lost() -> Generator[None]:
    """Let what is written to a stream that nobody reads any more be lost, while inside.

    Else a `print` in a handler raises, and the message that it handles is taken for one that cannot be handled:
    `kernel run | head -1`. Streams that are no files are left as they are.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_losing(stream) for stream in before)
    try:
        yield
    finally:
        flush()
        sys.stdout, sys.stderr = before


def _losing(stream: TextIO) -> TextIO:
    if not _is_file(stream):
        return stream
    try:
        stream.flush()
        raw = _Losing(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError):
        return stream
    losing: TextIO = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    return losing


def _is_file(stream: TextIO | None) -> TypeIs[io.TextIOWrapper[io.BufferedWriter]]:
    return isinstance(stream, io.TextIOWrapper)  # it is None if it was closed before the start


@final
class _Losing(io.FileIO):
    """A file that goes on taking what nobody reads."""

    @override
    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _NOBODY_READS:
                raise
            _discard(self)
            return memoryview(data).nbytes


def complain(text: str) -> None:
    """Write lines to standard error; they are lost if it takes none."""
    try:
        click.echo(_encodable(text, sys.stderr), err=True, color=look_of(sys.stderr).colour)
    except OSError:
        _discard(sys.stderr)


def paint(**style: object) -> Callable[[str], str]:
    """Return what puts a style of `click.style` on a text; it is taken off again where there are no colours."""
    return lambda text: click.style(text, **style)  # type: ignore[arg-type]  # its keywords have types of their own


def flush() -> None:
    """Write out what is buffered, as far as it can be."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # pyright: ignore[reportUnnecessaryComparison]  closed before the start
                stream.flush()
        except (OSError, ValueError):
            pass


def _encodable(text: str, stream: TextIO | None) -> str:
    # A file name that is no UTF-8 must not turn a problem with the file into one with the output.
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _discard(stream: TextIO | io.FileIO) -> None:
    """Send what is still buffered, and everything after it, nowhere: else the interpreter complains at its end."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except OSError:
        pass
