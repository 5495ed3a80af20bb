"""A reload waits for what goes on to take up what others have changed, and tells what is not taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import attrs
import pytest
import trio

from kernel import Kernel, KernelReloaded
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry
from kernel._plan.plan import resolve
from kernel._supervise.renewal import WITHIN
from kernel.abc import Context, Driver, Renews
from kernel.errors import UnavailableError
from kernel.testing import open_kernel


@attrs.frozen
class SignConfig:
    paint: str = ""
    """What is wrong with it: empty for nothing, `slow` and `lumps` for what comes of painting."""


renewed: list[str] = []


@attrs.define(eq=False)
class Sign(Driver[None], Renews):
    Config: ClassVar[type[object]] = SignConfig
    config: SignConfig
    context: Context

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        yield

    async def renew(self) -> Sequence[str]:
        renewed.append(self.context.id)
        await trio.sleep(3600 if self.config.paint == "slow" else 1)
        if self.config.paint == "lumps":
            raise ValueError("it has lumps")
        return [self.config.paint] if self.config.paint else ()


async def watchman() -> None:
    await trio.sleep_forever()


REGISTRY = Registry.of({"drivers": {"sign": Sign}, "workers": {"watchman": watchman}})


def signs(**paints: str) -> dict[str, Any]:
    drivers = {name: {"plugin": "sign", "paint": paint} for name, paint in paints.items()}
    workers = {"watchman": {"use": "watchman", "depends": [*paints]}}
    return {"kernel": {"name": "street"}, "drivers": drivers, "workers": workers}


async def reloaded(before: dict[str, Any], after: dict[str, Any]) -> tuple[KernelReloaded, float]:
    """Return what a reload has done, and how long it took."""
    renewed.clear()
    async with open_kernel(before, registry=REGISTRY) as service:
        began = trio.current_time()
        told = await service.kernel.reload(resolve(from_mapping(after), REGISTRY))
        return told, trio.current_time() - began


@pytest.mark.parametrize(
    ("paint", "reason"),
    [
        ("wet", "wet"),
        ("lumps", "ValueError: it has lumps"),
        ("slow", f"did not take up what has changed within {WITHIN:g} s"),
    ],
)
async def test_what_is_not_taken_is_told_with_its_reason(autojump_clock: Any, paint: str, reason: str) -> None:
    tables = signs(good="", bad=paint)
    told, seconds = await reloaded(tables, tables)

    assert told.refused == (("driver/bad", reason),)
    assert (told.failed, told.restarted) == ((), ())
    assert seconds == pytest.approx(WITHIN if paint == "slow" else 1)


async def test_a_reload_waits_until_all_is_taken_up(autojump_clock: Any) -> None:
    told, seconds = await reloaded(signs(first="", second=""), signs(first="", second=""))

    assert told.refused == ()
    assert sorted(renewed) == ["driver/first", "driver/second"]
    assert seconds == pytest.approx(1)  # beside each other
    assert told.seconds == pytest.approx(seconds)


async def test_what_has_just_been_started_has_nothing_to_take_up(autojump_clock: Any) -> None:
    told, _ = await reloaded(signs(old="", other=""), signs(old="wet", other=""))

    assert told.restarted == ("driver/old", "worker/watchman")
    assert renewed == ["driver/other"]


async def test_a_stop_waits_for_nothing_that_is_taken_up(autojump_clock: Any) -> None:
    tables = signs(bad="slow")
    renewed.clear()

    async def ask(kernel: Kernel) -> None:
        with pytest.raises(UnavailableError, match="the service stops"):
            await kernel.reload(resolve(from_mapping(tables), REGISTRY))

    async with open_kernel(tables, registry=REGISTRY) as service, trio.open_nursery() as nursery:
        nursery.start_soon(ask, service.kernel)
        await trio.sleep(0.5)
        began = trio.current_time()
        await service.stop()
        took = trio.current_time() - began

    assert renewed == ["driver/bad"]
    assert took < 1
