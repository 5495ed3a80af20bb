"""The table of what each broker can do says what the installed drivers say."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from kernel._manifest.registry import discover
from kernel.abc import Broker, Capability, Driver

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "brokers.md"
FEATURES = {
    Capability.DELAY: ("retries after a wait; messages that are sent now and delivered later", "`retry`, `delay`"),
    Capability.DEAD_LETTERS: ("dead letters, with reason and history", "`dead_letters`"),
    Capability.ORDERING: ("order by key", "`partition_by`"),
    Capability.DEDUPLICATION: ("a message that is sent twice is taken once", "`deduplication_window`"),
    Capability.PRIORITY: ("priorities", "`priority`; over `amqp`, in queues with `max_priority`"),
    Capability.TTL: ("messages that expire in the queue", "`ttl`, deadlines"),
    Capability.MAX_LENGTH: ("queues with a bound", "`max_length`, `overflow`"),
    Capability.ALL_OR_NOTHING: ("what one full queue refuses, no other queue gets", "`max_length`"),
    Capability.MANDATORY: ("being told that no queue gets a message", "`mandatory`"),
    Capability.REQUEST_REPLY: ("requests and their answers", "`rpc_client`"),
    Capability.PEEK: ("looking into a queue", "`peek`"),
    Capability.DURABLE: ("messages that survive the process", "`durable`"),
    Capability.TRANSACTION: ("sending and writing to a database, both or neither", "`Transactional`"),
}


def brokers() -> dict[str, type[Driver[object]]]:
    registry = discover()
    names = sorted(plugin.name for plugin in registry.plugins if plugin.kind == "driver")
    drivers = {name: cast("type[Driver[object]]", registry.load("driver", name)) for name in names}
    return {name: driver for name, driver in drivers.items() if issubclass(driver.provides, Broker)}


def table() -> str:
    found = brokers()
    head = ["feature", "asked for with", "capability", *(f"`{name}`" for name in found)]
    rows = [
        [feature, asked, f"`{capability.value}`"]
        + ["yes" if capability in driver.capabilities else "no" for driver in found.values()]
        for capability, (feature, asked) in FEATURES.items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def test_every_capability_has_a_row() -> None:
    assert set(FEATURES) == set(Capability)


def test_the_table_says_what_the_drivers_say() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert table() in page, f"write this into {PAGE.name}:\n{table()}"


def test_every_broker_of_this_repository_is_in_the_table() -> None:
    assert {"memory", "sqlite"} <= set(brokers())
