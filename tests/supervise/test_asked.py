"""What is given to a worker for its annotations, and events to whoever wants to hear them."""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional

import pytest
import structlog
import trio
from structlog.typing import FilteringBoundLogger

from kernel import (
    ComponentFailed,
    DeliveryDone,
    Event,
    KernelReady,
    State,
    StateChanged,
    answers,
    handles,
)
from kernel._core.spec import WorkerSpec
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve
from kernel._supervise.given import EVENTS_KEPT
from kernel.abc import Broker, Context
from kernel.errors import PlanError
from kernel.testing import open_kernel

BROKER = {"driver": "queue", "protocol": "json"}
TABLES: Mapping[str, Any] = {
    "kernel": {"name": "shop"},
    "drivers": {"queue": {"plugin": "memory"}, "orders": {"plugin": "publisher", **BROKER}},
    "dispatchers": {"work": {"plugin": "consumer", "queue": "work", "bindings": ["#"], **BROKER}},
}


def service(use: object, *, handles_messages: bool = False, **table: Any) -> dict[str, Any]:
    worker = {"use": "w", **({"dispatcher": "work"} if handles_messages else {}), **table}
    tables = {**TABLES, "workers": {"w": worker}}
    if not handles_messages:
        tables["dispatchers"] = {}
    return {
        "manifest": tables,
        "registry": Registry((*discover().plugins, *Registry.of({"workers": {"w": use}}).plugins)),
    }


class Keeps:
    """A worker that keeps what it is given."""

    async def run(self) -> None:
        await trio.sleep_forever()


class WithContext(Keeps):
    def __init__(self, mine: Context) -> None:
        self.given = mine


class WithLog(Keeps):
    def __init__(self, log: FilteringBoundLogger) -> None:
        self.given = log


class WithStdlibLog(Keeps):
    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        self.given = log


class WithLogger(Keeps):
    def __init__(self, log: logging.Logger) -> None:
        self.given = log


class WithOptionalLogger(Keeps):
    def __init__(self, log: Optional[logging.Logger] = None) -> None:  # noqa: UP045  as older code writes it
        self.given = log


async def given(cls: type[Any], **table: Any) -> Any:
    async with open_kernel(**service(cls, **table)) as kernel:
        return kernel.resource("worker/w").given


async def test_a_worker_that_asks_for_its_context_is_given_it() -> None:
    context = await given(WithContext, stop_timeout=1.5)

    assert (context.id, context.name, context.service, context.stop_timeout) == ("worker/w", "w", "shop", 1.5)


@pytest.mark.parametrize("cls", [WithLog, WithStdlibLog])
async def test_a_worker_that_asks_for_a_logger_of_structlog_is_given_one_that_is_bound_to_it(cls: type[Any]) -> None:
    log = await given(cls)

    assert structlog.get_context(log) == {"component": "worker/w"}


@pytest.mark.parametrize("cls", [WithLogger, WithOptionalLogger])
async def test_a_worker_that_asks_for_a_logger_of_logging_is_given_one_that_is_called_like_it(cls: type[Any]) -> None:
    assert (await given(cls)).name == "worker/w"


@pytest.mark.parametrize("instances", [1, 2])
async def test_a_worker_can_say_that_it_works_badly_and_well_again(autojump_clock: Any, instances: int) -> None:
    class Moody(Keeps):
        def __init__(self, mine: Context) -> None:
            self.mine = mine

        async def run(self) -> None:
            await trio.sleep(1)
            self.mine.report_degraded("tired")
            await trio.sleep(1)
            self.mine.report_ready()
            await trio.sleep_forever()

    async with open_kernel(**service(Moody, instances=instances)) as kernel:
        await trio.sleep(1.5)
        tired = [state for name, state in kernel.kernel.states.items() if name.startswith("worker")]
        await trio.sleep(1)
        well = [state for name, state in kernel.kernel.states.items() if name.startswith("worker")]

    assert tired == [State.DEGRADED] * instances
    assert well == [State.READY] * instances


async def test_a_function_may_ask_too(autojump_clock: Any) -> None:
    heard: list[object] = []

    async def handle(payload: Any, log: logging.Logger, mine: Context) -> None:
        heard.extend((payload, log.name, mine.id))

    async with open_kernel(**service(handle, handles_messages=True)) as kernel:
        await kernel.publish("orders", "a.b", 7)
        await kernel.wait_settled()

    assert heard == [7, "worker/w", "worker/w"]


def test_what_an_answering_function_asks_for_is_no_argument_of_the_call() -> None:
    @answers("#")
    async def quote(sku: str, log: logging.Logger) -> str:
        log.info(sku)
        return sku

    tables = service(quote, handles_messages=True)
    spec = resolve(from_mapping(tables["manifest"]), tables["registry"]).components["worker/w"]

    assert isinstance(spec, WorkerSpec)
    assert list(spec.asked) == ["log"]
    assert spec.handlers[0].parameters == "(sku: str)"


async def test_a_driver_that_the_manifest_maps_comes_before_an_annotation() -> None:
    class Mapped(Keeps):
        def __init__(self, log: FilteringBoundLogger) -> None:
            self.given = log

    assert isinstance(await given(Mapped, drivers={"log": "queue"}), Broker)


