"""What is said without the kernel's logger reaches the log: by `logging`, structlog, warnings, and exceptions of nobody."""

from __future__ import annotations

import gc
import io
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from kernel._log.capture import capture

from ._logs import UnprintableError, captured, fail, log_to, records


@pytest.fixture
def root() -> Any:
    """The root logger; a test that leaves it changed would change the others."""
    logger = logging.getLogger()
    before = logger.level, list(logger.handlers)
    yield logger
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]


def logged(write: Callable[[logging.Logger], object], **settings: Any) -> str:
    return captured(lambda: write(logging.getLogger("shop.orders")), **settings)


def fails_in(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError


# --- logging ----------------------------------------------------------------------------------------------------------


def test_records_of_logging_reach_the_log_with_the_name_of_their_logger() -> None:
    def write(logger: logging.Logger) -> None:
        logger.info("orders: %s", "2 fulfilled")

    assert logged(write).endswith("info    shop.orders: orders: 2 fulfilled\n")
    assert records(logged(write, as_json=True))[0]["logger"] == "shop.orders"


@pytest.mark.parametrize(
    ("number", "level"),
    [(5, "debug"), (10, "debug"), (15, "debug"), (20, "info"), (30, "warning"), (40, "error"), (50, "error")],
)
def test_levels_of_logging_are_those_of_the_log(root: Any, number: int, level: str) -> None:
    root.setLevel(1)
    stream = io.StringIO()
    with capture(log_to(stream, level="debug")):
        logging.getLogger("shop").log(number, "text")

    assert f" {level:7} shop: text\n" in stream.getvalue()


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_logging_below_the_level_of_the_log_is_not_written(level: str) -> None:
    def write(logger: logging.Logger) -> None:
        for number in (10, 20, 30, 40):
            logger.log(number, "text")

    assert logged(write, level=level).count("\n") == 4 - ["debug", "info", "warning", "error"].index(level)


def test_an_exception_of_logging_has_its_traceback() -> None:
    def write(logger: logging.Logger) -> None:
        try:
            fail()
        except ValueError:
            logger.exception("x")

    assert "raise ValueError" in logged(write)


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_given_as_extra_is_kept_and_cannot_pass_for_anything_else(as_json: bool) -> None:
    extra = {"order": 7, "text": "a b", "event": "not the event", "level": 3}

    text = logged(lambda logger: logger.info("fulfilled", extra=extra), as_json=as_json)

    if as_json:
        [record] = records(text)
        assert (record["event"], record["level"]) == ("fulfilled", "info")
        assert (record["order"], record["text"], record["extra_event"], record["extra_level"]) == (
            7,
            "a b",
            "not the event",
            3,
        )
    else:
        assert text.endswith(
            'info    shop.orders: fulfilled order=7 text="a b" extra_event="not the event" extra_level=3\n'
        )


def test_the_logger_that_a_worker_was_given_is_its_component() -> None:
    [record] = records(captured(lambda: logging.getLogger("worker/shop").info("x"), as_json=True))

    assert (record["component"], "logger" in record) == ("worker/shop", False)


def test_the_stack_is_kept_if_it_is_asked_for() -> None:
    [record] = records(logged(lambda logger: logger.info("x", stack_info=True), as_json=True))

    assert "test_the_stack_is_kept" in record["stack"]


def test_per_cent_signs_and_arguments_that_do_not_fit_break_nothing() -> None:
    def write(logger: logging.Logger) -> None:
        logger.info("100 %")
        logger.info("%d", "no number")  # noqa: PLE1206, RUF100  the mistake under test
        logger.info(UnprintableError(), 1)

    lines = logged(write).splitlines()

    assert lines[0].endswith("shop.orders: 100 %")
    assert lines[1].endswith("shop.orders: %d (its arguments cannot be printed)")
    assert lines[2].endswith("shop.orders: <unprintable UnprintableError> (its arguments cannot be printed)")


# --- other handlers ---------------------------------------------------------------------------------------------------


def test_logging_is_as_it_was_afterwards_even_if_the_run_raised(root: Any) -> None:
    def state() -> list[object]:
        hooks = [warnings.showwarning, threading.excepthook, sys.unraisablehook, sys.excepthook]
        return [root.level, list(root.handlers), structlog.get_config(), logging.getLoggerClass(), *hooks]

    before = state()
    with pytest.raises(ValueError, match="why"), capture(log_to(io.StringIO(), levels={"httpx": "debug"})):
        fail()

    assert state() == before
    assert logging.getLogger("httpx").level == logging.NOTSET


@pytest.mark.parametrize(("level", "heard"), [(logging.DEBUG, "detail\ntold\n"), (logging.WARNING, "told\n")])
def test_another_handler_goes_on_to_get_what_it_got(root: Any, level: int, heard: str) -> None:
    own = io.StringIO()
    root.addHandler(logging.StreamHandler(own))
    root.setLevel(level)
    stream = io.StringIO()
    with capture(log_to(stream, level="debug")):
        logging.getLogger("shop").debug("detail")
        logging.getLogger("shop").warning("told")

    assert own.getvalue() == heard
    assert stream.getvalue().count("\n") == 2


def test_nothing_is_written_twice_after_basic_config(root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's module that calls it would write each record to standard error once more, and not as JSON."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    root.handlers.clear()
    logging.basicConfig(level=logging.INFO)
    with capture(log_to(io.StringIO())):
        logging.getLogger("shop").warning("once")

    assert not stderr.getvalue()
    assert len(root.handlers) == 1


# --- structlog --------------------------------------------------------------------------------------------------------


def test_structlog_that_nobody_has_configured_goes_the_same_way() -> None:
    logger = structlog.get_logger()

    text = captured(lambda: logger.bind(order=7).warning("fulfilled %s", "now", name="tea"), as_json=True)

    [record] = records(text)
    assert record.pop("timestamp")
    assert record == {
        "event": "fulfilled now",
        "level": "warning",
        "logger": __name__,
        "order": 7,
        "name": "tea",
    }


def test_structlog_writes_exceptions_stacks_and_what_is_bound_to_the_context() -> None:
    def say() -> None:
        with structlog.contextvars.bound_contextvars(request="r1"):
            try:
                fail()
            except ValueError:
                structlog.get_logger().exception("x", stack_info=True)

    [record] = records(captured(say, as_json=True))

    assert record["request"] == "r1"
    assert "raise ValueError" in record["traceback"]
    assert "test_structlog_writes" in record["stack"]


def test_structlog_that_is_configured_is_left_alone() -> None:
    stream = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(stream))
    try:
        assert not captured(lambda: structlog.get_logger().info("theirs"))
    finally:
        structlog.reset_defaults()

    assert "theirs" in stream.getvalue()


def test_structlog_that_a_test_has_looked_at_is_as_it_was() -> None:
    """Its `capture_logs` puts back what was there, and calls it configured from then on."""
    structlog.reset_defaults()
    with structlog.testing.capture_logs():
        pass

    assert "ours" in captured(lambda: structlog.get_logger().info("ours"))


# --- what Python itself would write -----------------------------------------------------------------------------------


def test_a_warning_is_a_record() -> None:
    def say() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show  # what catch_warnings has put back
            warnings.warn("old\nstyle", DeprecationWarning, stacklevel=1)

    show = None

    def remember() -> None:
        nonlocal show
        show = warnings.showwarning
        say()

    [record] = records(captured(remember, as_json=True))

    assert (record["event"], record["category"], record["level"]) == ("old\nstyle", "DeprecationWarning", "warning")
    assert "test_log_logging.py:" in record["where"]


def test_an_exception_of_a_thread_is_a_record() -> None:
    def say() -> None:
        thread = threading.Thread(target=fail, name="counter")
        thread.start()
        thread.join()

    [record] = records(captured(say, as_json=True))

    assert (record["level"], record["thread"]) == ("error", "counter")
    assert "raise ValueError" in record["traceback"]


class Broken:
    def __del__(self) -> None:
        fail()


def test_an_exception_that_nobody_can_catch_is_a_record() -> None:
    def say() -> None:
        Broken()
        gc.collect()

    [record] = records(captured(say, as_json=True))

    assert record["level"] == "error"
    assert "Broken.__del__" in record["source"]
    assert "raise ValueError" in record["traceback"]


def test_an_exception_that_ends_the_process_is_a_record() -> None:
    error = fails_in(fail)

    [record] = records(captured(lambda: sys.excepthook(type(error), error, error.__traceback__), as_json=True))

    assert "raise ValueError" in record["traceback"]
    assert "".join(traceback.format_exception(error)) == record["traceback"]
