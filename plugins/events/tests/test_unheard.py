"""A mark that a listener's dispatcher never looks at is told before anything starts."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from kernel_events import event, listens

from kernel import answers, handles
from kernel._manifest.registry import Registry, discover
from kernel.errors import PlanError
from kernel.testing import open_kernel

WIRED = {"driver": "queue", "protocol": "json"}


@event(name="hello")
@attrs.frozen
class Hello:
    text: str


class Mixed:
    @listens(Hello)
    async def on(self, hello: Hello) -> None: ...

    @handles("order.*")
    async def order(self, payload: dict[str, object]) -> None: ...


class Answering:
    @listens(Hello)
    async def on(self, hello: Hello) -> None: ...

    @answers("sum")
    async def sum(self, a: int, b: int) -> int:
        return a + b


class Doubled:
    @handles("also.this")
    @listens(Hello)
    async def on(self, hello: Hello) -> None: ...


class Inherits(Mixed): ...


@listens(Hello)
async def alone(hello: Hello) -> None: ...


async def plain(hello: Hello) -> None: ...


async def start(worker: Any) -> None:
    tables = {
        "kernel": {"name": "shop"},
        "drivers": {"queue": {"plugin": "memory"}},
        "dispatchers": {"heard": {"plugin": "event_listener", **WIRED}},
        "workers": {"one": {"use": "one", "dispatcher": "heard"}},
    }
    registry = Registry((*discover().plugins, *Registry.of({"workers": {"one": worker}}).plugins))
    async with open_kernel(tables, registry=registry):
        pass


@pytest.mark.parametrize(
    ("worker", "text"),
    [
        (Mixed, 'order of worker/one handles "order.*"'),
        (Answering, 'sum of worker/one handles "sum"'),
        (Doubled, 'on of worker/one handles "also.this"'),
        (Inherits, 'order of worker/one handles "order.*"'),
        (handles("x.y")(plain), 'worker/one handles "x.y"'),
    ],
)
async def test_what_no_event_would_ever_call_is_refused(worker: Any, text: str, autojump_clock: Any) -> None:
    with pytest.raises(PlanError) as refused:
        await start(worker)

    [told] = [problem for problem in refused.value.problems if "handles" in problem.text]
    assert told.text.startswith(f"{text}, and is given events alone")


@pytest.mark.parametrize("worker", [alone, type("Listens", (), {"on": Mixed.on})])
async def test_a_listener_is_nothing_else(worker: Any, autojump_clock: Any) -> None:
    await start(worker)