# --- events -----------------------------------------------------------------------------------------------------------


class Hears:
    """A worker that keeps the events that it is annotated with."""

    def __init__(self, events: trio.MemoryReceiveChannel[DeliveryDone | StateChanged]) -> None:
        self.events = events
        self.heard: list[Event] = []

    async def run(self) -> None:
        async for event in self.events:
            self.heard.append(event)


async def test_a_worker_receives_the_events_that_its_annotation_names(autojump_clock: Any) -> None:
    class Handles(Hears):
        @handles("#")
        async def on(self, payload: Any) -> None: ...

    async with open_kernel(**service(Handles, handles_messages=True)) as kernel:
        await kernel.publish("orders", "a.b", 7)
        await kernel.wait_settled()
        await trio.sleep(1)
        heard = kernel.resource("worker/w").heard

    assert {type(event) for event in heard} == {DeliveryDone, StateChanged}


async def test_a_worker_that_restarts_hears_anew_and_its_old_life_nothing(autojump_clock: Any) -> None:
    lives: list[Hears] = []

    class Fails(Hears):
        def __init__(self, events: trio.MemoryReceiveChannel[StateChanged | ComponentFailed]) -> None:
            super().__init__(events)
            lives.append(self)

        async def run(self) -> None:
            with trio.move_on_after(1):
                await super().run()
            if len(lives) == 1:
                raise OSError("once")
            await super().run()

    async with open_kernel(**service(Fails), expected=OSError) as kernel:
        await trio.sleep(10)
        first, second = lives
        assert not any(isinstance(event, ComponentFailed) for event in first.heard)
        assert kernel.kernel.hub.dropped == 0

    assert any(isinstance(event, StateChanged) for event in second.heard)
    with pytest.raises(trio.ClosedResourceError):
        first.events.receive_nowait()


async def test_events_that_a_worker_does_not_take_are_dropped_and_counted(autojump_clock: Any) -> None:
    class Deaf(Keeps):
        def __init__(self, events: trio.MemoryReceiveChannel[KernelReady], mine: Context) -> None:
            self.mine = mine

    async with open_kernel(**service(Deaf)) as kernel:
        emit: Callable[[Event], None] = kernel.resource("worker/w").mine.emit
        dropped = kernel.kernel.hub.dropped
        for _ in range(EVENTS_KEPT + 10):
            emit(KernelReady(component="kernel", seconds=0.0))

        assert 10 <= kernel.kernel.hub.dropped - dropped <= 11


# --- hooks ------------------------------------------------------------------------------------------------------------

HOOKS = """
from kernel import DeliverySettled, Event, KernelReady, StateChanged
heard = {"every": [], "ready": [], "some": []}
def every(event): heard["every"].append(event)
def ready(event: KernelReady): heard["ready"].append(event)
def some(event: StateChanged | DeliverySettled) -> None: heard["some"].append(event)
def broken(event): raise OSError("no metrics")
async def slow(event): ...
def other(event: int): ...
def later(event: "NoSuchName"): ...
"""


def with_hooks(*names: str) -> dict[str, Any]:
    tables = service(Keeps)
    tables["manifest"]["kernel"] = {"name": "shop", "hooks": [f"hooks_of_test:{name}" for name in names]}
    return tables


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "hooks_of_test.py").write_text(HOOKS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("hooks_of_test").heard
    del sys.modules["hooks_of_test"]


async def test_a_hook_hears_what_its_annotation_names_and_everything_without_one(hooks: Any) -> None:
    async with open_kernel(**with_hooks("every", "ready", "some")):
        pass

    assert {type(event).__name__ for event in hooks["ready"]} == {"KernelReady"}
    assert {type(event).__name__ for event in hooks["some"]} == {"StateChanged"}
    assert {"KernelReady", "StateChanged", "StopRequested", "KernelStopped"} <= {
        type(event).__name__ for event in hooks["every"]
    }


async def test_a_hook_that_raises_harms_nobody(hooks: Any) -> None:
    async with open_kernel(**with_hooks("broken", "ready")) as kernel:
        assert kernel.kernel.hub.dropped > 0

    assert hooks["ready"]


async def test_usual_deliveries_are_no_events_for_a_hook_that_does_not_ask_for_them(hooks: Any) -> None:
    async with open_kernel(**with_hooks("ready")) as kernel:
        heard = {hook.call for hook in kernel.plan.hooks} & set(map(_inner, kernel.kernel.hub.hears(DeliveryDone)))

    assert not heard


def _inner(hook: Any) -> Any:
    return hook.func if isinstance(hook, functools.partial) else hook


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("none", '"hooks_of_test" (from '),
        ("slow", "it is async, and would have to be waited for"),
        ("other", '"hooks_of_test:other" must take an event'),
        ("later", '"hooks_of_test:later" must take an event'),
    ],
)
async def test_what_is_no_hook_is_refused(hooks: Any, name: str, text: str) -> None:
    with pytest.raises(PlanError) as caught:
        async with open_kernel(**with_hooks("every", name)):
            pass

    [problem] = caught.value.problems
    assert problem.path == "[kernel].hooks[1]"
    assert text in problem.text
