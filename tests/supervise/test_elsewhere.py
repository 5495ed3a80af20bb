"""Workers whose handlers an executor calls: what it is told, and what the pipeline makes of its answers."""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import pytest
import trio

from kernel import Ack, DeadLetter, Envelope, Return
from kernel.abc import Context, Driver, Executor, NoConfig, untimed
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

    @classmethod
    def refusal(cls, worker: PlainWorker) -> str:
        return "is not called, " + repr(worker.arguments) if worker.use is Refused else ""

    told: list[str] = attrs.field(factory=list[str])
    returns: int = 0
    """How many calls are not begun."""
    waits: tuple[float, ...] = ()
    """For how long a call waits before its handler begins, and how long it is about it, in turns."""

    async def call(
        self, worker: PlainWorker, method: str, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> object:
        await trio.lowlevel.checkpoint()
        self.told.append(f"{worker.id} {method} {args} {dict(kwargs)}")
        for number, seconds in enumerate(self.waits):
            with nullcontext() if number % 2 else untimed():
                await trio.sleep(seconds)
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


class Refused:
    def __init__(self, config: dict[str, int]) -> None:
        pass

    def __call__(self, number: int) -> int:
        return number


class Asking:
    def __init__(self, queue: Any) -> None:
        pass

    def __call__(self, number: int) -> int:
        return number


def collect(numbers: list[int]) -> None:
    """Handles a batch."""


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
        (manifest("Refused", config={"a": 1}), r"\[workers.w.config\]: Refused is not called, {'config': {'a': 1}}"),
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


@pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
@pytest.mark.parametrize(
    ("waits", "is_in_time"),
    [
        ((30.0, 0.9), True),
        ((30.0, 0.5, 30.0, 0.4), True),
        ((0.5, 1.1), False),
        ((30.0, 0.6, 30.0, 0.6), False),
    ],
)
async def test_what_an_executor_waits_for_before_a_handler_begins_is_not_the_handlers_time(
    waits: tuple[float, ...], is_in_time: bool, batch: bool, open_kernel: OpenKernel, autojump_clock: MockClock
) -> None:
    autojump_clock.jump(100_000.0)
    tables = manifest("collect" if batch else "double", timeout=1.0, retry={"attempts": 1})
    if batch:
        tables["dispatchers"]["incoming"]["batch"] = {"size": 1, "wait": 0.1}
    async with open_kernel(tables, expected=TimeoutError) as service:
        service.resource("driver/pool").waits = waits
        await service.resource("driver/queue").send(Envelope(subject="q", body=b"4"), exchange="")
        (settled, *_) = await service.wait_settled(1)

    assert isinstance(settled.outcome, Ack if is_in_time else DeadLetter)
    assert settled.seconds == pytest.approx(sum(waits) if is_in_time else sum(waits[::2]) + 1.0, abs=0.2)


async def test_the_deadline_of_a_delivery_goes_on_before_its_handler_begins(
    open_kernel: OpenKernel, autojump_clock: MockClock
) -> None:
    async with open_kernel(manifest("double", timeout=1.0), expected=TimeoutError) as service:
        service.resource("driver/pool").waits = (30.0,)
        deadline = trio.current_time() + 10.0
        await service.resource("driver/queue").send(Envelope(subject="q", body=b"4", deadline=deadline), exchange="")
        (settled, *_) = await service.wait_settled(1)

    assert isinstance(settled.outcome, DeadLetter)
    assert "deadline" in settled.outcome.reason
    assert settled.seconds == pytest.approx(10.0, abs=0.1)
