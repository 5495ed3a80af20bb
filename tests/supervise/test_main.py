"""Facts about the worker that a service is there for: what ends it, and with what status. In virtual time."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import trio
import trio.testing

import kernel
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry
from kernel.errors import PlanError
from kernel.testing import fake_context


class Loop:
    async def run(self) -> None:
        await trio.sleep_forever()


def main(end: Callable[[], object]) -> type[object]:
    class Main:
        async def run(self) -> object:
            await trio.sleep(1)
            return end()

    return Main


def plan_of(end: Callable[[], object], **table: object) -> kernel.Plan:
    tables = {"workers": {"loop": {"use": "loop"}, "main": {"use": "main", "main": True, **table}}}
    registry = Registry.of({"workers": {"loop": Loop, "main": main(end)}})
    return kernel.resolve(from_mapping(tables), registry)


def fail() -> None:
    raise LookupError("no tea")


@pytest.mark.parametrize(
    ("end", "status", "returned"),
    [
        (lambda: None, kernel.ExitStatus.STOPPED, 0),
        (lambda: 7, kernel.ExitStatus.STOPPED, 7),
        (lambda: 255, kernel.ExitStatus.STOPPED, 255),
        (lambda: 256, kernel.ExitStatus.FAILED, 0),
        (lambda: -1, kernel.ExitStatus.FAILED, 0),
        (lambda: sys.exit(300), kernel.ExitStatus.FAILED, 0),
        (lambda: True, kernel.ExitStatus.STOPPED, 0),
        (lambda: sys.exit(5), kernel.ExitStatus.STOPPED, 5),
        (sys.exit, kernel.ExitStatus.STOPPED, 0),
        (lambda: sys.exit("no"), kernel.ExitStatus.FAILED, 0),
        (fail, kernel.ExitStatus.FAILED, 0),
    ],
)
async def test_its_end_ends_the_service(
    end: Callable[[], object], status: int, returned: int, autojump_clock: trio.testing.MockClock
) -> None:
    result = await kernel.serve(plan_of(end), log=fake_context("worker/x").log)

    assert (result.status, result.returned) == (status, returned)
    assert trio.current_time() == pytest.approx(1)


async def test_it_may_be_tried_again_if_the_manifest_says_so(autojump_clock: trio.testing.MockClock) -> None:
    ends = iter([fail, fail, lambda: 4])
    plan = plan_of(lambda: next(ends)(), restart={"policy": "on_failure"})  # noqa: PLW0108  each time another

    result = await kernel.serve(plan, log=fake_context("worker/x").log)

    assert (result.status, result.returned) == (kernel.ExitStatus.STOPPED, 4)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"oneshot": True}, "does not go with oneshot"),
        ({"instances": 2}, "does not go with instances"),
        ({"restart": {"policy": "always"}}, '"always" starts again what ends the service'),
    ],
)
def test_what_does_not_go_with_it_is_told(table: dict[str, object], expected: str) -> None:
    with pytest.raises(PlanError, match=expected):
        plan_of(lambda: None, **table)


def test_there_is_one() -> None:
    tables = {"workers": {name: {"use": "loop", "main": True} for name in "ab"}}

    with pytest.raises(PlanError, match="is said of worker/b too"):
        kernel.resolve(from_mapping(tables), Registry.of({"workers": {"loop": Loop}}))
