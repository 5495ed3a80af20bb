"""What every record says, and levels that change while the service runs."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
import structlog

from kernel._core.broker import CURRENT
from kernel._core.envelope import NO_HEADERS, Envelope
from kernel._core.events import DeliveryDone, EventHub
from kernel._core.spans import carry
from kernel._log.capture import capture
from kernel._log.events import log_events

from ._logs import captured, log_to, record, records, written

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Handled:
    worker = "worker/w"
    along = NO_HEADERS

    def __init__(self, **headers: object) -> None:
        self.envelope = Envelope(subject="a.b", id="d1", headers=headers)
        self.attempt = 2

    @property
    def delivery(self) -> Any:
        return self


def in_delivery(**headers: object) -> dict[str, Any]:
    token = CURRENT.set(Handled(**headers))
    try:
        return record(lambda log: log.info("x"))
    finally:
        CURRENT.reset(token)


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_every_record_says_whose_service_it_is(as_json: bool) -> None:
    settings = {"service": "shop", "as_json": as_json}
    said = [
        written(lambda log: log.bind(component="driver/db").info("x"), **settings),
        captured(lambda: logging.getLogger("orders").info("x"), **settings),
        captured(lambda: logging.getLogger("orders").info("x", extra={"service": "other"}), **settings),
    ]

    assert all(('"service": "shop"' if as_json else " shop ") in line for line in said)


def test_a_record_of_a_delivery_has_its_id_attempt_and_trace() -> None:
    made = in_delivery(traceparent=f"00-{TRACE}-b7ad6b7169203331-01")

    assert (made["worker"], made["delivery"], made["attempt"], made["trace"]) == ("worker/w", "d1", 2, TRACE)


@pytest.mark.parametrize("parent", [None, 7, "", "00", f"00-{TRACE}", "00-short-b7ad6b7169203331-01"])
def test_what_is_no_trace_is_left_out(parent: object) -> None:
    assert "trace" not in in_delivery(traceparent=parent)


def test_a_trace_that_began_here_is_said_of_a_delivery_and_of_a_request() -> None:
    before = carry({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    try:
        made = in_delivery(traceparent=f"00-{'1' * 32}-b7ad6b7169203331-01"), record(lambda log: log.info("x"))
    finally:
        carry(before)

    assert [one["trace"] for one in made] == [TRACE, TRACE]


def test_a_level_changes_what_is_heard_from_then_on() -> None:
    stream = io.StringIO()
    log = log_to(stream)
    logger, bound = log.logger(), log.logger().bind(component="driver/db")
    for levels in ({}, {"": "debug"}, {"": "error"}, {"driver/db": "debug"}):
        for name, level in levels.items():
            log.settings.levels.change(level, name=name)
        logger.debug("kernel")
        bound.debug("db")

    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == ["kernel", "db", "db"]


def test_a_level_changes_what_is_heard_of_logging_and_structlog(monkeypatch: pytest.MonkeyPatch) -> None:
    structlog.reset_defaults()
    stream = io.StringIO()
    log = log_to(stream, as_json=True)
    before = logging.getLogger().level
    with capture(log):
        logging.getLogger().handlers[:] = logging.getLogger().handlers[-1:]
        theirs = structlog.get_logger()
        for level in ("info", "debug", "info"):
            log.settings.levels.change(level)
            logging.getLogger("shop").debug("logging")
            theirs.debug("structlog")

    assert [one["event"] for one in records(stream.getvalue())] == ["logging", "structlog"]
    assert logging.getLogger().level == before


def test_deliveries_that_go_well_are_made_only_while_somebody_asks_for_them() -> None:
    hub, log = EventHub(), log_to(io.StringIO())
    log_events(hub, log)
    made = []
    for level in ("info", "debug", "info"):
        log.settings.levels.change(level)
        made.append(bool(hub.hears(DeliveryDone)))

    assert made == [False, True, False]


def test_a_level_that_there_is_not_changes_nothing() -> None:
    log = log_to(io.StringIO())
    with pytest.raises(KeyError):
        log.settings.levels.change("loud")

    assert log.settings.levels.level == "info"
