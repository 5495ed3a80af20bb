"""What restarts in a reload goes through the stages, down and up again; and what fails there is taken back."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import trio

from kernel import KernelReady, State, at
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve
from kernel.testing import open_kernel

diary: list[str] = []


@attrs.frozen
class Config:
    label: str = "a"


class Staged:
    """Writes down where it is; raises at the stage that its label names."""

    fails_at: ClassVar[str] = ""

    def __init__(self, config: Config) -> None:
        self.label = config.label

    async def __aenter__(self) -> None:
        await self.say("open")

    async def __aexit__(self, *_: object) -> None:
        await self.say("close")

    @classmethod
    @at("before_start")
    async def rise(cls) -> None:
        await trio.lowlevel.checkpoint()
        diary.append(f"{cls.__name__} before_start")
        if cls.fails_at == "before_start":
            cls.fails_at = ""
            raise ValueError("not now")

    @at("after_start")
    async def begin(self) -> None:
        await self.say("after_start")

    async def run(self) -> None:
        await trio.sleep_forever()

    @at("before_stop")
    async def end(self, reason: str) -> None:
        await self.say(f"before_stop {reason}")

    @classmethod
    @at("after_stop")
    async def fall(cls) -> None:
        await trio.lowlevel.checkpoint()
        diary.append(f"{cls.__name__} after_stop")

    async def say(self, what: str) -> None:
        await trio.lowlevel.checkpoint()
        diary.append(f"{type(self).__name__} {self.label} {what}")


class Other(Staged):
    pass


REGISTRY = Registry((*discover().plugins, *Registry.of({"workers": {"one": Staged, "two": Other}}).plugins))


def tables(label: str, **more: Any) -> dict[str, Any]:
    return {
        "kernel": {"name": "stages"},
        "workers": {"one": {"use": "one", "config": {"label": label}}, "two": {"use": "two"}, **more},
    }


def planned(label: str, **more: Any) -> Any:
    return resolve(from_mapping(tables(label, **more)), REGISTRY)


async def settled(service: Any) -> None:
    """Wait until what follows the answer is done."""
    await trio.sleep(0.1)
    assert service.kernel.is_ready


async def test_what_restarts_goes_through_its_stages_and_what_stays_does_not(autojump_clock: Any) -> None:
    async with open_kernel(tables("a"), registry=REGISTRY) as service:
        diary.clear()
        await service.kernel.reload(planned("b"))
        await settled(service)
        reloaded = list(diary)
        diary.clear()
        await service.stop()

        assert reloaded == [
            "Staged a before_stop reload",
            "Staged a close",
            "Staged after_stop",
            "Staged before_start",
            "Staged b open",
            "Staged b after_start",
        ]
        assert sorted(diary) == [
            "Other a before_stop the test is over",
            "Other a close",
            "Other after_stop",
            "Staged after_stop",
            "Staged b before_stop the test is over",
            "Staged b close",
        ]
        assert len([event for event in service.events if isinstance(event, KernelReady)]) == 1


async def test_what_comes_and_goes_takes_part_in_its_half(autojump_clock: Any) -> None:
    async with open_kernel(tables("a"), registry=REGISTRY) as service:
        diary.clear()
        await service.kernel.reload(planned("a", three={"use": "two", "config": {"label": "c"}}))
        await settled(service)
        came = list(diary)
        diary.clear()
        await service.kernel.reload(planned("a"))
        await settled(service)

        assert came == ["Other before_start", "Other c open", "Other c after_start"]
        assert diary == ["Other c before_stop reload", "Other c close", "Other after_stop"]


async def test_a_stage_that_fails_before_the_start_takes_the_reload_back(autojump_clock: Any) -> None:
    async with open_kernel(tables("a"), registry=REGISTRY) as service:
        diary.clear()
        Staged.fails_at = "before_start"
        told = await service.kernel.reload(planned("b"))
        await settled(service)

        assert told.undone
        assert diary[2:] == [
            "Staged after_stop",
            "Staged before_start",
            "Staged before_start",
            "Staged a open",
            "Staged a after_start",
        ]
        assert service.kernel.states == {"worker/one": State.READY, "worker/two": State.READY}
        assert (await service.stop()).status == 0
