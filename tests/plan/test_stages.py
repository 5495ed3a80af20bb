"""Facts about the stages of a plan: their order, their bounds, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import kernel
from kernel import at
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry
from kernel._plan.stages import FALLING, RISING
from kernel.errors import PlanError

LOOP = [stage for stage in (*RISING, *FALLING) if stage not in {"start", "stop"}]


def marked(*stages: str) -> type[object]:
    class Worker:
        @classmethod
        @at(*stages)
        def hook(cls) -> None: ...

        async def run(self) -> None: ...

    return Worker


def resolved(cls: object, registry: Mapping[str, Any] | None = None, **stages: object) -> kernel.Plan:
    tables = {"kernel": {"name": "test"}, "workers": {"w": {"use": "w"}}, "stages": stages}
    return kernel.resolve(from_mapping(tables), Registry.of({"workers": {"w": cls}, "stages": registry or {}}))


def names(plan: kernel.Plan) -> list[str]:
    return [stage.name for stage in plan.stages]


def test_stages_come_in_their_order_and_without_hooks_not_at_all() -> None:
    assert names(resolved(marked(*reversed(LOOP)))) == LOOP
    assert names(resolved(marked("exit"))) == ["exit"]


def test_stages_of_ones_own_hang_on_others() -> None:
    own = {
        "a": {"after": "start"},
        "b": {"before": "start"},
        "c": {"after": "a"},
        "d": {"before": "a"},
        "e": {"after": "start"},
        "f": {"before": "stop"},
        "g": {"after": "exit"},
    }
    plan = resolved(marked(*own, "after_start", "before_stop"), **own)

    assert names(plan) == ["b", "d", "a", "c", "e", "after_start", "before_stop", "f", "g"]
    zones = {stage.name: (stage.zone.value, stage.is_rising, stage.direction.value) for stage in plan.stages}
    assert zones["b"] == ("loop", True, "forward")
    assert zones["d"] == zones["e"] == zones["after_start"] == ("alive", True, "forward")
    assert zones["f"] == zones["before_stop"] == ("alive", False, "backward")
    assert zones["g"] == ("process", False, "backward")


def test_a_plugin_adds_stages() -> None:
    plan = resolved(marked("warm"), {"warm": {"after": "start", "direction": "gather", "timeout": 5.0}})

    assert [(stage.name, stage.direction.value, stage.timeout) for stage in plan.stages] == [("warm", "gather", 5.0)]


def test_what_is_done_on_the_way_down_is_part_of_the_proof() -> None:
    plan = resolved(marked("before_start", "before_stop", "exit"), before_stop={"timeout": 3.5})

    assert [(wait.what, wait.seconds) for wait in plan.budget.waits] == [
        ("stage before_stop", 3.5),
        ("drain", 15.0),
        ("worker/w", 2.0),
        ("stage exit", 1.0),
        ("flush", 1.0),
    ]


def test_a_stop_that_does_not_fit_is_refused() -> None:
    with pytest.raises(PlanError, match=r"a stop can take .*stage before_stop 20"):
        resolved(marked("before_stop"), before_stop={"timeout": 20})


class Bound:
    @at("before_start")
    def hook(self) -> None: ...
    async def run(self) -> None: ...


class Outside:
    @classmethod
    @at("init")
    async def hook(cls) -> None: ...
    async def run(self) -> None: ...


class Asking:
    @at("after_start")
    def up(self, what: object) -> None: ...
    @at("before_stop")
    def down(self, what: object, more: object) -> None: ...
    async def run(self) -> None: ...


@pytest.mark.parametrize(
    ("cls", "stages", "expected"),
    [
        (marked("warm"), {}, r"Worker.hook is marked with @at\(\"warm\"\), and there is no such stage"),
        (marked("start"), {}, "there is no such stage; did you mean"),
        (marked("warm"), {"warn": {"after": "start"}}, 'did you mean "warn"'),
        (Bound, {}, "Bound.hook is called at before_start, when there is no object"),
        (Outside, {}, "Outside.hook is called at init, when there is no event loop"),
        (Asking, {}, "Asking.up is called at after_start without arguments, but needs what"),
        (Asking, {}, "Asking.down is called at before_stop with the reason alone, but needs what, more"),
        (marked("init"), {"x": {}}, r"\[stages.x\]: must say where it is"),
        (marked("init"), {"x": {"after": "init", "before": "start"}}, r"\[stages.x\]: must say where it is"),
        (marked("init"), {"x": {"after": "y"}}, r"\[stages.x\].after: there is no stage \"y\""),
        (marked("init"), {"x": {"after": "x"}}, r"\[stages.x\]: hangs on itself"),
        (marked("init"), {"x": {"after": "y"}, "y": {"before": "x"}}, r"\[stages.y\]: hangs on itself"),
        (marked("init"), {"init": {"after": "start"}}, r"\[stages.init\].after: init is a stage of the kernel"),
        (marked("init"), {"stop": {"timeout": 1}}, r"\[stages.stop\]: is what opening and closing is"),
        (marked("init"), {"x": {"after": "init", "timeout": 0}}, r"\[stages.x\].timeout: must be a finite number"),
        (marked("init"), {"x": {"after": "init", "direction": "up"}}, r"\[stages.x\].direction: must be"),
        (marked("init"), {"X": {"after": "init"}}, r"\[stages.X\]: a name must be"),
    ],
)
def test_what_is_wrong_with_stages_is_told(cls: type[object], stages: dict[str, object], expected: str) -> None:
    with pytest.raises(kernel.errors.InvalidError, match=expected):
        resolved(cls, **stages)


@pytest.mark.parametrize("given", [(), (print,)])
def test_a_mark_needs_its_stages(given: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="needs the stages in parentheses"):
        at(*given)


def test_a_plugin_that_names_no_stage_is_told() -> None:
    with pytest.raises(PlanError, match="must name a mapping"):
        resolved(marked("init"), {"warm": 3})
