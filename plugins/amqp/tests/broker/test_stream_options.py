"""What a stream may be asked for, what is refused, and what the broker is told."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from kernel_amqp import AmqpOptions
from kernel_amqp._tables import QueueTable
from kernel_amqp.broker.streams import is_wanted, stream_arguments
from kernel_amqp.broker.topology import graves_of, has_dead_exchange, queue_arguments, queue_method, queue_of

from kernel._manifest.manifest import load
from kernel._manifest.registry import discover
from kernel._plan.plan import resolve
from kernel.abc import Queue
from kernel.errors import ConflictError, PlanError

STREAM = AmqpOptions(type="stream")


def stream(**keys: Any) -> Queue:
    return Queue(name="s", options=STREAM, **keys)


def test_a_stream_becomes_arguments() -> None:
    options = AmqpOptions(type="stream", max_length_bytes=5, max_age=90.5, arguments={"x-other": 1})

    assert queue_arguments(stream(dead_letters="d"), options) == {
        "x-queue-type": "stream",
        "x-max-length-bytes": 5,
        "x-max-age": "91s",
        "x-other": 1,
    }


def test_a_stream_without_bounds_is_no_more_than_one() -> None:
    assert queue_arguments(stream(), STREAM) == {"x-queue-type": "stream"}


def test_what_is_put_aside_of_a_stream_goes_to_a_queue_that_can_be_emptied() -> None:
    graves = graves_of([Queue(name="d"), stream(dead_letters="d")])

    assert graves["d"].options == AmqpOptions(type="quorum")
    assert not has_dead_exchange(stream(dead_letters="d")), "the broker puts nothing aside there"


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"durable": False}, "`durable = false`"),
        ({"max_length": 5}, "`max_length`"),
        ({"ttl": 1.0}, "`ttl`"),
        ({"partition_by": "subject"}, "`partition_by`"),
        ({"ttl": 1.0, "partition_by": "subject"}, "`ttl`, `partition_by`"),
    ],
)
def test_what_a_stream_cannot_be_asked_for_is_refused_by_name(keys: dict[str, Any], named: str) -> None:
    with pytest.raises(ConflictError, match=f'"s" cannot be of `type = "stream"` with {named}:'):
        queue_method(stream(**keys))


@pytest.mark.parametrize(
    "keys",
    [
        {"max_priority": 9},
        {"exclusive": True},
        {"auto_delete": True},
        {"expires": 5.0},
        {"single_active_consumer": True},
        {"consumer_priority": 3},
        {"delivery_limit": 5},
        {"dead_letter_strategy": "at-least-once"},
        {"arguments": {"x-max-age": "5s"}},
        {"offset": "soon"},
        {"offset": -1},
        {"offset": 2**63},
        {"offset": "0h"},
        {"offset": "2026-01-01T00:00:00"},
        {"max_age": 0.5},
    ],
    ids=str,
)
def test_options_that_a_stream_does_not_have_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(keys))):
        AmqpOptions(type="stream", **keys)


@pytest.mark.parametrize(
    "keys",
    [{"ttl": 5.0}, {"max_length": 5}, {"partition_by": "subject"}, {"durable": False}, {"max_priority": 1}],
    ids=str,
)
def test_a_table_of_a_stream_is_held_to_the_same(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(keys))):
        QueueTable(type="stream", **keys)


@pytest.mark.parametrize("type_", [None, "classic", "quorum"])
@pytest.mark.parametrize(
    "keys",
    [{"offset": "first"}, {"offset": 5}, {"filter": ("a",)}, {"match_unfiltered": True}, {"max_age": 5.0}],
    ids=str,
)
def test_what_only_a_stream_has_is_refused_elsewhere(type_: Any, keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(keys))):
        AmqpOptions(type=type_, **keys)


@pytest.mark.parametrize(
    ("offset", "wanted"),
    [
        ("first", "first"),
        ("last", "last"),
        ("next", "next"),
        (7, 7),
        ("7D", "7D"),
        ("1h", "1h"),
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T13:00:00+01:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_a_consumer_says_where_it_begins(offset: int | str, wanted: object) -> None:
    assert stream_arguments(AmqpOptions(type="stream", offset=offset), None) == {"x-stream-offset": wanted}


def test_one_that_goes_on_says_where() -> None:
    assert stream_arguments(AmqpOptions(type="stream", offset="first"), 12) == {"x-stream-offset": 12}


def test_a_filter_is_asked_for_as_rabbitmq_313_takes_it() -> None:
    options = AmqpOptions(type="stream", filter=("eu", "us"), match_unfiltered=True)

    assert stream_arguments(options, None) == {
        "x-stream-offset": "next",
        "x-stream-filter": ["eu", "us"],
        "x-stream-match-unfiltered": True,
    }


@pytest.mark.parametrize(
    ("headers", "unfiltered", "wanted"),
    [
        ({"x-stream-filter-value": "eu"}, False, True),
        ({"x-stream-filter-value": "asia"}, True, False),
        ({}, False, False),
        ({}, True, True),
        ({"x-stream-filter-value": 5}, True, False),
    ],
)
def test_what_comes_is_filtered_here_too(headers: dict[str, object], unfiltered: bool, wanted: bool) -> None:
    options = AmqpOptions(type="stream", filter=("eu", "us"), match_unfiltered=unfiltered)

    assert is_wanted(headers, options) is wanted


def test_a_table_says_all_that_options_say() -> None:
    options = AmqpOptions(type="stream", offset="first", filter=("a",), match_unfiltered=True, max_age=5.0)
    fields = {name: value for name, value in attrs.asdict(options, recurse=False).items() if name != "passive"}

    assert queue_of("s", QueueTable(**fields)).options == options


MANIFEST = """
[drivers.rabbit]
plugin = "amqp"
[protocols.json]
[dispatchers.audit]
plugin = "consumer"
driver = "rabbit"
protocol = "json"
queue = "audit"
options = {{ type = "stream", offset = "first" }}
{more}
[workers.audit]
use = "stream_audit:audit"
dispatcher = "audit"
"""


@pytest.mark.parametrize("more", ["ttl = 5.0", 'partition_by = "subject"', "max_length = 5", "durable = false"])
def test_check_refuses_what_a_stream_cannot(more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stream_audit.py").write_text("async def audit(payload: object) -> None: ...\n", encoding="utf-8")
    (tmp_path / "kernel.toml").write_text(MANIFEST.format(more=more), encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(PlanError, match=f'type = "stream"` with `{more.partition(" ")[0]}'):
        resolve(load("kernel.toml", environ={}), discover())
