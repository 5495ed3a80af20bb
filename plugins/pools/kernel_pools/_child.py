"""What happens in a process of a pool. Imported there, with nothing that only the service needs."""

from __future__ import annotations

import fcntl
import functools
import importlib
import logging
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import parent_process
from types import FrameType
from typing import Any, Final, TypeAlias, cast, final

import attrs

from ._crossing import read
from ._remaining import UNTIL

Record: TypeAlias = tuple[str, int, str]
"""Name of a logger, level and text."""
Order: TypeAlias = tuple[str, str, Sequence[object], Mapping[str, object], float]
"""A worker that was made here, the method, what that is given by position and by name, and until when, in
`time.monotonic()`."""
Making: TypeAlias = tuple[str, Callable[..., object], bool, Mapping[str, object]]
"""A worker, its class or function, whether it is a function, and what its constructor, or each call, is given."""

KEPT: Final = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV"})
_KEPT_PREFIXES: Final = ("LC_", "PYTHON")
_MAX_RECORDS: Final = 1000
"""Log records of one call that reach the service; the first ones."""


_made: Final[dict[str, object]] = {}
"""`worker/name` -> its object, or its function; of a child process: the service imports it and leaves it alone."""


@final
class _Collector(logging.Handler):
    """Keeps what is logged during a call."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.records) < _MAX_RECORDS:
            self.records.append((record.name, record.levelno, record.getMessage()))


@final
@attrs.frozen(kw_only=True, repr=False)
class Answer:
    """What comes of a call."""

    result: object = None
    error: BaseException | None = None
    trace: str = ""
    """Where the error was raised, as text: a traceback stays in its process."""
    unwritable: str = ""
    """Why neither result nor error could be sent."""
    records: tuple[Record, ...] = ()


def begin(kept: tuple[str, ...], level: int) -> None:
    """Make a process fit for calls: no secrets in its environment, no signals but its parent's, no life after it."""
    for name in [*os.environ]:
        if name not in KEPT and name not in kept and not name.startswith(_KEPT_PREFIXES):
            del os.environ[name]
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal or a service manager sends it to all
        signal.signal(number, _leave_it_to_the_parent)
    logging.getLogger().setLevel(level)
    keep_pipes()
    die_with_parent()


def _leave_it_to_the_parent(number: int, frame: FrameType | None) -> None:
    """Do nothing. What is ignored outright would be ignored by every program that a handler starts, too."""


def keep_pipes() -> None:
    """Have no program that a handler starts inherit what was passed to this process.

    The parent sees that this process has died when nobody has the other end of its pipes any more: a program that goes on
    with one of them would hide it.
    """
    for name in os.listdir("/dev/fd"):
        if int(name) > sys.stderr.fileno():
            with suppress(OSError):  # that of the folder itself, which is closed by now
                os.set_inheritable(int(name), False)  # noqa: FBT003


def die_with_parent() -> None:
    """Have the system end this process when its parent is gone, whatever it does then, without Python's help.

    The pipe that the parent holds open says so by a signal. `PR_SET_PDEATHSIG` would follow the thread that started
    the process, and that one ends earlier.
    """
    parent = parent_process()
    if parent is None or sys.platform != "linux":
        return
    pipe = parent.sentinel
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, 10, signal.SIGKILL)  # F_SETSIG, which Python does not name; without it SIGIO comes
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)


def stand_by() -> bytes:
    """Answer: the process has started."""
    return _answered(lambda: None)


def load(module: str) -> bytes:
    """Import a worker's module."""

    def imported() -> None:
        importlib.import_module(module)

    return _answered(imported)


def make(making: bytes) -> bytes:
    """Make the object of a worker, in place of one that was made before of it."""

    def made() -> None:
        worker, use, is_function, arguments = cast("Making", read(making))
        _made[worker] = functools.partial(use, **arguments) if is_function else use(**arguments)

    return _answered(made)


def perform(order: bytes) -> bytes:
    """Call a handler."""

    def called() -> object:
        worker, method, args, kwargs, until = cast("Order", pickle.loads(order))
        UNTIL.set(until)
        call: Callable[..., object] = getattr(_made[worker], method) if method else cast("Any", _made[worker])
        return call(*args, **kwargs)

    return _answered(called)


def _answered(call: Callable[[], object]) -> bytes:
    """Never raise what a call raises, so that what goes wrong around it can be told from that."""
    collector = _Collector()
    logging.getLogger().addHandler(collector)
    try:
        answer = _answer(call)
    finally:
        logging.getLogger().removeHandler(collector)
    return _written(attrs.evolve(answer, records=tuple(collector.records)))


def _answer(call: Callable[[], object]) -> Answer:
    try:
        return Answer(result=call())
    except BaseException as error:  # noqa: ASYNC103, BLE001  whatever it is, it is the delivery's; there is no loop here
        return Answer(error=error, trace=traceback.format_exc())


def _written(answer: Answer) -> bytes:
    try:
        data = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
        pickle.loads(data)  # an exception may be written and not be read, and would look as if the process had died
    except BaseException as error:  # noqa: ASYNC103, BLE001  the user's classes; there is no loop here
        told = answer.error if answer.error is not None else error
        text = f"{type(told).__name__}: {told}"
        return pickle.dumps(attrs.evolve(answer, result=None, error=None, unwritable=text), pickle.HIGHEST_PROTOCOL)
    return data
