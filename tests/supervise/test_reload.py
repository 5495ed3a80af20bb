"""A reload: what has changed restarts, with what uses it; everything else notices nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from kernel import KernelReloaded, ReloadFailed, Secret, State
from kernel.errors import LeftBehindError, PlanError, StartupError, UnavailableError
from kernel.testing import open_kernel

from ._reloaded import BROKER, REGISTRY, SHOP, begun, changed, packed, planned, stopped


def opened(tables: Mapping[str, Any] = SHOP, **more: Any) -> Any:
    packed.clear()
    return open_kernel(tables, registry=REGISTRY, **more)


RESTARTS = [
    ({}, set()),
    ({"workers__packer__timeout": 600.0}, set()),
    ({"dispatchers__work__concurrency": 4, "kernel__drain_timeout": 5.0}, set()),
    ({"workers__packer__timeout": 3.0}, {"worker/packer"}),
    ({"workers__packer__config": {"label": "b"}}, {"worker/packer"}),
    ({"workers__packer__use": "hasty"}, {"worker/packer"}),
    ({"workers__packer__retry": {"attempts": 7}}, {"worker/packer"}),
    ({"workers__watchman__essential": False}, {"worker/watchman"}),
    ({"drivers__shelf__size": 2}, {"driver/shelf", "worker/clerk"}),
    ({"drivers__shelf__stop_timeout": 1.0}, {"driver/shelf", "worker/clerk"}),
    ({"drivers__orders__exchange": "other"}, {"driver/orders"}),
    ({"dispatchers__work__concurrency": 5}, {"dispatcher/work"}),
    ({"protocols__json": {"plugin": "json", "max_depth": 9}}, {"driver/orders", "dispatcher/work"}),
    ({"workers__watchman": None}, set()),
    ({"workers__other": None}, {"dispatcher/work"}),
    ({"workers__second": {"use": "watchman"}}, {"worker/second"}),
    ({"workers__second": {"use": "watchman", "depends": ["shelf"]}}, {"worker/second"}),
    ({"workers__watchman__depends": ["shelf"]}, {"worker/watchman"}),
    ({"workers__watchman__on_reload": "restart"}, {"worker/watchman"}),
]


@pytest.mark.parametrize(("changes", "restarts"), RESTARTS, ids=[",".join(one) or "nothing" for one, _ in RESTARTS])
async def test_what_restarts(changes: dict[str, Any], restarts: set[str], autojump_clock: Any) -> None:
    async with opened() as service:
        since = len(service.events)
        told = await service.kernel.reload(planned(**changes))

        assert begun(service, since) == restarts
        assert {*told.restarted, *told.added} == restarts
        assert not told.failed
        assert set(service.kernel.states) == set(planned(**changes).components)
        assert service.kernel.is_ready


async def test_what_uses_a_component_stops_before_and_starts_after_it(autojump_clock: Any) -> None:
    async with opened() as service:
        since = len(service.events)
        await service.kernel.reload(planned(drivers__shelf__size=2))

        moves = [(one.component, one.new.value) for one in service.events[since:] if hasattr(one, "new")]
        order = [move for move in moves if move[1] in {"backoff", "ready"}]
        assert order == [
            ("worker/clerk", "backoff"),
            ("driver/shelf", "backoff"),
            ("driver/shelf", "ready"),
            ("worker/clerk", "ready"),
        ]


async def test_a_call_of_a_worker_that_is_replaced_is_finished_and_what_comes_waits_for_the_next(
    autojump_clock: Any,
) -> None:
    async with opened() as service:
        for number in range(3):
            await service.publish("orders", "parcel.a", number)
        await trio.sleep(0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.kernel.reload, planned(workers__packer__config={"label": "b"}))
            await trio.sleep(0.1)
            for number in range(3, 6):
                await service.publish("orders", "parcel.a", number)
        await service.wait_settled(6)

        assert sorted(packed) == [("a", 0), ("a", 1), ("a", 2), ("b", 3), ("b", 4), ("b", 5)]
        assert [one.attempt for one in service.settled] == [1] * 6
        assert {one.id for one in service.kernel.snapshot().components if one.restarts} == {"worker/packer"}


async def test_what_waits_for_a_worker_is_handled_by_the_class_that_takes_its_place(autojump_clock: Any) -> None:
    async with opened(changed(workers__packer__concurrency=1)) as service:
        for number in range(4):
            await service.publish("orders", "parcel.a", number)
        await trio.sleep(0.5)
        await service.kernel.reload(planned(workers__packer__concurrency=1, workers__packer__use="hasty"))
        await service.wait_settled(4)

        assert sorted(label for label, _ in packed) == ["a", "hasty a", "hasty a", "hasty a"]
        assert sorted(payload for _, payload in packed) == [0, 1, 2, 3]
        assert {one.attempt for one in service.settled} == {1}


async def test_other_workers_of_a_dispatcher_do_not_notice(autojump_clock: Any) -> None:
    async with opened() as service:
        await service.publish("orders", "letter.a", 1)
        await trio.sleep(0.5)
        await service.kernel.reload(planned(workers__packer__timeout=3.0))
        now = trio.current_time()
        await service.wait_settled(1)

        assert trio.current_time() - now <= 0.5
        assert packed == [("other a", 1)]
        assert service.settled[0].attempt == 1


async def test_a_worker_can_be_added_to_a_dispatcher_and_taken_away(autojump_clock: Any) -> None:
    without = changed(workers__other=None)
    async with opened(without) as service:
        await service.kernel.reload(planned())
        await service.publish("orders", "letter.a", 1)
        await service.wait_settled(1)
        await service.kernel.reload(planned(without))
        await service.publish("orders", "parcel.a", 2)
        await service.wait_settled(2)

        assert packed == [("other a", 1), ("a", 2)]


async def test_the_number_of_instances_can_change(autojump_clock: Any) -> None:
    async with opened() as service:
        for count in (3, 2, 1):
            await service.kernel.reload(planned(workers__packer__instances=count))
            await service.publish("orders", "parcel.a", count)
            await service.wait_settled(4 - count)

        assert packed == [("a", 3), ("a", 2), ("a", 1)]
        assert service.kernel.states["worker/packer"] is State.READY
        assert service.kernel.is_ready


async def test_a_wider_dispatcher_gives_its_workers_more_at_a_time(autojump_clock: Any) -> None:
    async with opened(changed(dispatchers__work__concurrency=1)) as service:
        await service.kernel.reload(planned(dispatchers__work__concurrency=4))
        began = trio.current_time()
        for number in range(4):
            await service.publish("orders", "parcel.a", number)
        await service.wait_settled(4)

        assert trio.current_time() - began <= 1.1


async def test_a_dispatcher_that_changes_finishes_what_it_has_begun(autojump_clock: Any) -> None:
    async with opened() as service:
        await service.publish("orders", "parcel.a", 1)
        await trio.sleep(0.5)
        await service.kernel.reload(planned(dispatchers__work__concurrency=2))

        assert [one.attempt for one in service.settled] == [1]
        assert packed == [("a", 1)]


async def test_a_file_that_holds_something_else_restarts_what_reads_it(autojump_clock: Any, tmp_path: Path) -> None:
    file = tmp_path / "certificate"
    file.write_text("old")
    shop = changed(drivers__lamp={"certificate": str(file)}, workers__clerk__depends=["lamp"])
    async with opened(shop) as service:
        file.write_text("old")
        same = await service.kernel.reload(planned(shop))
        file.write_text("new")
        new = await service.kernel.reload(planned(shop))
        again = await service.kernel.reload(planned(shop))

        assert same.restarted == again.restarted == ()
        assert new.restarted == ("driver/lamp", "worker/clerk")
        assert service.kernel.is_ready


async def test_a_pipe_in_the_place_of_a_file_holds_nothing_up(autojump_clock: Any, tmp_path: Path) -> None:
    """Neither the start nor a reload, which would wait for whoever writes into it."""
    file = tmp_path / "certificate"
    os.mkfifo(file)
    shop = changed(drivers__lamp={"certificate": str(file)}, workers__clerk__depends=["lamp"])
    async with opened(shop) as service:
        same = await service.kernel.reload(planned(shop))
        file.unlink()
        file.write_text("new")
        new = await service.kernel.reload(planned(shop))

        assert same.restarted == ()
        assert new.restarted == ("driver/lamp", "worker/clerk")


CERTIFICATES = [
    ("amqp", {"url": Secret("amqp://127.0.0.1"), "tls": {"ca": "a", "certificate": "b", "key": "c"}}),
    ("amqp10", {"hosts": ["127.0.0.1"], "tls": {"ca": "a", "certificate": "b", "key": "c"}}),
    ("stomp", {"hosts": ["127.0.0.1"], "tls": {"ca": "a", "certificate": "b", "key": "c"}}),
    ("http", {"base_url": "https://127.0.0.1", "ca": "a", "certificate": "b", "key": "c"}),
    ("redis", {"dsn": Secret("rediss://127.0.0.1"), "ca": "a", "certificate": "b", "key": "c"}),
    (
        "postgres",
        {
            "dsn": Secret("postgresql://127.0.0.1"),
            "sslrootcert": "a",
            "sslcert": "b",
            "sslkey": "c",
            "sslmode": "verify-full",
        },
    ),
]


@pytest.mark.parametrize(("plugin", "table"), CERTIFICATES, ids=[plugin for plugin, _ in CERTIFICATES])
def test_the_drivers_that_have_certificates_name_their_files(plugin: str, table: dict[str, Any]) -> None:
    tables = {
        "kernel": {"name": "shop"},
        "drivers": {"one": {"plugin": plugin, **table}},
        "workers": {"w": {"use": "watchman"}},
    }
    spec: Any = planned(tables).components["driver/one"]

    assert [*spec.cls.reads(spec.config)] == ["a", "b", "c"]


# --- what is wrong --------------------------------------------------------------------------------------------------------


async def test_what_a_running_service_cannot_take_over_is_refused_with_its_place(autojump_clock: Any) -> None:
    async with opened() as service:
        with pytest.raises(PlanError) as refused:
            await service.kernel.reload(planned(kernel__name="other", logging={"format": "json"}))

        assert [problem.path for problem in refused.value.problems] == ["[kernel].name", "[logging].format"]
        assert service.kernel.plan.name == "shop"
        assert isinstance(service.events[-1], ReloadFailed)


async def test_one_that_does_not_know_its_manifest_needs_a_plan(autojump_clock: Any) -> None:
    async with opened() as service:
        with pytest.raises(ValueError, match="does not know its manifest"):
            await service.kernel.reload()


async def test_something_essential_that_can_never_start_is_taken_back(autojump_clock: Any) -> None:
    async with opened() as service:
        told = await service.kernel.reload(planned(drivers__shelf__size=0, workers__watchman=None))
        old_is_back = service.kernel.is_ready
        again = await service.kernel.reload(planned(drivers__shelf__size=3))

        assert told.undone
        assert "there is no such shelf" in dict(told.failed)["driver/shelf"]
        assert old_is_back
        assert not again.undone
        assert service.resource("driver/shelf") == 3
        result = await service.stop()
    assert result.status == 0


async def test_something_essential_that_hangs_while_it_starts_leaves_no_way_back(autojump_clock: Any) -> None:
    async with opened() as service:
        with suppress(UnavailableError):
            await service.kernel.reload(planned(drivers__shelf__size=77, drivers__shelf__start_timeout=5.0))
        await service.kernel.wait_stop_requested()
        result = await service.stop()

        assert service.kernel.stop_reason == "a reload could not be taken back"
        assert result.status != 0


async def test_what_fails_and_may_heal_is_tried_again_and_the_next_reload_mends_it(autojump_clock: Any) -> None:
    async with opened(expected=ValueError) as service:
        told = await service.kernel.reload(planned(drivers__shelf__size=13))
        state = service.kernel.states["driver/shelf"]
        ready = service.kernel.is_ready
        await service.kernel.reload(planned(drivers__shelf__size=3))

        assert not told.undone
        assert "it fell" in str(told.failed)
        assert state is State.BACKOFF
        assert not ready
        assert service.kernel.is_ready
        assert service.resource("driver/shelf") == 3


async def test_what_is_in_backoff_starts_anew_at_once_and_what_it_is_not_goes_on_waiting(autojump_clock: Any) -> None:
    slow = {"backoff_initial": 1000.0, "backoff_max": 1000.0}
    shop = changed(drivers__shelf={"size": 13, "restart": slow}, drivers__second={"plugin": "shelf", "size": 13})
    shop["drivers"]["second"]["restart"] = slow
    async with opened(shop, ready=False, expected=ValueError) as service:
        await trio.sleep(1)
        await service.kernel.reload(planned(shop, drivers__shelf__size=2))

        assert service.kernel.states["driver/shelf"] is State.READY
        assert service.kernel.states["driver/second"] is State.BACKOFF


async def test_what_has_failed_for_good_starts_again_when_it_has_changed(autojump_clock: Any) -> None:
    shop = changed(drivers__shelf={"size": 0, "essential": False}, workers__clerk__essential=False)
    async with opened(shop, ready=False) as service:
        await trio.sleep(1)
        failed = service.kernel.states["worker/clerk"]
        await service.kernel.reload(planned(shop, drivers__shelf__size=2))

        assert failed is State.FAILED
        assert service.resource("driver/shelf") == 2
        assert service.kernel.states["worker/clerk"] is State.READY


async def test_a_group_that_has_failed_is_up_again_when_one_of_it_has_changed(autojump_clock: Any) -> None:
    shop = changed(workers__faller={"use": "faller", "essential": False}, workers__watchman__essential=False)
    group = {"strategy": "one_for_one", "members": ["faller", "watchman"], "restart": {"max_restarts": 0}}
    shop["groups"] = {"two": group}
    async with opened(shop, expected=Exception) as service:
        await trio.sleep(1)
        failed = service.kernel.states["worker/watchman"]
        told = await service.kernel.reload(planned(shop, workers__faller__config={"label": "b"}))

        assert failed is State.FAILED
        assert not told.failed
        assert set(service.kernel.states.values()) == {State.READY}


async def test_a_dispatcher_whose_workers_come_back_accepts_again(autojump_clock: Any) -> None:
    shop = changed(
        workers__other=None, workers__packer__drivers={"config": "shelf"}, dispatchers__work__essential=False
    )
    shop["workers"]["packer"] = {"use": "packer", "dispatcher": "work", "essential": False, "depends": ["shelf"]}
    shop["drivers"]["shelf"] = {"size": 0, "essential": False}
    shop["workers"]["clerk"]["essential"] = False
    async with opened(shop, ready=False) as service:
        await trio.sleep(1)
        failed = service.kernel.states["dispatcher/work"]
        await service.kernel.reload(planned(shop, drivers__shelf__size=2))
        await service.publish("orders", "parcel.a", 1)
        await service.wait_settled(1)

        assert failed is State.FAILED
        assert packed == [("a", 1)]


async def test_what_was_held_for_a_worker_that_is_gone_is_handled_when_it_comes_back(autojump_clock: Any) -> None:
    packer = {"use": "packer", "dispatcher": "work", "essential": False, "depends": ["shelf"]}
    shop = changed(workers__packer=packer, workers__clerk__essential=False)
    shop["drivers"]["shelf"] = {"size": 0, "essential": False}
    async with opened(shop, ready=False) as service:
        await trio.sleep(1)
        await service.publish("orders", "parcel.a", 1)
        await trio.sleep(1)
        held = list(packed)
        await service.kernel.reload(planned(shop, drivers__shelf__size=2))
        await service.wait_settled(
            1, matching=lambda one: one.worker == "worker/packer" and one.outcome.__class__.__name__ == "Ack"
        )

        assert held == []
        assert packed == [("a", 1)]


async def test_one_that_hangs_while_it_closes_has_failed_for_good_and_the_others_go_on(autojump_clock: Any) -> None:
    shop = changed(drivers__shelf={"size": 99, "essential": False}, workers__clerk__essential=False)
    async with opened(shop, expected=LeftBehindError) as service:
        told = await service.kernel.reload(planned(shop, drivers__shelf__size=2, workers__packer__timeout=3.0))
        await service.publish("orders", "parcel.a", 1)
        await service.wait_settled(1)
        tree = {one.id: one.state for one in service.kernel.snapshot().components}

        assert dict(told.failed).keys() == {"driver/shelf", "worker/clerk"}
        assert tree["driver/shelf"] is State.FAILED
        assert tree["worker/clerk"] is State.FAILED
        assert service.kernel.is_ready
        await service.stop()


async def test_an_essential_one_that_hangs_while_it_closes_ends_the_service(autojump_clock: Any) -> None:
    async with opened(changed(drivers__shelf__size=99)) as service:
        with pytest.raises(UnavailableError):
            await service.kernel.reload(planned(drivers__shelf__size=2))
        result = await service.stop()

        assert result.status == 1
        assert isinstance(result.errors[0], LeftBehindError)


# --- when -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.0, 0.1, 0.7, 1.2, 5.0])
async def test_a_stop_during_a_reload_is_in_order(after: float, autojump_clock: Any) -> None:
    async with opened() as service:
        for number in range(3):
            await service.publish("orders", "parcel.a", number)
        await trio.sleep(0.5)
        ended: list[object] = []

        async def reload() -> None:
            try:
                ended.append(
                    await service.kernel.reload(
                        planned(drivers__shelf__size=2, dispatchers__work__rate={"messages": 5})
                    )
                )
            except UnavailableError as error:
                ended.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload)
            await trio.sleep(after)
            began = trio.current_time()
            result = await service.stop()

        assert result.status == 0
        assert sorted(packed) == [("a", 0), ("a", 1), ("a", 2)]
        assert trio.current_time() - began <= service.plan.budget.seconds
        assert set(service.kernel.states.values()) == {State.STOPPED}
        assert len(ended) == 1


async def test_one_that_stops_is_not_reloaded(autojump_clock: Any) -> None:
    async with opened() as service:
        await service.publish("orders", "parcel.a", 1)
        await trio.sleep(0.5)
        service.kernel.request_stop("test")
        with pytest.raises(UnavailableError):
            await service.kernel.reload(planned(drivers__shelf__size=2))
        await service.stop()


async def test_reloads_are_one_after_the_other_and_the_last_one_holds(autojump_clock: Any) -> None:
    async with opened() as service, trio.open_nursery() as nursery:
        for size in range(2, 12):
            nursery.start_soon(service.kernel.reload, planned(drivers__shelf__size=size))
        await service.wait_event(KernelReloaded, lambda _event: len(reloads(service)) == 10)

        assert service.resource("driver/shelf") == service.kernel.plan.components["driver/shelf"].config.size
        assert service.kernel.is_ready


def reloads(service: Any) -> list[Any]:
    return [event for event in service.events if isinstance(event, KernelReloaded)]


async def test_a_service_that_is_not_up_yet_can_be_reloaded(autojump_clock: Any) -> None:
    async with opened(changed(drivers__shelf__size=13), ready=False, expected=ValueError) as service:
        await trio.sleep(1)
        await service.kernel.reload(planned(drivers__shelf__size=2))

        assert service.kernel.is_ready


async def test_nothing_stops_for_a_moment_in_which_nothing_is_left(autojump_clock: Any) -> None:
    only = {"kernel": {"name": "shop"}, "workers": {"watchman": {"use": "watchman"}}}
    async with opened(only) as service:
        await service.kernel.reload(planned({"kernel": {"name": "shop"}, "workers": {"second": {"use": "watchman"}}}))
        await trio.sleep(1)

        assert service.kernel.states == {"worker/second": State.READY}
        assert not service.kernel.stop_reason


async def test_what_was_done_once_is_not_done_again_for_what_it_used(autojump_clock: Any) -> None:
    shop = changed(workers__once={"use": "once", "oneshot": True, "depends": ["shelf"]})
    async with opened(shop) as service:
        await trio.sleep(1)
        since = len(service.events)
        await service.kernel.reload(planned(shop, drivers__shelf__size=2))

        assert "worker/once" not in stopped(service, since) | begun(service, since)
        assert service.kernel.states["worker/once"] is State.STOPPED
        assert service.kernel.is_ready


async def test_a_queue_that_a_new_dispatcher_wants_is_there_before_anybody_sends(autojump_clock: Any) -> None:
    extra = {
        "dispatchers__letters": {"plugin": "consumer", "queue": "letters", "bindings": ["letter.*"], **BROKER},
        "workers__mailer": {"use": "other", "dispatcher": "letters"},
    }
    async with opened() as service:
        await service.kernel.reload(planned(**extra))
        await service.publish("orders", "letter.a", 1)
        await service.wait_settled(2)

        assert packed == [("other a", 1)] * 2


async def test_a_startup_error_of_a_protocol_changes_nothing(autojump_clock: Any) -> None:
    async with opened() as service:
        plan = planned(protocols__json={"plugin": "json", "max_depth": 9})
        broken = type("Broken", (), {"__init__": lambda self, *, config, context: 1 / 0})
        protocols = {"json": attrs.evolve(plan.protocols["json"], cls=broken)}
        with pytest.raises(StartupError):
            await service.kernel.reload(attrs.evolve(plan, protocols=protocols))

        assert service.kernel.is_ready


@pytest.mark.parametrize("essential", [False, True])
async def test_what_was_taken_out_and_does_not_close_is_told_of(essential: bool, autojump_clock: Any) -> None:
    shop = changed(drivers__second={"plugin": "shelf", "size": 99, "essential": essential})
    async with opened(shop) as service:
        told = await service.kernel.reload(planned(shop, drivers__second=None))
        began = trio.current_time()
        again = await service.kernel.reload(planned(shop, drivers__second__size=2))
        seconds = trio.current_time() - began

    reason = dict(told.failed)["driver/second"]
    assert told.removed == ("driver/second",)
    assert reason.startswith("left behind: it did not close within stop_timeout = ")
    assert "_reloaded.py:" in reason
    assert again.failed == told.failed
    assert seconds < 10
