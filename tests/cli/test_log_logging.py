"""What is logged with the standard library reaches the log of the kernel."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from kernel._cli.log import LogSettings, capture_logging, open_log

from ._logs import UnprintableError, fail, written


@pytest.fixture
def root() -> Any:
    """The root logger; a test that leaves it changed would change the others."""
    logger = logging.getLogger()
    before = logger.level, list(logger.handlers)
    yield logger
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]


def captured(write: Callable[[logging.Logger], object], **settings: Any) -> str:
    def capture(log: Any) -> None:
        with capture_logging(log):
            handlers = logging.getLogger().handlers
            del handlers[:-1]  # pytest's own raise what a record raises
            write(logging.getLogger("shop.orders"))

    return written(capture, **settings)


@pytest.mark.usefixtures("root")
def test_records_of_logging_reach_the_log_with_the_name_of_their_logger() -> None:
    def write(logger: logging.Logger) -> None:
        logger.info("orders: %s", "2 fulfilled")

    assert captured(write).endswith("info    shop.orders: orders: 2 fulfilled\n")
    assert json.loads(captured(write, as_json=True))["logger"] == "shop.orders"


@pytest.mark.parametrize(
    ("number", "level"),
    [(5, "debug"), (10, "debug"), (15, "debug"), (20, "info"), (30, "warning"), (40, "error"), (50, "error")],
)
def test_levels_of_logging_are_those_of_the_log(root: Any, number: int, level: str) -> None:
    root.setLevel(1)
    stream = io.StringIO()
    log = open_log(LogSettings(stream=stream, level="debug"))
    with capture_logging(log):
        root.handlers[-1].setLevel(1)
        logging.getLogger("shop").log(number, "text")

    assert f" {level:7} shop: text\n" in stream.getvalue()


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
@pytest.mark.usefixtures("root")
def test_logging_below_the_level_of_the_log_is_not_written(level: str) -> None:
    def write(logger: logging.Logger) -> None:
        for number in (10, 20, 30, 40):
            logger.log(number, "text")

    assert captured(write, level=level).count("\n") == 4 - ["debug", "info", "warning", "error"].index(level)


@pytest.mark.usefixtures("root")
def test_an_exception_of_logging_has_its_traceback() -> None:
    def write(logger: logging.Logger) -> None:
        try:
            fail()
        except ValueError:
            logger.exception("x")

    assert "raise ValueError" in captured(write)


@pytest.mark.usefixtures("root")
def test_per_cent_signs_and_arguments_that_do_not_fit_break_nothing() -> None:
    def write(logger: logging.Logger) -> None:
        logger.info("100 %")
        logger.info("%d", "no number")  # noqa: PLE1206, RUF100  the mistake under test
        logger.info(UnprintableError(), 1)

    lines = captured(write).splitlines()

    assert lines[0].endswith("shop.orders: 100 %")
    assert lines[1].endswith("shop.orders: %d (its arguments cannot be printed)")
    assert lines[2].endswith("shop.orders: <unprintable UnprintableError> (its arguments cannot be printed)")


def test_logging_is_as_it_was_afterwards_even_if_the_run_raised(root: Any) -> None:
    before = root.level, list(root.handlers)
    log = open_log(LogSettings(stream=io.StringIO()))
    with pytest.raises(ValueError, match="why"), capture_logging(log):
        fail()

    assert (root.level, root.handlers) == before


def test_a_logger_that_is_set_up_already_keeps_its_level_and_handlers(root: Any) -> None:
    own = io.StringIO()
    root.addHandler(logging.StreamHandler(own))
    root.setLevel(logging.DEBUG)
    stream = io.StringIO()
    with capture_logging(open_log(LogSettings(stream=stream))):
        logging.getLogger("shop").debug("detail")

    assert own.getvalue() == "detail\n"
    assert not stream.getvalue()
