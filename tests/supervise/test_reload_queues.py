"""A reload that leaves out a queue, or a pattern of one: what was asked for is unbound or told of, and nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from kernel._core.changes import changes
from kernel._supervise.leftovers import foretold
from kernel.errors import UnroutableError
from kernel.testing import open_kernel

from ._reloaded import BROKER, REGISTRY, SHOP, changed, packed, planned

RENAMED = {"dispatchers__work__queue": "other"}
GONE: dict[str, Any] = {"dispatchers__work": None, "workers__packer": None, "workers__other": None}
FEWER = {"dispatchers__work__bindings": ["letter.*"]}
ELSEWHERE = {"dispatchers__work__exchange": "elsewhere"}
UNREAD = 'driver/queue: queue "work" is bound no more and nobody consumes it: 6 messages wait in it until the'


def opened(tables: Mapping[str, Any] = SHOP, **more: Any) -> Any:
    packed.clear()
    return open_kernel(tables, registry=REGISTRY, **more)


async def publish(service: Any, count: int = 1) -> None:
    for number in range(count):
        await service.resource("driver/orders").publish("parcel.new", number)


@pytest.mark.parametrize("change", [GONE, ELSEWHERE, FEWER], ids=["gone", "elsewhere", "fewer"])
async def test_what_no_dispatcher_asks_for_is_routed_to_nobody(change: dict[str, Any], autojump_clock: Any) -> None:
    async with opened() as service:
        await service.kernel.reload(planned(**change))

        with pytest.raises(UnroutableError):
            await publish(service)


async def test_a_queue_that_was_renamed_does_not_fill_until_sending_fails(autojump_clock: Any) -> None:
    tables = changed(drivers__queue__max_length=3)
    async with opened(tables) as service:
        told = await service.kernel.reload(planned(tables, **RENAMED))
        for _ in range(5):
            await publish(service, 3)
            await trio.sleep(10)  # which all is packed in

        assert told.left == ()
        assert len(packed) == 15


async def test_what_waits_in_a_queue_that_nobody_reads_is_told_of_and_handled_when_it_is_named_again(
    autojump_clock: Any,
) -> None:
    async with opened() as service:
        service.kernel.pause("dispatcher/work")
        await publish(service, 6)
        told = await service.kernel.reload(planned(**RENAMED))
        told_again = await service.kernel.reload(planned())
        service.kernel.resume("dispatcher/work")
        await trio.sleep(10)  # which all is packed in

        assert [text[: len(UNREAD)] for text in told.left] == [UNREAD]
        assert told_again.left == ()
        assert sorted(packed) == [("a", number) for number in range(6)]


async def test_what_waits_in_the_queue_of_a_reload_that_is_taken_back_is_told_of(autojump_clock: Any) -> None:
    async with opened() as service:
        told = await service.kernel.reload(planned(**RENAMED, drivers__shelf__size=0))
        await publish(service)
        await trio.sleep(10)  # which all is packed in

        assert told.undone
        assert told.left == ()
        assert len(packed) == 1


async def test_a_queue_that_another_dispatcher_consumes_is_left_as_it_is(autojump_clock: Any) -> None:
    second = {"plugin": "consumer", "queue": "work", "declare": False, **BROKER}
    tables = changed(dispatchers__second=second, workers__last={"use": "packer", "dispatcher": "second"})
    async with opened(tables) as service:
        told = await service.kernel.reload(planned(tables, **RENAMED))
        await publish(service)
        await trio.sleep(10)  # which all is packed in

        assert told.left == ()


def diff(tables: Mapping[str, Any], **change: Any) -> list[str]:
    old, new = planned(tables), planned(tables, **change)
    return foretold(old, new, changes(old, new))


DURABLE = changed(drivers__queue={"plugin": "sqlite", "path": "q.db"})


def test_that_a_queue_of_a_file_stays_is_foretold_with_what_ends_it() -> None:
    assert [text.rpartition(": ")[2] for text in diff(DURABLE, **RENAMED)] == [
        "`kernel queue delete work --file q.db` ends it"
    ]
    assert diff(DURABLE, **GONE) == diff(DURABLE, **RENAMED)
    assert [text.rpartition(": ")[2] for text in diff(DURABLE, **FEWER)] == [
        "`kernel queue unbind work events '#' --file q.db` ends it"
    ]
    assert diff(DURABLE, **ELSEWHERE) == diff(DURABLE, **FEWER)


def test_of_a_queue_in_memory_nothing_is_foretold_where_its_driver_restarts() -> None:
    assert len(diff(SHOP, **RENAMED)) == 1
    assert diff(SHOP, **RENAMED, drivers__queue__max_length=7) == []


def test_a_driver_under_another_name_asks_for_the_same() -> None:
    old = planned(DURABLE)
    tables = changed(DURABLE, drivers__queue=None, drivers__file={"plugin": "sqlite", "path": "q.db"})
    tables["drivers"]["orders"]["driver"] = tables["dispatchers"]["work"]["driver"] = "file"
    new = planned(tables)

    assert foretold(old, new, changes(old, new)) == []


async def test_a_reload_over_a_file_says_what_stays_in_it(tmp_path: Path) -> None:
    tables = changed(drivers__queue={"plugin": "sqlite", "path": str(tmp_path / "q.db")})
    async with opened(tables) as service:
        told = await service.kernel.reload(planned(tables, **RENAMED))

        assert told.left == tuple(diff(tables, **RENAMED))
