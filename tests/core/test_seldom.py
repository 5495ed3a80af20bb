"""Warnings that a stranger can cause."""

from __future__ import annotations

import attrs
import structlog
import trio
import trio.testing

from kernel._core.seldom import PERIOD
from kernel.abc import Seldom
from kernel.testing import fake_context


async def test_what_strangers_cause_is_told_once_in_a_while(autojump_clock: trio.testing.MockClock) -> None:
    with structlog.testing.capture_logs() as logs:
        seldom = Seldom(attrs.evolve(fake_context("dispatcher/desk"), log=structlog.get_logger()))
        for reason in ("a", "a", "b", "a"):
            seldom.warn("malformed", reason=reason)
        await trio.sleep(PERIOD)
        seldom.warn("malformed", reason="a")

    told = [(line["reason"], line.get("not_told")) for line in logs]
    assert told == [("a", None), ("b", None), ("a", 2)]
    assert {line["log_level"] for line in logs} == {"warning"}
