"""`kernel check` warns where a worker may hold a delivery for longer than the broker waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel import discover, load, resolve

MANIFEST = """
[drivers.rabbit]
plugin = "amqp"
{driver}
[dispatchers.orders]
plugin = "consumer"
driver = "rabbit"
protocol = "json"
queue = "orders"
{queue}
[dispatchers.orders.options]
type = "classic"
[workers.clerk]
use = "held_clerk:clerk"
dispatcher = "orders"
{worker}
"""


def warned(folder: Path, *, driver: str = "", queue: str = "", worker: str = "") -> list[tuple[str, str]]:
    (folder / "held_clerk.py").write_text("async def clerk(order: object) -> None: ...\n")
    (folder / "kernel.toml").write_text(MANIFEST.format(driver=driver, queue=queue, worker=worker))
    plan = resolve(load(folder / "kernel.toml", environ={}), discover())
    return [(warning.path, warning.text) for warning in plan.warnings]


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"worker": "timeout = 1799.0"},
        {"worker": "timeout = 60.0\nkill_switch = {pause = 1700.0}"},
        {"worker": "retry = {backoff_max = 3600.0}"},
        {"worker": "timeout = 7200.0", "driver": "consumer_timeout = 0"},
        {"worker": "timeout = 7200.0", "driver": "consumer_timeout = 10000.0"},
    ],
)
def test_what_is_settled_in_time_is_not_warned_of(tmp_path: Path, tables: dict[str, str]) -> None:
    assert warned(tmp_path, **tables) == []


@pytest.mark.parametrize(
    ("tables", "path", "seconds", "limit"),
    [
        ({"worker": "timeout = 1800.0"}, "[workers.clerk].timeout", 1800, 1800),
        ({"worker": "kill_switch = {pause = 1200.0}"}, "[workers.clerk.kill_switch].pause", 1800, 1800),
        ({"driver": "consumer_timeout = 60.0"}, "[workers.clerk].timeout", 600, 60),
        (
            {"queue": 'partition_by = "subject"', "worker": "timeout = 1.0\nretry = {backoff_max = 3600.0}"},
            "[workers.clerk.retry].backoff_max",
            3600,
            1800,
        ),
    ],
)
def test_what_may_be_held_for_longer_is_warned_of(
    tmp_path: Path, tables: dict[str, str], path: str, seconds: int, limit: int
) -> None:
    [(where, text)] = warned(tmp_path, **tables)

    assert where == path
    assert f"may be held for {seconds} s, and driver/rabbit takes it for lost after {limit} s" in text
