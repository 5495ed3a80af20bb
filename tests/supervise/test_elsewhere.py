"""Workers whose handlers an executor calls: what it is told, and what the pipeline makes of its answers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import pytest
import trio

from kernel import Ack, Envelope, Return
from kernel.abc import Context, Driver, Executor, NoConfig
from kernel.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from trio.testing import MockClock

    from kernel.abc import PlainWorker
    from kernel.testing import OpenKernel


@attrs.define(eq=False)
class Here(Executor):
    """Calls in the loop, and notes what it is told."""

    told: list[str] = attrs.field(factory=list[str])
    returns: int = 0
    """How many calls are not begun."""

    async def call(
        self, worker: PlainWorker, method: str, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> object:
        await trio.lowlevel.checkpoint()
        self.told.append(f"{worker.id} {method} {args} {dict(kwargs)}")
        if self.returns:
            self.returns -= 1
            return Return()
        return worker.use(*args, **kwargs) if worker.is_function else getattr(worker.instance, method)(*args, **kwargs)

    def drain(self, worker: str) -> None:
        self.told.append(f"drain {worker}")

    def resume(self, worker: str) -> None:
        self.told.append(f"resume {worker}")


class Elsewhere(Here):
    """Says that what it calls is in another process."""

    crosses_processes: ClassVar[bool] = True


class HereDriver(Driver[Here]):
    provides: ClassVar[type[object]] = Here

    def __init__(self, *, config: NoConfig, context: Context) -> None:
        pass

    def open(self) -> AbstractAsyncContextManager[Here]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Here]:
        await trio.lowlevel.checkpoint()
        yield Here()


class ElsewhereDriver(HereDriver):
    provides: ClassVar[type[object]] = Elsewhere


class Doubler:
    def __init__(self) -> None:
        self.factor = 2

    def __call__(self, number: int) -> int:
        return self.factor * number


class Waiting:
    async def __call__(self, number: int) -> int:
        return number


class Asking:
    def __init__(self, queue: Any) -> None:
        pass

    def __call__(self, number: int) -> int:
        return number


def double(number: int) -> int:
    return 2 * number


def manifest(use: str, driver: str = "HereDriver", **worker: Any) -> dict[str, Any]:
    consumer = {"plugin": "consumer", "driver": "queue", "protocol": "json", "queue": "q", "bindings": ["#"]}
    return {
        "kernel": {"name": "test"},
        "drivers": {
            "queue": {"plugin": "memory"},
            "rpc": {"plugin": "rpc_client", "driver": "queue", "protocol": "json"},
            "pool": {"use": f"{__name__}:{driver}"},
        },
        "dispatchers": {"incoming": consumer},
        "workers": {"w": {"use": f"{__name__}:{use}", "dispatcher": "incoming", "runs_in": "pool", **worker}},
    }


@pytest.mark.parametrize("use", ["Doubler", "double"])
async def test_an_executor_calls_plain_handlers_and_hears_of_the_drain(
    use: str, open_kernel: OpenKernel, autojump_clock: MockClock
) -> None:
    async with open_kernel(manifest(use)) as service:
        assert await service.resource("driver/rpc").call("double", 4) == 8
        executor = service.resource("driver/pool")
        await service.stop()

    method = "" if use == "double" else "__call__"
    assert executor.told == ["resume worker/w", f"worker/w {method} (4,) {{}}", "drain worker/w"]


async def test_what_an_executor_has_not_begun_is_returned(open_kernel: OpenKernel, autojump_clock: MockClock) -> None:
    async with open_kernel(manifest("double")) as service:
        service.resource("driver/pool").returns = 1
        await service.resource("driver/queue").send(Envelope(subject="q", body=b"4"), exchange="")
        (settled, *_) = await service.wait_settled(1)
        *_, last = await service.wait_settled(2)

    assert isinstance(settled.outcome, Return)
    assert isinstance(last.outcome, Ack)
    assert settled.attempt == last.attempt == 1


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        (manifest("Waiting"), 'runs_in is given; write "def"'),
        (manifest("double", runs_in="queue"), "driver/queue calls no handlers"),
        (manifest("double", runs_in="pol"), 'there is no driver "pol"; did you mean "pool"'),
        (manifest("Asking", driver="ElsewhereDriver"), "asks for queue, which cannot go to another process"),
    ],
)
async def test_check_says_what_an_executor_cannot_call(
    tables: dict[str, Any], problem: str, open_kernel: OpenKernel
) -> None:
    with pytest.raises(PlanError, match=problem):
        async with open_kernel(tables):
            pytest.fail("it opened")
