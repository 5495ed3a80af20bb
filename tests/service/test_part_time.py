"""Facts about `kernel.open`: what is open, in what order it is closed, and what becomes of errors."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
import trio.testing

import kernel
from kernel._manifest.registry import Registry
from kernel._plan.part import part_of
from kernel._service.guest import STOP_TIMEOUT, guest
from kernel.errors import PlanError, StartupError
from kernel.testing import fake_context

from ._service import HAPPENED, Store, Telling


class Loop:
    """A worker of the manifest."""

    def __init__(self, store1: Store) -> None:
        self.store = store1

    async def run(self) -> None:
        HAPPENED.append("run")
        await trio.sleep_forever()


REGISTRY = Registry.of({"drivers": {"telling": Telling}, "workers": {"loop": Loop}})
DEPENDS = {3: "2", 2: "1"}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Ten drivers, of which 3 stands on 2, and 2 on 1; and a worker on 1."""
    HAPPENED.clear()
    tables = [
        f'[drivers.store{number}]\nplugin = "telling"\nrestart.policy = "never"\n'
        + (f'depends = ["store{DEPENDS[number]}"]\n' if number in DEPENDS else "")
        for number in range(10)
    ]
    (tmp_path / "kernel.toml").write_text("".join(tables) + '[workers.store9]\nuse = "loop"\n')
    return tmp_path / "kernel.toml"


def opened(
    manifest: Path, *only: str, overrides: list[str] | None = None
) -> AbstractAsyncContextManager[dict[str, object]]:
    return kernel.open(manifest, only=only, overrides=overrides or (), registry=REGISTRY)  # type: ignore[return-value]


async def test_what_is_named_is_open_and_nothing_else(manifest: Path) -> None:
    async with opened(manifest, "store5") as components:
        HAPPENED.append("inside")

        assert [store.name for store in components.values() if isinstance(store, Store)] == ["store5"]
    assert HAPPENED == ["open store5", "inside", "close store5"]


async def test_what_is_named_stands_on_others(manifest: Path) -> None:
    async with opened(manifest, "driver/store3", "store4") as components:
        assert list(components) == ["driver/store3", "store4"]

    assert [one for one in HAPPENED if one[-1] in "123"] == [
        *("open store1", "open store2", "open store3"),
        *("close store3", "close store2", "close store1"),
    ]
    assert len(HAPPENED) == 8


async def test_a_worker_may_be_named(manifest: Path) -> None:
    async with opened(manifest, "worker/store9") as components:
        assert isinstance(components["worker/store9"], Loop)

    assert HAPPENED == ["open store1", "run", "close store1"]


async def test_all_is_open_if_nothing_is_named(manifest: Path) -> None:
    async with kernel.open(manifest, registry=REGISTRY) as components:
        assert len(components) == 11


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stor5", 'there is no component "stor5"; did you mean "store5"'),
        ("y", 'there is no component "y"; there are: store0, store1'),
        ("store9", '"store9" may mean driver/store9 or worker/store9; say one of them'),
    ],
)
async def test_what_is_not_there_cannot_be_opened(manifest: Path, name: str, expected: str) -> None:
    with pytest.raises(PlanError, match=expected):
        await opened(manifest, name).__aenter__()

    assert HAPPENED == []


async def test_an_error_inside_is_raised_after_all_has_closed(manifest: Path) -> None:
    with pytest.raises(LookupError, match="tea"):
        async with opened(manifest, "store3"):
            raise LookupError("tea")

    assert HAPPENED[-1] == "close store1"


async def test_what_does_not_come_up_is_an_error(manifest: Path) -> None:
    with pytest.raises(StartupError) as caught:
        await opened(manifest, "store3", overrides=["drivers.store2.fails=true"]).__aenter__()

    assert "store2 is not there" in str(caught.value.__cause__)
    assert HAPPENED == ["open store1", "close store1"]


async def break_inside(manifest: Path, name: str, *overrides: str, after: float = math.inf) -> None:
    """Break a store that is open, and go on for so many seconds whatever happens."""
    async with opened(manifest, name, overrides=list(overrides)) as components:
        store = components[name]
        assert isinstance(store, Store)
        store.broken.set()
        try:
            with trio.CancelScope(shield=after < math.inf):
                await trio.sleep(after)
        finally:
            HAPPENED.append("cancelled")


async def test_what_breaks_cancels_what_is_inside(manifest: Path, autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await break_inside(manifest, "store3")

    assert caught.group_contains(OSError, match="store3 broke")
    assert HAPPENED.index("cancelled") < HAPPENED.index("close store2")


async def test_what_would_restart_is_an_error_since_what_is_inside_cannot(
    manifest: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await break_inside(manifest, "store5", 'drivers.store5.restart.policy="always"')

    assert caught.group_contains(OSError, match="store5 broke")


async def test_cancellation_closes_in_order(manifest: Path, autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(1) as scope:
        async with opened(manifest, "store3"):
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert HAPPENED[-3:] == ["close store3", "close store2", "close store1"]


async def test_what_is_inside_has_its_time_and_no_more(manifest: Path, autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(BaseExceptionGroup):
        await break_inside(manifest, "store5", after=100)

    assert HAPPENED == ["open store5", "close store5", "cancelled"]
    assert trio.current_time() >= 100 > STOP_TIMEOUT


async def test_a_script_is_not_run_a_second_time(manifest: Path, autojump_clock: trio.testing.MockClock) -> None:
    async def script(store5: Store) -> None:
        HAPPENED.append("script")
        store5.broken.set()
        await trio.sleep_forever()

    overrides = ['drivers.store5.restart.policy="always"']
    plan = kernel.resolve(kernel.load(manifest, environ={}, overrides=overrides), REGISTRY)
    worker = guest(plan, "worker/script", script, drivers={"store5": "driver/store5"})
    result = await kernel.serve(part_of(plan, ["driver/store5"], user=worker), log=fake_context("worker/x").log)

    assert result.status == kernel.ExitStatus.FAILED
    assert "not run a second time" in str(result.errors)
    assert HAPPENED == ["open store5", "script", "close store5", "open store5", "close store5"]
