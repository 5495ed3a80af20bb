"""Facts about what a service imports for its log."""

from __future__ import annotations

import subprocess
import sys

import pytest

RUN = """
import sys
{first}
from kernel._log.levels import Levels
from kernel._log.log import Log, LogSettings
from kernel._log.sinks import Stream
Log(LogSettings(sink=Stream(), levels=Levels())).logger().info("tea")
{then}
print(*sys.modules)
"""


def imported(first: str = "", then: str = "") -> set[str]:
    code = RUN.format(first=first, then=then)
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("name", ["rich", "better_exceptions", "greenlet"])
def test_what_only_draws_at_a_terminal_is_not_imported(name: str) -> None:
    assert {"structlog"} <= imported()
    assert name not in imported()


def test_it_can_be_imported_afterwards() -> None:
    assert {"rich.console", "structlog"} <= imported(then="import rich.console")


def test_what_a_program_has_imported_before_stays_whole() -> None:
    whole = imported(first="import structlog", then="assert structlog.dev.rich is not None")

    assert {"rich", "structlog"} <= whole
