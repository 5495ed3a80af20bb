"""What is said in other ways than with the kernel's logger, and belongs into the log all the same."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, TextIO, final

from typing_extensions import override

from .levels import NUMBERS, Levels
from .library import lean
from .log import Log
from .render import Record, printed

_GIVEN: Final = "_kernel_fields"
"""The attribute of a record of `logging` that holds what structlog was given."""
_STANDARD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", _GIVEN})
"""What every record of `logging` has; all else was given as `extra`."""
_OURS: Final = frozenset({"event", "logger", "level", "timestamp", "service"})
"""What `extra` does not replace."""


@contextmanager
def capture(log: Log) -> Generator[None]:
    """Let everything that is said in other ways go into the log, while inside.

    That is what is logged with `logging`, and with structlog if nobody has configured it; warnings; and exceptions
    that nobody can catch: of threads, of destructors, of the process. Handlers of `logging` that write to standard
    error are left out, since they would write everything twice; others get what they got.
    """
    levels = log.settings.levels
    with _logging(_Captured(log), levels), _structlog(levels), _last_words(log, levels):
        yield


# --- logging ------------------------------------------------------------------------------------------------------


@contextmanager
def _logging(captured: logging.Handler, levels: Levels) -> Generator[None]:
    root = logging.getLogger()
    handlers = list(root.handlers)
    as_before = _AsBefore(root.level)
    kept = [handler for handler in handlers if not _writes_to_standard_error(handler)]
    for handler in kept:
        handler.addFilter(as_before)
    root.handlers[:] = [*kept, captured]
    lowered = _Lowered({"": root.level})
    try:
        with levels.applied(lambda: lowered.to(levels)):
            yield
    finally:
        lowered.undo()
        root.handlers[:] = handlers
        for handler in kept:
            handler.removeFilter(as_before)


@final
class _Lowered:
    """The levels of loggers that let through what is asked for. What is too much, `_Captured` drops."""

    def __init__(self, before: dict[str, int]) -> None:
        self._before = before
        """That of each logger that was lowered."""

    def to(self, levels: Levels) -> None:
        for name, level in (("", levels.lowest), *((name, NUMBERS[level]) for name, level in levels.named.items())):
            before = self._before.setdefault(name, logging.getLogger(name).level)
            logging.getLogger(name).setLevel(min(before, level))

    def undo(self) -> None:
        for name, level in self._before.items():
            logging.getLogger(name).setLevel(level)


def _writes_to_standard_error(handler: logging.Handler) -> bool:
    return type(handler) is logging.StreamHandler and vars(handler).get("stream") in {sys.stderr, sys.__stderr__}


@final
class _AsBefore(logging.Filter):
    """Lets pass what passed before the level of the root logger was lowered."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        logger = logging.getLogger(record.name)
        while logger.parent is not None and not logger.level:
            logger = logger.parent
        return logger.parent is not None or record.levelno >= self.level


@final
class _Captured(logging.Handler):
    """Writes records of `logging`, with the logger that they are from and what they were given as `extra`."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    @override
    def emit(self, record: logging.LogRecord) -> None:
        level = _level(record.levelno)
        fields: dict[str, object] | None = getattr(record, _GIVEN, None)
        file = record.pathname if fields is None else ""  # that of structlog
        if NUMBERS[level] < self._log.settings.levels.of_logger(record.name, file):
            return
        if fields is None:
            fields = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        given = {f"extra_{key}" if key in _OURS else key: value for key, value in fields.items()}
        stack = {"stack": record.stack_info} if record.stack_info else {}
        source = "component" if "/" in record.name else "logger"  # what a worker was given is called like it
        ours = {"event": _message(record), source: record.name, "level": level}
        self._log.write({**ours, **given, **stack, "exc_info": record.exc_info})


def _level(number: int) -> str:
    return next((name for name in reversed(tuple(NUMBERS)) if NUMBERS[name] <= number), "debug")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  arguments that do not fit, or cannot be printed, must not break who logs them
        return f"{printed(record.msg)} (its arguments cannot be printed)"


# --- structlog ----------------------------------------------------------------------------------------------------


@contextmanager
def _structlog(levels: Levels) -> Generator[None]:
    """Let structlog log by `logging`, under the name of the module that logs; whoever has configured it knows better."""
    with lean():
        import structlog  # noqa: PLC0415  it costs more than the rest of `kernel check`

    if not _has_defaults():
        yield
        return
    cls = logging.getLoggerClass()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _to_logging],
        wrapper_class=levels.logger_class(),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.reset_defaults()
        logging.setLoggerClass(cls)  # which structlog has set


def _has_defaults() -> bool:
    """Return whether structlog does what it does by itself; it also calls itself configured after `capture_logs`."""
    import structlog  # noqa: PLC0415  as above

    before = structlog.get_config()
    structlog.reset_defaults()
    if structlog.get_config() == before:
        return True
    structlog.configure(**before)
    return False


def _to_logging(_logger: object, _name: str, fields: Record) -> Record:
    # Not as plain `extra`, where `name` and other words are not allowed.
    known = {key: fields.pop(key) for key in ("exc_info", "stack_info", "stacklevel") if key in fields}
    return {"msg": fields.pop("event", ""), "extra": {_GIVEN: fields}, **known}


# --- Python itself ------------------------------------------------------------------------------------------------


@contextmanager
def _last_words(log: Log, levels: Levels) -> Generator[None]:
    """Write what Python itself would write to standard error, each as one record."""

    def show_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None:
            before[0](message, category, filename, lineno, file, line)
        elif NUMBERS["warning"] >= levels.of_logger("py.warnings", ""):
            where = {"category": category.__name__, "where": f"{filename}:{lineno}"}
            log.write({"event": printed(message), "logger": "py.warnings", "level": "warning", **where})

    def say(event: str, error: BaseException | None, **fields: object) -> None:
        log.write({"event": event, "logger": "python", "level": "error", **fields, "exc_info": error})

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if not issubclass(args.exc_type, SystemExit):
            say("an exception ended a thread", args.exc_value, thread=args.thread.name if args.thread else "")

    def of_nobody(args: sys.UnraisableHookArgs) -> None:
        say(args.err_msg or "an exception was ignored", args.exc_value, source=printed(args.object))

    def of_process(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        say("an exception was not caught", error)

    before = warnings.showwarning, threading.excepthook, sys.unraisablehook, sys.excepthook
    warnings.showwarning, threading.excepthook, sys.unraisablehook, sys.excepthook = (
        show_warning, of_thread, of_nobody, of_process
    )  # fmt: skip
    try:
        yield
    finally:
        warnings.showwarning, threading.excepthook, sys.unraisablehook, sys.excepthook = before
